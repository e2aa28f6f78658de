// Loss and accuracy over a whole split: every image exactly once, nothing padded, the same bits for
// any number of ranks (chunks are fixed; their sums are added in chunk order).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/jsonl.h"
#include "data_pipeline/loader.h"
#include "models/nfnet/nfnet.h"
#include "trainer/comm/communicator.h"

namespace nf::train {

struct EvalOptions {
  data::AugmentOptions preprocess;  // Crop::kCenter
  int64_t chunk = 64;
  int workers = 2;
  std::string loss_kind = "softmax";  // without label smoothing
};

struct EvalResult {
  uint64_t images = 0;                       // that counted
  uint64_t bad = 0;                          // undecodable
  double loss = 0, loss_standard_error = 0;  // mean over images; std of per-image losses / sqrt(n)
  double top1 = 0, top5 = 0;                 // fractions
};

// Called for each chunk of this rank with its logits and preprocessed images.
using EvalTap = std::function<void(const data::MicroBatch&, const at::Tensor& images,
                                   const at::Tensor& logits)>;

EvalResult evaluate(const model::Nfnet& net, const data::ShardDataset& set,
                    const EvalOptions& options, Communicator& comm, const EvalTap& tap = {});

Json to_json(const EvalResult& result);

}  // namespace nf::train
