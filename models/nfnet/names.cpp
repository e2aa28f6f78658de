// See names.h.
#include "models/nfnet/names.h"

#include <algorithm>
#include <map>
#include <optional>

#include "core/check.h"
#include "core/error.h"

namespace nf::model {
namespace {

class ParameterList {
 public:
  void add(const std::string& name, std::vector<int64_t> shape, ParamRole role) {
    list.push_back({name, std::move(shape), role});
  }
  void conv(const std::string& name, double scale, int64_t in, int64_t out, int64_t kernel,
            int64_t groups = 1) {
    add(name + ".weight", {out, in / groups, kernel, kernel}, ParamRole::kConvWeight);
    list.back().scale = scale;
    add(name + ".bias", {out}, ParamRole::kBias);
    add(name + ".gain", {out, 1, 1, 1}, ParamRole::kGain);
  }
  void fc(const std::string& name, int64_t in,
          int64_t out) {  // squeeze-excite: 1x1 kernels in timm's files
    add(name + ".weight", {out, in, 1, 1}, ParamRole::kLinearWeight);
    add(name + ".bias", {out}, ParamRole::kBias);
  }
  std::vector<ParameterSpec> list;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

bool is_head(const std::string& name) { return name.starts_with("head.fc."); }

// The known variant whose tensors these are, for the hint of an error. Classes follow the file's
// classifier.
std::optional<std::string> fitting_variant(const std::vector<NamedShape>& tensors) {
  for (const std::string& name : nfnet_names()) {
    if (weight_mismatches(nfnet_spec(name), tensors, HeadRule::kOptional).empty()) return name;
  }
  return std::nullopt;
}

}  // namespace

int64_t ParameterSpec::elements() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

int64_t ParameterSpec::fan_in() const { return shape.empty() ? 1 : elements() / shape[0]; }

std::vector<ParameterSpec> parameter_specs(const NfnetSpec& spec) {
  ParameterList p;
  int64_t channels = 3;
  for (size_t i = 0; i < spec.stem_channels.size(); ++i) {
    p.conv("stem.conv" + std::to_string(i + 1), i > 0 ? kGammaGelu : 1.0, channels,
           spec.stem_channels[i], 3);
    channels = spec.stem_channels[i];
  }
  for (const BlockSpec& b : block_specs(spec)) {
    const double input_scale = kGammaGelu / b.beta;  // act(x) / beta = input_scale * gelu(x)
    p.add(b.name + ".skipinit_gain", {}, ParamRole::kSkipGain);
    if (b.projection)
      p.conv(b.name + ".downsample.conv", input_scale, b.in_channels, b.out_channels, 1);
    p.conv(b.name + ".conv1", input_scale, b.in_channels, b.mid_channels, 1);
    p.conv(b.name + ".conv2", kGammaGelu, b.mid_channels, b.mid_channels, 3, b.groups);
    p.conv(b.name + ".conv2b", kGammaGelu, b.mid_channels, b.mid_channels, 3, b.groups);
    p.conv(b.name + ".conv3", kGammaGelu, b.mid_channels, b.out_channels, 1);
    p.fc(b.name + ".attn_last.fc1", b.out_channels, b.se_channels);
    p.fc(b.name + ".attn_last.fc2", b.se_channels, b.out_channels);
  }
  p.conv("final_conv", 1.0, spec.widths.back(), final_channels(spec), 1);
  p.add("head.fc.weight", {spec.classes, final_channels(spec)}, ParamRole::kClassifierWeight);
  p.add("head.fc.bias", {spec.classes}, ParamRole::kClassifierBias);
  return std::move(p.list);
}

std::vector<std::string> weight_mismatches(const NfnetSpec& spec,
                                           const std::vector<NamedShape>& tensors, HeadRule head) {
  std::vector<std::string> lines;
  std::map<std::string, std::vector<int64_t>> given;
  for (const auto& [name, shape] : tensors) {
    if (!given.emplace(name, shape).second) lines.push_back("twice: " + name);
  }
  for (const ParameterSpec& p : parameter_specs(spec)) {
    const auto found = given.find(p.name);
    const bool lenient = head == HeadRule::kOptional && is_head(p.name);
    if (found == given.end()) {
      if (!lenient) lines.push_back("missing: " + p.name + " " + shape_text(p.shape));
      continue;
    }
    if (found->second != p.shape && !lenient) {
      lines.push_back("shape: " + p.name + " is " + shape_text(found->second) +
                      ", the network needs " + shape_text(p.shape));
    }
    given.erase(found);
  }
  for (const auto& [name, shape] : given) {
    lines.push_back("unexpected: " + name + " " + shape_text(shape));
  }
  return lines;
}

void check_weights(const NfnetSpec& spec, const std::vector<NamedShape>& tensors,
                   const std::string& where, HeadRule head) {
  const std::vector<std::string> lines = weight_mismatches(spec, tensors, head);
  if (lines.empty()) return;
  constexpr size_t kShown = 5;
  std::string what = "weights do not fit " + spec.name + ": ";
  for (size_t i = 0; i < std::min(kShown, lines.size()); ++i) what += (i ? "; " : "") + lines[i];
  if (lines.size() > kShown) {
    what += "; and " + std::to_string(lines.size() - kShown) + " more";
  }
  const auto variant = fitting_variant(tensors);
  throw Error(ExitCode::kWeights, where, what,
              variant && *variant != spec.name ? "these are weights of " + *variant : "");
}

std::string haiku_name(const NfnetSpec& spec, const std::string& timm_name) {
  static const std::map<std::string, std::string> kConvs = {{"downsample.conv", "conv_shortcut"},
                                                            {"conv1", "conv0"},
                                                            {"conv2", "conv1"},
                                                            {"conv2b", "conv1b"},
                                                            {"conv3", "conv2"}};
  const size_t dot = timm_name.rfind('.');
  NF_CHECK(dot != std::string::npos, timm_name);
  const std::string module = timm_name.substr(0, dot), leaf = timm_name.substr(dot + 1);
  const std::string conv_leaf = leaf == "weight" ? "w" : leaf;   // haiku: w, bias, gain
  const std::string linear_leaf = leaf == "weight" ? "w" : "b";  // haiku: w, b
  if (module == "final_conv") return "final_conv/" + conv_leaf;
  if (module == "head.fc") return "linear/" + linear_leaf;
  if (module.starts_with("stem.conv")) {
    return "stem_conv" + std::to_string(module.back() - '1') + "/" + conv_leaf;
  }
  for (const BlockSpec& b : block_specs(spec)) {
    if (!timm_name.starts_with(b.name + ".")) continue;
    const std::string scope = b.index == 0 ? "nf_block" : "nf_block_" + std::to_string(b.index);
    if (leaf == "skipinit_gain") return scope + "/skip_gain";
    const std::string part = module.substr(b.name.size() + 1);
    if (part == "attn_last.fc1") return scope + "/squeeze_excite/linear/" + linear_leaf;
    if (part == "attn_last.fc2") return scope + "/squeeze_excite/linear_1/" + linear_leaf;
    const auto conv = kConvs.find(part);
    NF_CHECK(conv != kConvs.end(), timm_name);
    return scope + "/" + conv->second + "/" + conv_leaf;
  }
  NF_CHECK(false, "no such parameter: " + timm_name);
}

}  // namespace nf::model
