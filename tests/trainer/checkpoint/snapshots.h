// Small training states for the tests of checkpoints: every number follows from the step, so any
// state that is read back can be compared with the one that must have been saved.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "core/rng.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nf::test {

inline at::Tensor step_tensor(uint64_t step, uint64_t index, const std::vector<int64_t>& shape) {
  at::Tensor t = at::empty(shape, at::kFloat);
  PositionRng rng(step, Stream::kTest, index);
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data_ptr<float>()[i] = static_cast<float>(rng.uniform(-1, 1));
  return t;
}

// columns: size of the largest tensor's rows.
inline train::Snapshot snapshot_at(uint64_t step, bool with_ema = true, int64_t columns = 33) {
  train::Snapshot s;
  s.state = {.step = step,
             .position = step * 50,
             .seed = 18446744073709551615ull,
             .fingerprint = "f00d",
             .config_hash = "beef",
             .extra = {{"best_top1", 0.25 * static_cast<double>(step)}}};
  const auto list = [&](uint64_t first) {
    return std::vector<train::NamedTensor>{
        {"stem.conv1.weight", step_tensor(step, first, {4, columns})},
        {"stages.0.0.skipinit_gain", step_tensor(step, first + 1, {})},
        {"head.fc.weight", step_tensor(step, first + 2, {10, 4})},
        {"head.fc.bias", step_tensor(step, first + 3, {10})}};
  };
  s.model = list(0);
  s.optimizer = list(10);
  if (with_ema) s.ema = list(20);
  s.model_metadata = {{"model", "nfnet_nano"}, {"flavour", "dm"}, {"classes", "10"}};
  return s;
}

inline bool same_tensors(const std::vector<train::NamedTensor>& a,
                         const std::vector<train::NamedTensor>& b) {
  if (a.size() != b.size()) return false;
  for (const train::NamedTensor& x : a) {
    bool found = false;
    for (const train::NamedTensor& y : b)
      found = found || (x.name == y.name && x.tensor.equal(y.tensor));
    if (!found) return false;
  }
  return true;
}

inline bool same_snapshot(const train::Snapshot& a, const train::Snapshot& b) {
  return a.state == b.state && same_tensors(a.model, b.model) &&
         same_tensors(a.optimizer, b.optimizer) && same_tensors(a.ema, b.ema) &&
         a.model_metadata == b.model_metadata;
}

}  // namespace nf::test
