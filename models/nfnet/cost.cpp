// See cost.h. One walk over the network's layers serves multiply-adds and memory.
#include "models/nfnet/cost.h"

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "models/nfnet/names.h"

namespace nf::model {
namespace {

int64_t pixels(int64_t size) { return size * size; }
int64_t halved(int64_t size, int64_t stride) { return (size + stride - 1) / stride; }

// Elements of the input of a 3x3 convolution as it is kept: with stride 2 SAME padding makes a
// larger copy, one row and column on an even size, two on an odd one; with stride 1 the convolution
// pads by itself.
int64_t kept_input(int64_t channels, int64_t size, int64_t stride) {
  if (stride == 1) return channels * pixels(size);
  return channels * pixels(size + (size % 2 == 0 ? 1 : 0));
}

// What one part of the network costs: the stem, a block, or the tail. Elements per image.
struct PartCost {
  double macs = 0;
  double kept = 0;     // for the backward pass
  double output = 0;   // that part of it which the next part takes
  double largest = 0;  // tensor
  double weights = 0;  // elements of convolution weights, standardized anew in each pass

  void conv(int64_t in, int64_t out, int64_t kernel, int64_t groups, int64_t out_size) {
    const int64_t count = in / groups * kernel * kernel * out;
    const auto elements = static_cast<double>(count);
    macs += elements * static_cast<double>(pixels(out_size));
    weights += elements;
  }
  void keep(int64_t elements) {
    kept += static_cast<double>(elements);
    largest = std::max(largest, static_cast<double>(elements));
  }
};

// `size` becomes the size that leaves the part.
PartCost stem_part(const NfnetSpec& spec, int64_t& size) {
  PartCost part;
  int64_t channels = 3;
  for (size_t i = 0; i < spec.stem_channels.size(); ++i) {
    const int64_t out = spec.stem_channels[i], out_size = halved(size, spec.stem_strides[i]);
    part.keep(kept_input(channels, size, spec.stem_strides[i]));
    part.keep(out * pixels(out_size));  // input of the activation that follows
    part.conv(channels, out, 3, 1, out_size);
    channels = out;
    size = out_size;
  }
  part.output = static_cast<double>(channels * pixels(size));
  return part;
}

PartCost block_part(const BlockSpec& b, int64_t& size) {
  PartCost part;
  const int64_t out_size = halved(size, b.stride), mid = b.mid_channels;
  part.conv(b.in_channels, mid, 1, 1, size);
  part.conv(mid, mid, 3, b.groups, out_size);
  part.conv(mid, mid, 3, b.groups, out_size);
  part.conv(mid, b.out_channels, 1, 1, out_size);
  part.macs += 2.0 * static_cast<double>(b.out_channels * b.se_channels);
  part.keep(b.in_channels * pixels(size));  // act(x), input of conv1
  part.keep(mid * pixels(size));            // conv1's output
  part.keep(kept_input(mid, size, b.stride));
  for (int i = 0; i < 4; ++i) part.keep(mid * pixels(out_size));  // conv2 and conv2b: the same
  part.keep(b.out_channels * pixels(out_size));                   // branch
  part.keep(b.out_channels * pixels(out_size));                   // output
  part.keep(3 * b.out_channels + 2 * b.se_channels);              // squeeze-excite
  if (b.projection) {
    part.conv(b.in_channels, b.out_channels, 1, 1, out_size);
    if (b.stride != 1) part.keep(b.in_channels * pixels(out_size));  // pooled
  }
  part.output = static_cast<double>(b.out_channels * pixels(out_size));
  size = out_size;
  return part;
}

PartCost tail_part(const NfnetSpec& spec, int64_t size) {
  PartCost part;
  const int64_t last = final_channels(spec);
  part.conv(spec.widths.back(), last, 1, 1, size);
  part.keep((spec.widths.back() + last) * pixels(size));
  part.keep(2 * last + spec.classes);
  part.macs += static_cast<double>(last * spec.classes);
  return part;
}

std::vector<PartCost> parts_of(const NfnetSpec& spec, int64_t image_size) {
  NF_CHECK(image_size >= 1);
  int64_t size = image_size;
  std::vector<PartCost> parts = {stem_part(spec, size)};
  for (const BlockSpec& b : block_specs(spec)) parts.push_back(block_part(b, size));
  parts.push_back(tail_part(spec, size));
  return parts;
}

}  // namespace

ModelCost model_cost(const NfnetSpec& spec) {
  ModelCost cost{0, 0, 0, 0};
  for (const ParameterSpec& p : parameter_specs(spec)) {
    const bool head =
        p.role == ParamRole::kClassifierWeight || p.role == ParamRole::kClassifierBias;
    cost.parameters += p.elements();
    cost.tensors += 1;
    if (!head) cost.parameters_without_head += p.elements();
    if (!has_weight_decay(p.role)) cost.no_decay_parameters += p.elements();
  }
  return cost;
}

double forward_macs(const NfnetSpec& spec, int64_t image_size) {
  double macs = 0;
  for (const PartCost& part : parts_of(spec, image_size)) macs += part.macs;
  return macs;
}

double activation_bytes_estimate(const NfnetSpec& spec, int64_t image_size, int64_t batch,
                                 int bytes_per_element) {
  double kept = 0;
  for (const PartCost& part : parts_of(spec, image_size))
    kept += part.kept * static_cast<double>(batch);
  for (const ParameterSpec& p : parameter_specs(spec)) {
    // Standardized weights are new tensors; linear weights only where they are cast from float32.
    if (p.role == ParamRole::kConvWeight || (bytes_per_element != 4 && has_weight_decay(p.role))) {
      kept += static_cast<double>(p.elements());
    }
  }
  return kept * bytes_per_element;
}

double training_peak_bytes(const NfnetSpec& spec, int64_t image_size, int64_t batch,
                           int bytes_per_element, bool recompute) {
  const std::vector<PartCost> parts = parts_of(spec, image_size);
  const auto images = static_cast<double>(batch);
  const auto whole = [&](const PartCost& part) { return part.kept * images; };
  const auto held = [&](size_t i) {  // between the passes
    return recompute && i + 1 < parts.size() ? parts[i].output * images : whole(parts[i]);
  };
  double before = 0, peak = 0;
  for (size_t i = 0; i < parts.size(); ++i) {  // the backward pass has come to part i
    peak = std::max(peak, before + whole(parts[i]) + 3 * parts[i].largest * images);
    before += held(i);
  }
  return std::max(peak, before) * bytes_per_element;
}

double working_weights_bytes(const NfnetSpec& spec, int bytes_per_element) {
  double elements = 0;
  for (const ParameterSpec& p : parameter_specs(spec))
    if (p.role == ParamRole::kConvWeight) elements += static_cast<double>(p.elements());
  return elements * bytes_per_element;
}

double evaluation_peak_bytes(const NfnetSpec& spec, int64_t image_size, int64_t batch) {
  double peak = 0;  // a part's input, shortcut and output, and what is under way
  for (const PartCost& part : parts_of(spec, image_size))
    peak = std::max(peak, 4 * part.largest * static_cast<double>(batch) + part.weights);
  return 4 * peak;
}

}  // namespace nf::model
