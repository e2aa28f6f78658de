// Puts a run together from its config: the only place that knows all parts. A Trainer owns what one
// rank needs and is the same for the threads backend (N of them in a test) and for MPI.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data_pipeline/ledger.h"
#include "data_pipeline/loader.h"
#include "data_pipeline/sampler.h"
#include "data_pipeline/shard_dataset.h"
#include "models/nfnet/nfnet.h"
#include "models/nfnet/working_weights.h"
#include "trainer/backward.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/comm/communicator.h"
#include "trainer/comm/grad_reducer.h"
#include "trainer/evaluate.h"
#include "trainer/image_feed.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/param_group.h"
#include "trainer/optim/sam.h"
#include "trainer/optim/schedule.h"
#include "trainer/optim/sgd.h"
#include "trainer/resolve_device.h"
#include "trainer/run_config.h"
#include "trainer/shared_state.h"

namespace nf::train {

struct Trainer {
  Trainer(const RunConfig& config, Communicator& comm);

  RunConfig config;
  Communicator& comm;
  at::Device device;
  data::ShardDataset train_set;
  std::unique_ptr<data::ShardDataset> eval_set;  // null without evaluate.split
  data::Sampler sampler;
  data::TrainPlan plan;
  model::Nfnet net;
  std::vector<Param> params;  // values are views of the arena; gradients go through the reducer
  FlatLayout layout;
  std::unique_ptr<SharedState> shared_state;  // null: this rank has all of it for itself
  at::Tensor weights;                         // flat, all parameters
  Sgd sgd;
  std::unique_ptr<Ema> ema;  // null without ema.decay
  Schedule schedule;
  GradientPath gradient_path;
  GradReducer reducer;
  model::WorkingWeights working;
  Backward backward;
  Sam sam;
  bool recompute_blocks = false;  // by train.recompute
  std::unique_ptr<data::Loader> loader;
  std::unique_ptr<ImageFeed> feed;  // moves the loader

  uint64_t step = 0;  // updates done
  uint64_t total_steps() const { return plan.steps(); }
  uint64_t position() const;  // samples whose gradients are in the weights
  double epoch() const;       // position in epochs

  // Moves the run to `step` updates done: the loader's next micro-batch is that step's first.
  void seek(uint64_t step);
  // What nf-audit needs to prove the run (RUN_DIR/run.json).
  data::RunOrder order() const;
};

// The checkpoint of a trainer's present state, in CPU memory of its own, or (kView) in the
// trainer's where that is the CPU's: good until the next step. And back: restore() throws
// Error(kWeights) when the tensors do not fit.
enum class SnapshotMemory { kCopy, kView };
Snapshot take_snapshot(Trainer& trainer, SnapshotMemory memory = SnapshotMemory::kCopy);
void restore(Trainer& trainer, const Snapshot& snapshot);

// How a run evaluates on evaluate.split.
EvalOptions evaluation_options(const RunConfig& config);

// A network whose parameters are the average's: views, nothing is copied.
model::Nfnet averaged_net(const Trainer& trainer);

// Loads init.weights, or initializes from the seed. Where ranks share their state, rank 0 does it
// for all, and a barrier must follow.
void initialize_weights(Trainer& trainer);

}  // namespace nf::train
