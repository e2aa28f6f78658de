// What nf-eval can write beside its figures: a CSV of predictions, and the tensors the network saw
// and gave.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "trainer/evaluate.h"

namespace nf::train {

class PredictionWriter {
 public:
  // Empty paths: nothing is written there.
  PredictionWriter(std::string csv, std::vector<std::string> class_names, std::string tensors,
                   int64_t tensor_count);
  EvalTap tap();
  // Writes the files. Throws Error(kOther) naming the path.
  void finish();

 private:
  void take(const data::MicroBatch& batch, const at::Tensor& images, const at::Tensor& logits);
  std::string csv_path_, tensor_path_;
  std::vector<std::string> class_names_;
  int64_t tensor_count_, taken_ = 0;
  std::string csv_;
  std::vector<at::Tensor> images_, logits_, labels_, indices_;
};

}  // namespace nf::train
