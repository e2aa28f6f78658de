// See spec.h.
#include "models/nfnet/spec.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/options.h"

namespace nf::model {
namespace {

// nfnet_spec.md section 1: Fn has n+1 times the depth 1, 2, 6, 3.
struct SizeRow {
  int64_t train_size, test_size;
  double dropout;
};
constexpr std::array<SizeRow, 8> kSizes = {{{192, 256, 0.2},
                                            {224, 320, 0.3},
                                            {256, 352, 0.4},
                                            {320, 416, 0.4},
                                            {384, 512, 0.5},
                                            {416, 544, 0.5},
                                            {448, 576, 0.5},
                                            {480, 608, 0.5}}};

NfnetSpec large_spec(size_t n, bool plus) {
  NfnetSpec s;
  s.name = "nfnet_f" + std::to_string(n) + (plus ? "plus" : "");
  const auto times = static_cast<int64_t>(n) + 1;
  s.depths = {1 * times, 2 * times, 6 * times, 3 * times};
  s.widths = plus ? std::vector<int64_t>{384, 768, 2048, 2048}
                  : std::vector<int64_t>{256, 512, 1536, 1536};
  s.stem_channels = {16, 32, 64, s.widths[0] / 2};
  s.stem_strides = {2, 1, 1, 2};
  s.stage_strides = {1, 2, 2, 2};
  s.round_mid = !plus;
  s.train_size = kSizes.at(n).train_size;
  s.test_size = kSizes.at(n).test_size;
  s.dropout = kSizes.at(n).dropout;
  return s;
}

// For 32 to 96 px: 2.9 M, 11.9 M, 47 M and 185 M multiply-adds at 32 px. The stem halves once, in
// its second convolution, so of 32 px stage 1 sees 16, stages 2 and 3, where most of the compute
// lies, see 8, and stage 4 sees 4. From nano on nearly all channels are multiples of 16, one
// AVX-512 vector.
struct SmallRow {
  const char* name;
  std::array<int64_t, 4> depths, widths, stem;
  int64_t group_width;
};
constexpr std::array<SmallRow, 4> kSmall = {{
    {"nfnet_pico", {1, 1, 1, 1}, {32, 32, 64, 64}, {4, 4, 8, 16}, 8},
    {"nfnet_nano", {1, 1, 2, 1}, {32, 96, 128, 128}, {8, 16, 16, 16}, 16},
    {"nfnet_micro", {1, 2, 6, 3}, {64, 128, 192, 256}, {16, 16, 16, 32}, 16},
    {"nfnet_mini", {1, 2, 6, 3}, {128, 256, 384, 512}, {16, 16, 32, 64}, 32},
}};

NfnetSpec small_spec(const SmallRow& row) {
  NfnetSpec s;
  s.name = row.name;
  s.depths.assign(row.depths.begin(), row.depths.end());
  s.widths.assign(row.widths.begin(), row.widths.end());
  s.stem_channels.assign(row.stem.begin(), row.stem.end());
  s.stem_strides = {1, 2, 1, 1};
  s.stage_strides = {1, 2, 1, 2};
  s.group_width = row.group_width;
  s.classes = 10;
  s.train_size = 32;
  s.test_size = 32;
  return s;
}

// Widths need not be multiples of anything, but an integer product such as 0.5 * 1536 must not fall
// to 767.
int64_t scaled_channels(int64_t channels, double ratio) {
  return static_cast<int64_t>(std::floor(static_cast<double>(channels) * ratio + 1e-9));
}

void require(bool holds, const NfnetSpec& spec, const std::string& what) {
  if (!holds) {
    throw Error(ExitCode::kUsage, spec.name.empty() ? "model" : "model " + spec.name, what);
  }
}

void require_positive(const NfnetSpec& spec, const std::vector<int64_t>& values, size_t count,
                      const std::string& what) {
  require(values.size() == count, spec,
          what + ": " + std::to_string(count) + " values are needed, not " +
              std::to_string(values.size()));
  for (const int64_t v : values) {
    require(v >= 1 && v <= 1'000'000, spec, what + ": impossible value " + std::to_string(v));
  }
}

}  // namespace

const char* flavour_name(Flavour flavour) { return flavour == Flavour::kDm ? "dm" : "timm"; }

Flavour parse_flavour(const std::string& text) {
  if (text == "dm") return Flavour::kDm;
  if (text == "timm") return Flavour::kTimm;
  throw Error(ExitCode::kUsage, "flavour", "unknown flavour '" + text + "'", "use dm or timm");
}

std::vector<std::string> nfnet_names() {
  std::vector<std::string> names;
  for (const bool plus : {false, true}) {
    for (size_t n = 0; n < kSizes.size(); ++n) {
      names.push_back("nfnet_f" + std::to_string(n) + (plus ? "plus" : ""));
    }
  }
  for (const SmallRow& row : kSmall) names.emplace_back(row.name);
  return names;
}

NfnetSpec nfnet_spec(const std::string& name) {
  for (const SmallRow& row : kSmall) {
    if (name == row.name) return small_spec(row);
  }
  for (const bool plus : {false, true}) {
    for (size_t n = 0; n < kSizes.size(); ++n) {
      NfnetSpec spec = large_spec(n, plus);
      if (spec.name == name) return spec;
    }
  }
  const std::vector<std::string> names = nfnet_names();
  const std::string near = nearest(name, names);
  std::string hint;
  if (near.empty()) {
    for (const std::string& known : names) hint += (hint.empty() ? "known: " : ", ") + known;
  } else {
    hint = "did you mean '" + near + "'?";
  }
  throw Error(ExitCode::kUsage, "model.name", "unknown network '" + name + "'", hint);
}

void override_shape(NfnetSpec& spec, const std::vector<int64_t>& depths,
                    const std::vector<int64_t>& widths) {
  if (!depths.empty()) spec.depths = depths;
  if (!widths.empty()) {
    spec.widths = widths;
    if (!spec.stem_channels.empty()) spec.stem_channels.back() = widths[0] / 2;
  }
  check_spec(spec);
}

void check_spec(const NfnetSpec& spec) {
  require_positive(spec, spec.depths, 4, "depths");
  require_positive(spec, spec.widths, 4, "widths");
  require_positive(spec, spec.stem_channels, 4, "stem_channels");
  require_positive(spec, spec.stem_strides, 4, "stem_strides");
  require_positive(spec, spec.stage_strides, 4, "stage_strides");
  require_positive(spec, {spec.group_width, spec.classes}, 2, "group_width and classes");
  for (const int64_t stride : spec.stem_strides) {
    require(stride <= 2, spec, "stem_strides: a stride is 1 or 2");
  }
  for (const int64_t stride : spec.stage_strides) {
    require(stride <= 2, spec, "stage_strides: a stride is 1 or 2");
  }
  require(spec.bottleneck_ratio > 0 && spec.bottleneck_ratio <= 4, spec,
          "bottleneck_ratio must be in (0, 4]");
  require(spec.se_ratio > 0 && spec.se_ratio <= 4, spec, "se_ratio must be in (0, 4]");
  require(spec.alpha > 0 && spec.alpha <= 10, spec, "alpha must be in (0, 10]");
  for (const int64_t width : spec.widths) {
    require(scaled_channels(width, spec.bottleneck_ratio) >= 1 &&
                scaled_channels(width, spec.se_ratio) >= 1,
            spec, "width " + std::to_string(width) + " leaves a block without inner channels");
  }
}

std::vector<BlockSpec> block_specs(const NfnetSpec& spec) {
  check_spec(spec);
  std::vector<BlockSpec> blocks;
  int64_t channels = spec.stem_channels.back();
  double variance = 1.0;
  for (size_t stage = 0; stage < spec.depths.size(); ++stage) {
    for (int64_t i = 0; i < spec.depths[stage]; ++i) {
      BlockSpec b;
      b.name = "stages." + std::to_string(stage) + "." + std::to_string(i);
      b.stage = static_cast<int64_t>(stage);
      b.index = static_cast<int64_t>(blocks.size());
      b.in_channels = channels;
      b.out_channels = spec.widths[stage];
      b.mid_channels = scaled_channels(b.out_channels, spec.bottleneck_ratio);
      b.groups = std::max<int64_t>(1, b.mid_channels / spec.group_width);
      // More than one group must divide the channels; a single one may keep them all.
      if (b.mid_channels >= spec.group_width &&
          (spec.round_mid || b.mid_channels % b.groups != 0)) {
        b.mid_channels = b.groups * spec.group_width;
      }
      b.se_channels = scaled_channels(b.out_channels, spec.se_ratio);
      b.stride = i == 0 ? spec.stage_strides[stage] : 1;
      b.projection = b.stride != 1 || b.in_channels != b.out_channels;
      b.beta = std::sqrt(variance);
      if (i == 0) variance = 1.0;
      variance += spec.alpha * spec.alpha;
      channels = b.out_channels;
      blocks.push_back(std::move(b));
    }
  }
  return blocks;
}

}  // namespace nf::model
