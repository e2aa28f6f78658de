// Whole runs with ranks as threads of the test's process, and comparisons of what they leave
// behind, byte by byte.
#pragma once

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/jsonl.h"
#include "tests/support/tiny_run.h"
#include "trainer/comm/local.h"
#include "trainer/comm/threads.h"
#include "trainer/loop.h"

namespace nf::test {

// Trains with `world` ranks into `output`, continuing what is there.
inline void train_in_threads(const train::RunConfig& config, int world,
                             const std::filesystem::path& output) {
  train::LoopOptions options;
  options.output = output;
  options.quiet = true;
  train::StopWatch watch(0);
  const auto body = [&](train::Communicator& comm) {
    at::set_num_threads(1);
    train::Trainer trainer(config, comm);
    EXPECT_EQ(train::run_training(trainer, options, watch), ExitCode::kDone);
  };
  if (world == 1) {
    train::LocalCommunicator alone;
    body(alone);
  } else {
    train::ThreadsGroup(world, 120).run(body);
  }
}

// One file of a run's newest checkpoint.
inline std::string state_of(const std::filesystem::path& run,
                            const std::string& file = "model.safetensors") {
  return slurp(latest(run) / file);
}

// Step, loss and gradient norm of every train line, as they were printed.
inline std::vector<std::string> losses_of(const std::filesystem::path& run) {
  std::vector<std::string> out;
  for (const auto& line : read_jsonl(run / "metrics.jsonl"))
    if (line["kind"] == "train")
      out.push_back(line["step"].dump() + " " + line["loss"].dump() + " " +
                    line["grad_norm"].dump());
  return out;
}

// Weights, momentum, average, state, losses and ledger.
inline void expect_same_run(const std::filesystem::path& a, const std::filesystem::path& b) {
  ASSERT_FALSE(state_of(a).empty()) << a;
  for (const auto& file : state_files())
    EXPECT_EQ(state_of(a, file), state_of(b, file)) << file << " of " << b;
  EXPECT_EQ(losses_of(a), losses_of(b)) << b;
  EXPECT_EQ(slurp(a / "ledger.jsonl"), slurp(b / "ledger.jsonl")) << b;
}

// A scratch folder in memory with a packed data set of drawn shapes, for a fixture's test suite.
class RunScratch {
 public:
  RunScratch(int per_class, int holdout, int size = 32) : folder_(memory_directory()) {
    make_shapes_dataset(folder_ / "data", per_class, holdout, size);
  }
  std::string data() const { return (folder_ / "data").string(); }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

  // A run of the tiny config with these overrides; its folder.
  std::filesystem::path train(const std::string& name, int world,
                              const std::vector<std::string>& more = {}) const {
    train_in_threads(tiny_config(data(), more), world, folder_ / name);
    return folder_ / name;
  }

 private:
  TempDir folder_;
};

}  // namespace nf::test
