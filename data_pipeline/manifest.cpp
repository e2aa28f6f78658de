// See manifest.h.
#include "data_pipeline/manifest.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr int32_t kMaxClasses = 1'000'000;
constexpr size_t kMaxReported = 100;

struct Line {
  uint64_t number;
  std::string path;
  std::vector<std::string> labels;
};

std::optional<int32_t> as_index(const std::string& label) {
  int32_t value = 0;
  const auto result = std::from_chars(label.data(), label.data() + label.size(), value);
  if (result.ec == std::errc::result_out_of_range) return kMaxClasses;
  if (result.ec != std::errc() || result.ptr != label.data() + label.size()) return std::nullopt;
  return value;
}

class Parser {
 public:
  Parser(const fs::path& file, bool multi_label) : file_(file), multi_label_(multi_label) {}

  std::vector<Line> run(std::string_view text) {
    for (uint64_t number = 1; !text.empty(); ++number) {
      const size_t end = text.find('\n');
      std::string_view line = text.substr(0, end);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      if (!line.empty()) take(number, line);
    }
    return std::move(lines_);
  }

  void bad(uint64_t number, const std::string& what) {
    if (++problems_ <= kMaxReported) report_ += "\n  line " + std::to_string(number) + ": " + what;
  }

  void throw_if_bad() const {
    if (problems_ == 0) return;
    std::string text =
        std::to_string(problems_) + (problems_ == 1 ? " bad line" : " bad lines") + report_;
    if (problems_ > kMaxReported) text += "\n  ...";
    throw Error(ExitCode::kData, file_.string(), text,
                "each line: path<TAB>label, or path<TAB>label,label,... with --multi-label");
  }

 private:
  void take(uint64_t number, std::string_view line) {
    const size_t tab = line.find('\t');
    if (tab == std::string_view::npos) return bad(number, "no tab between path and label");
    Line parsed{number, std::string(line.substr(0, tab)), {}};
    std::string_view labels = line.substr(tab + 1);
    if (parsed.path.empty()) return bad(number, "empty path");
    if (parsed.path.find('\0') != std::string::npos) return bad(number, "zero byte in the path");
    if (labels.find('\t') != std::string_view::npos) return bad(number, "more than two columns");
    for (;;) {
      const size_t comma = labels.find(',');
      parsed.labels.emplace_back(labels.substr(0, comma));
      if (parsed.labels.back().empty()) return bad(number, "empty label");
      if (comma == std::string_view::npos) break;
      labels.remove_prefix(comma + 1);
    }
    if (parsed.labels.size() > 1 && !multi_label_)
      return bad(number, "more than one label; --multi-label allows it");
    std::set<std::string> distinct(parsed.labels.begin(), parsed.labels.end());
    if (distinct.size() != parsed.labels.size()) return bad(number, "the same label twice");
    if (const auto [at, fresh] = seen_.emplace(parsed.path, number); !fresh) {
      return bad(number, "the path of line " + std::to_string(at->second) + " again");
    }
    lines_.push_back(std::move(parsed));
  }

  fs::path file_;
  bool multi_label_;
  std::vector<Line> lines_;
  std::map<std::string, uint64_t> seen_;
  std::string report_;
  size_t problems_ = 0;
};

// Labels as indices; returns the class names.
std::vector<std::string> number_by_index(Parser& parser, const std::vector<Line>& lines,
                                         const std::vector<std::string>& known,
                                         std::vector<ManifestRow>& rows) {
  const int32_t limit = known.empty() ? kMaxClasses : static_cast<int32_t>(known.size());
  int32_t classes = 0;
  for (const auto& line : lines) {
    ManifestRow row{line.path, {}};
    for (const auto& label : line.labels) {
      const int32_t index = as_index(label).value_or(-1);
      if (index < 0 || index >= limit) {
        parser.bad(line.number,
                   "label " + label + " is out of range: 0 to " + std::to_string(limit - 1));
      } else if (std::find(row.labels.begin(), row.labels.end(), index) != row.labels.end()) {
        parser.bad(line.number, "the same label twice");
      }
      row.labels.push_back(index);
      classes = std::max(classes, index + 1);
    }
    rows.push_back(std::move(row));
  }
  parser.throw_if_bad();
  if (!known.empty()) return known;
  std::vector<std::string> names;
  names.reserve(static_cast<size_t>(classes));
  for (int32_t i = 0; i < classes; ++i) names.push_back(std::to_string(i));
  return names;
}

std::vector<std::string> number_by_name(const fs::path& file, const std::vector<Line>& lines,
                                        const std::vector<std::string>& known,
                                        std::vector<ManifestRow>& rows) {
  std::set<std::string> distinct;
  for (const auto& line : lines) distinct.insert(line.labels.begin(), line.labels.end());
  const std::vector<std::string> names(distinct.begin(), distinct.end());
  const std::vector<int32_t> indices =
      match_classes(file.string(), names, known.empty() ? names : known);
  std::map<std::string, int32_t> index_of;
  for (size_t i = 0; i < names.size(); ++i) index_of[names[i]] = indices[i];
  for (const auto& line : lines) {
    ManifestRow row{line.path, {}};
    for (const auto& label : line.labels) row.labels.push_back(index_of.at(label));
    rows.push_back(std::move(row));
  }
  return known.empty() ? names : known;
}

}  // namespace

Manifest read_manifest(const fs::path& file, bool multi_label,
                       const std::vector<std::string>& known) {
  Parser parser(file, multi_label);
  const std::string text = read_file(file);
  const std::vector<Line> lines = parser.run(text);
  const bool indices = std::all_of(lines.begin(), lines.end(), [](const Line& line) {
    return std::all_of(line.labels.begin(), line.labels.end(),
                       [](const auto& l) { return as_index(l).has_value(); });
  });
  Manifest manifest;
  if (!indices) parser.throw_if_bad();
  manifest.class_names = indices ? number_by_index(parser, lines, known, manifest.rows)
                                 : number_by_name(file, lines, known, manifest.rows);
  std::sort(manifest.rows.begin(), manifest.rows.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  return manifest;
}

std::vector<int32_t> match_classes(const std::string& where, const std::vector<std::string>& names,
                                   const std::vector<std::string>& known) {
  std::map<std::string, int32_t> index_of;
  for (size_t i = 0; i < known.size(); ++i) index_of[known[i]] = static_cast<int32_t>(i);
  std::vector<int32_t> indices;
  std::string missing;
  size_t count = 0;
  for (const auto& name : names) {
    const auto it = index_of.find(name);
    if (it != index_of.end()) {
      indices.push_back(it->second);
    } else if (++count <= 5) {
      missing += (missing.empty() ? "\"" : ", \"") + name + "\"";
    }
  }
  if (count > 0) {
    throw Error(ExitCode::kData, where,
                std::to_string(count) + " of its classes are not in the data set: " + missing +
                    (count > 5 ? ", ..." : ""),
                "all splits of a data set share the same " + std::to_string(known.size()) +
                    " classes; pack into another folder");
  }
  return indices;
}

}  // namespace nf::data
