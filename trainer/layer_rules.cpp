// See layer_rules.h.
#include "trainer/layer_rules.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"

namespace nf::train {
namespace {

// "stages.1" covers stages.1.0.conv1.weight, not stages.10.
bool covers(const std::string& prefix, const std::string& name) {
  return name == prefix ||
         (name.starts_with(prefix) && (prefix.ends_with('.') || name[prefix.size()] == '.'));
}

// Index into optimizer.stage_scale.
size_t stage_of(const std::string& name) {
  if (name.starts_with("stem.")) return 0;
  if (name.starts_with("stages.")) return 1 + static_cast<size_t>(name[7] - '0');
  return 5;
}

[[noreturn]] void throw_unknown(const std::string& prefix, const std::vector<Param>& params) {
  std::set<std::string> modules;
  for (const Param& p : params) {
    const size_t dot = p.name.find('.', p.name.starts_with("stages.") ? 7 : 0);
    modules.insert(p.name.substr(0, dot));
  }
  std::string known;
  for (const std::string& m : modules) known += (known.empty() ? "" : ", ") + m;
  throw Error(ExitCode::kUsage, "optimizer.freeze", "no parameter is named '" + prefix + "...'",
              "names are timm's: " + known + ", or longer ones such as stages.0.0.conv1");
}

}  // namespace

int64_t layer_count(const model::NfnetSpec& spec) {
  int64_t blocks = 0;
  for (const int64_t d : spec.depths) blocks += d;
  return blocks + 2;
}

int64_t layer_of(const std::string& parameter, const model::NfnetSpec& spec) {
  if (parameter.starts_with("stem.")) return 0;
  for (const model::BlockSpec& b : model::block_specs(spec))
    if (covers(b.name, parameter)) return 1 + b.index;
  return parameter.starts_with("final_conv") ? layer_count(spec) - 2 : layer_count(spec) - 1;
}

void apply_layer_rules(const OptimizerConfig& config, const model::NfnetSpec& spec,
                       std::vector<Param>& params) {
  for (const std::string& prefix : config.freeze) {
    bool found = false;
    for (Param& p : params) {
      if (!covers(prefix, p.name)) continue;
      found = p.frozen = true;
      p.value.set_requires_grad(false);
    }
    if (!found) throw_unknown(prefix, params);
  }
  if (std::all_of(params.begin(), params.end(), [](const Param& p) { return p.frozen; }))
    throw Error(ExitCode::kUsage, "optimizer.freeze", "every parameter is frozen",
                "leave at least the classifier: head.fc");
  const int64_t last = layer_count(spec) - 1;
  for (Param& p : params) {
    p.lr_scale = std::pow(config.layer_decay, static_cast<double>(last - layer_of(p.name, spec)));
    if (!config.stage_scale.empty()) p.lr_scale *= config.stage_scale[stage_of(p.name)];
  }
}

}  // namespace nf::train
