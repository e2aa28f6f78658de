// See cost.h. One walk over the network's layers serves multiply-adds and memory.
#include "models/nfnet/cost.h"

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

struct Walk {
  double macs = 0;
  double kept = 0;  // elements per image

  void conv(int64_t in, int64_t out, int64_t kernel, int64_t groups, int64_t out_size) {
    macs += static_cast<double>(in / groups * kernel * kernel * out) *
            static_cast<double>(pixels(out_size));
  }
};

// Returns the size that leaves the stem.
int64_t walk_stem(const NfnetSpec& spec, int64_t size, Walk& walk) {
  int64_t channels = 3;
  for (size_t i = 0; i < spec.stem_channels.size(); ++i) {
    const int64_t out = spec.stem_channels[i], out_size = halved(size, spec.stem_strides[i]);
    walk.kept += static_cast<double>(kept_input(channels, size, spec.stem_strides[i]));
    walk.kept +=
        static_cast<double>(out * pixels(out_size));  // input of the activation that follows
    walk.conv(channels, out, 3, 1, out_size);
    channels = out;
    size = out_size;
  }
  return size;
}

int64_t walk_block(const BlockSpec& b, int64_t size, Walk& walk) {
  const int64_t out_size = halved(size, b.stride), mid = b.mid_channels;
  walk.conv(b.in_channels, mid, 1, 1, size);
  walk.conv(mid, mid, 3, b.groups, out_size);
  walk.conv(mid, mid, 3, b.groups, out_size);
  walk.conv(mid, b.out_channels, 1, 1, out_size);
  walk.macs += 2.0 * static_cast<double>(b.out_channels * b.se_channels);
  int64_t kept = b.in_channels * pixels(size);                   // act(x), input of conv1
  kept += mid * pixels(size) + kept_input(mid, size, b.stride);  // conv1's output, its activation
  kept += 4 * mid * pixels(out_size);                            // conv2 and conv2b: the same
  kept += 2 * b.out_channels * pixels(out_size);                 // branch and block output
  kept += 3 * b.out_channels + 2 * b.se_channels;                // squeeze-excite
  if (b.projection) {
    walk.conv(b.in_channels, b.out_channels, 1, 1, out_size);
    if (b.stride != 1) kept += b.in_channels * pixels(out_size);  // pooled
  }
  walk.kept += static_cast<double>(kept);
  return out_size;
}

Walk walk_network(const NfnetSpec& spec, int64_t image_size) {
  NF_CHECK(image_size >= 1);
  Walk walk;
  int64_t size = walk_stem(spec, image_size, walk);
  for (const BlockSpec& b : block_specs(spec)) size = walk_block(b, size, walk);
  const int64_t last = final_channels(spec);
  walk.conv(spec.widths.back(), last, 1, 1, size);
  walk.kept += static_cast<double>((spec.widths.back() + last) * pixels(size));
  walk.macs += static_cast<double>(last * spec.classes);
  walk.kept += static_cast<double>(2 * last + spec.classes);
  return walk;
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
  return walk_network(spec, image_size).macs;
}

double activation_bytes_estimate(const NfnetSpec& spec, int64_t image_size, int64_t batch,
                                 int bytes_per_element) {
  double kept = walk_network(spec, image_size).kept * static_cast<double>(batch);
  for (const ParameterSpec& p : parameter_specs(spec)) {
    // Standardized weights are new tensors; linear weights only where they are cast from float32.
    if (p.role == ParamRole::kConvWeight || (bytes_per_element != 4 && has_weight_decay(p.role))) {
      kept += static_cast<double>(p.elements());
    }
  }
  return kept * bytes_per_element;
}

}  // namespace nf::model
