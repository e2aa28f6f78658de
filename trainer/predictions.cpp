// See predictions.h.
#include "trainer/predictions.h"

#include <fmt/format.h>

#include "core/atomic_file.h"
#include "trainer/checkpoint/named_tensors.h"

namespace nf::train {
namespace {
constexpr int64_t kTop = 5;

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}
}  // namespace

PredictionWriter::PredictionWriter(std::string csv, std::vector<std::string> class_names,
                                   std::string tensors, int64_t tensor_count)
    : csv_path_(std::move(csv)),
      tensor_path_(std::move(tensors)),
      class_names_(std::move(class_names)),
      tensor_count_(tensor_count) {
  csv_ = "index,label,name";
  for (int64_t i = 1; i <= kTop; ++i)
    csv_ += fmt::format(",top{0},top{0}_name,top{0}_probability", i);
  csv_ += "\n";
}

EvalTap PredictionWriter::tap() {
  if (csv_path_.empty() && tensor_path_.empty()) return {};
  return [this](const data::MicroBatch& b, const at::Tensor& images, const at::Tensor& logits) {
    take(b, images, logits);
  };
}

void PredictionWriter::take(const data::MicroBatch& batch, const at::Tensor& images,
                            const at::Tensor& logits) {
  const auto name = [&](int64_t c) {
    return c >= 0 && c < static_cast<int64_t>(class_names_.size())
               ? csv_field(class_names_[static_cast<size_t>(c)])
               : std::string();
  };
  const at::Tensor cpu = logits.to(at::kCPU, at::kFloat).contiguous();
  if (!csv_path_.empty()) {
    const auto [probability, index] = cpu.softmax(1).topk(std::min(kTop, cpu.size(1)), 1);
    for (int64_t i = 0; i < batch.count; ++i) {
      const int32_t label = batch.labels[batch.label_offset[static_cast<size_t>(i)]];
      csv_ += fmt::format("{},{},{}", batch.samples[static_cast<size_t>(i)], label, name(label));
      for (int64_t k = 0; k < index.size(1); ++k) {
        const auto c = index[i][k].item<int64_t>();
        csv_ += fmt::format(",{},{},{:.6g}", c, name(c), probability[i][k].item<float>());
      }
      csv_ += "\n";
    }
  }
  const int64_t wanted = std::min(batch.count, tensor_count_ - taken_);
  if (tensor_path_.empty() || wanted <= 0) return;
  at::Tensor labels = at::empty({wanted}, at::kLong), indices = at::empty({wanted}, at::kLong);
  for (int64_t i = 0; i < wanted; ++i) {
    labels.data_ptr<int64_t>()[i] = batch.labels[batch.label_offset[static_cast<size_t>(i)]];
    indices.data_ptr<int64_t>()[i] = static_cast<int64_t>(batch.samples[static_cast<size_t>(i)]);
  }
  images_.push_back(images.narrow(0, 0, wanted).to(at::kCPU).clone());
  logits_.push_back(cpu.narrow(0, 0, wanted).clone());
  labels_.push_back(labels);
  indices_.push_back(indices);
  taken_ += wanted;
}

void PredictionWriter::finish() {
  if (!csv_path_.empty()) write_file_atomic(csv_path_, csv_);
  if (tensor_path_.empty()) return;
  const auto join = [](const std::vector<at::Tensor>& parts) {
    return at::cat(parts).contiguous();
  };
  write_tensors(tensor_path_,
                {{"images", join(images_)},
                 {"logits", join(logits_)},
                 {"labels", join(labels_)},
                 {"indices", join(indices_)}},
                {});
}

}  // namespace nf::train
