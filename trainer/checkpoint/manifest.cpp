// See manifest.h.
#include "trainer/checkpoint/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"

namespace nf::train {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kFormat = "nf-checkpoint";
constexpr int kVersion = 1;

Manifest parse_manifest(const std::string& text) {
  const Json json = Json::parse(text);
  Manifest out;
  out.step = json.at("step").get<uint64_t>();
  for (const Json& file : json.at("files")) {
    const auto digits = file.at("xxh3").get<std::string>();
    out.files.push_back({file.at("name").get<std::string>(),
                         {file.at("bytes").get<uint64_t>(), std::stoull(digits, nullptr, 16)}});
  }
  return out;
}

}  // namespace

const ManifestEntry* Manifest::find(std::string_view name) const {
  const auto at = std::find_if(files.begin(), files.end(),
                               [&](const ManifestEntry& e) { return e.name == name; });
  return at == files.end() ? nullptr : &*at;
}

std::string print_manifest(const Manifest& manifest) {
  Json json = {{"format", kFormat}, {"version", kVersion}, {"step", manifest.step}};
  Json& files = json["files"] = Json::array();
  for (const ManifestEntry& e : manifest.files)
    files.push_back({{"name", e.name}, {"bytes", e.digest.bytes}, {"xxh3", to_hex(e.digest.xxh3)}});
  return json.dump(2) + "\n";
}

Manifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / kManifestName;
  const char* hint = "use another checkpoint";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored))
    throw Error(ExitCode::kWeights, directory.string(),
                "not a checkpoint: it has no " + std::string(kManifestName), hint);
  const std::string text = read_file(file);
  try {
    Manifest manifest = parse_manifest(text);
    if (print_manifest(manifest) == text) return manifest;
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {  // JSON or number that does not parse: same message as below
  }
  throw Error(ExitCode::kWeights, file.string(), "the manifest is damaged", hint);
}

}  // namespace nf::train
