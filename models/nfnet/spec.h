// What an NFNet is, without torch: the table of variants (nfnet_spec.md section 1), the constants
// of every block (section 2), and the parameters that follow from them. Costs, dry runs and weight
// files are checked from here alone, so a program that only plans never loads the tensor library.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nf::model {

// 1 / std(gelu(N(0,1))), the listed sample estimate (nfnet_spec.md section 2.2).
constexpr double kGammaGelu = 1.7015043497085571;

// Numerics that differ between the two published code bases (sections 2.2 and 3): kDm uses the tanh
// form of GELU and the weight floor max(N*var, 1e-4); kTimm uses erf and var + 1e-5.
enum class Flavour { kDm, kTimm };

const char* flavour_name(Flavour flavour);       // "dm" or "timm"
Flavour parse_flavour(const std::string& text);  // throws Error(kUsage)

struct NfnetSpec {
  std::string name;
  std::vector<int64_t> depths;  // blocks per stage
  std::vector<int64_t> widths;  // output channels per stage; stem_channels.back() is widths[0] / 2
  std::vector<int64_t> stem_channels;  // of the stem's four convolutions
  std::vector<int64_t> stem_strides;
  std::vector<int64_t> stage_strides;
  int64_t group_width = 128;
  int64_t classes = 1000;
  // A bottleneck that group_width does not divide: true rounds it down to whole groups (released
  // code); false keeps its channels in that many, wider groups where they divide it (paper: one
  // group of 192, the table's "+" nets). See section 1.1.
  bool round_mid = true;
  double alpha = 0.2;
  double bottleneck_ratio = 0.5;
  double se_ratio = 0.5;
  int64_t train_size = 0;  // pixels, the table's resolutions for training from scratch
  int64_t test_size = 0;
  double dropout = 0;  // the table's rate, informative: forward() takes the rate from its options
  Flavour flavour = Flavour::kDm;
};

// The spec of a known name. Throws Error(kUsage) that names the nearest known name.
NfnetSpec nfnet_spec(const std::string& name);
// Every known name: nfnet_f0..f7, nfnet_f0plus..f7plus, nfnet_pico, nfnet_nano, nfnet_micro,
// nfnet_mini.
std::vector<std::string> nfnet_names();

// Replaces depths and widths where not empty; the stem's last convolution follows widths[0] / 2.
// Throws Error(kUsage).
void override_shape(NfnetSpec& spec, const std::vector<int64_t>& depths,
                    const std::vector<int64_t>& widths);
// Throws Error(kUsage) that says what is impossible in a spec (sizes, ratios, odd first width ...).
void check_spec(const NfnetSpec& spec);

// One residual block. beta: the standard deviation of its input by the bookkeeping of section 2.1.
struct BlockSpec {
  std::string name;      // stages.S.B
  int64_t stage, index;  // index: over the whole net
  int64_t in_channels, out_channels, mid_channels, groups, se_channels;
  int64_t stride;
  bool projection;  // the shortcut has a convolution
  double beta;
};
std::vector<BlockSpec> block_specs(const NfnetSpec& spec);

// Channels after the last stage's convolution: the classifier's input.
inline int64_t final_channels(const NfnetSpec& spec) { return 2 * spec.widths.back(); }

}  // namespace nf::model
