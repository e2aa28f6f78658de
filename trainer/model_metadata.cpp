// See model_metadata.h.
#include "trainer/model_metadata.h"

#include <sstream>

#include "core/error.h"
#include "core/version.h"

namespace nf::train {
namespace {

std::string join(const std::vector<int64_t>& values) {
  std::string out;
  for (const int64_t v : values) {
    if (!out.empty()) out += ',';
    out += std::to_string(v);
  }
  return out;
}

std::vector<int64_t> split(const std::string& text) {
  std::vector<int64_t> out;
  std::istringstream in(text);
  for (std::string piece; std::getline(in, piece, ',');) out.push_back(std::stoll(piece));
  return out;
}

}  // namespace

MetadataMap describe_model(const model::NfnetSpec& spec, int64_t image_size) {
  return {{"format", "pt"},
          {"nfscale_version", kVersion},
          {"model", spec.name},
          {"flavour", model::flavour_name(spec.flavour)},
          {"depths", join(spec.depths)},
          {"widths", join(spec.widths)},
          {"stage1_mid", spec.round_mid ? "round" : "keep"},
          {"classes", std::to_string(spec.classes)},
          {"image_size", std::to_string(image_size)}};
}

model::NfnetSpec described_model(const MetadataMap& metadata, const std::string& file,
                                 const std::string& name, const std::string& flavour,
                                 int64_t classes) {
  const auto get = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  const bool from_header = name.empty() || name == get("model");
  if (name.empty() && get("model").empty())
    throw Error(ExitCode::kUsage, file, "the file does not say which network it holds",
                "give --model (nfnet_f0, ...) and --flavour (timm for weights made by timm)");
  model::NfnetSpec spec = model::nfnet_spec(name.empty() ? get("model") : name);
  try {
    if (from_header && !get("depths").empty()) {
      model::override_shape(spec, split(get("depths")), split(get("widths")));
      spec.round_mid = get("stage1_mid") == "round";
    }
    spec.classes = classes > 0
                       ? classes
                       : (get("classes").empty() ? spec.classes : std::stoll(get("classes")));
  } catch (const std::logic_error&) {
    throw Error(ExitCode::kWeights, file, "the header's description of the network is damaged");
  }
  const std::string kind = flavour.empty() ? get("flavour") : flavour;
  spec.flavour = kind.empty() ? model::Flavour::kDm : model::parse_flavour(kind);
  return spec;
}

}  // namespace nf::train
