// See csv.h.
#include "analysis/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/options.h"

namespace nf::analysis {

CsvReader::CsvReader(std::string_view text, std::string name)
    : text_(text), name_(std::move(name)) {
  if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
}

// at_ stands after the opening quote; afterwards after the closing one.
std::string_view CsvReader::quoted_field() {
  const size_t begin = at_;
  bool doubled = false;
  for (;;) {
    const size_t quote = text_.find('"', at_);
    if (quote == std::string_view::npos)
      throw Error(ExitCode::kUsage, fmt::format("{}:{}", name_, line_),
                  "a quoted field is never closed", "close the quote, or double it inside a field");
    at_ = quote + 1;
    if (at_ >= text_.size() || text_[at_] != '"') break;
    doubled = true;
    ++at_;
  }
  const std::string_view raw = text_.substr(begin, at_ - 1 - begin);
  next_line_ += std::count(raw.begin(), raw.end(), '\n');
  if (!doubled) return raw;
  std::string& plain = unescaped_.emplace_back();
  for (size_t i = 0; i < raw.size(); ++i) {
    plain += raw[i];
    if (raw[i] == '"') ++i;
  }
  return plain;
}

bool CsvReader::next(std::vector<std::string_view>& fields) {
  for (;;) {
    fields.clear();
    unescaped_.clear();
    if (at_ >= text_.size()) return false;
    line_ = next_line_;
    for (bool more = true; more;) {
      std::string_view field;
      const bool quoted = at_ < text_.size() && text_[at_] == '"';
      if (quoted) {
        ++at_;
        field = quoted_field();
      }
      const size_t begin = at_;
      while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '\n') ++at_;
      if (!quoted) field = text_.substr(begin, at_ - begin);
      more = at_ < text_.size() && text_[at_] == ',';
      if (at_ < text_.size()) ++at_;
      if (!more && !quoted && field.ends_with('\r')) field.remove_suffix(1);
      fields.push_back(field);
    }
    ++next_line_;
    if (fields.size() > 1 || !fields[0].empty()) return true;
  }
}

std::optional<double> parse_number(std::string_view field) {
  while (!field.empty() && (field.front() == ' ' || field.front() == '\t')) field.remove_prefix(1);
  while (!field.empty() && (field.back() == ' ' || field.back() == '\t')) field.remove_suffix(1);
  if (field.starts_with('+')) field.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (field.empty() || end != field.data() + field.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) return field.starts_with('-') ? -HUGE_VAL : HUGE_VAL;
  if (error != std::errc()) return std::nullopt;
  return value;
}

void InputErrors::add(int64_t line, size_t column, const std::string& what) {
  constexpr int64_t kShown = 100;
  std::string place = fmt::format("{}:{}", file_, line);
  if (column > 0) place += fmt::format(":{}", column);
  if (count_ == 0) {
    first_place_ = place;
    text_ = what;
  } else if (count_ < kShown) {
    text_ += "\n  " + place + ": " + what;
  }
  ++count_;
}

void InputErrors::throw_if_any(const std::string& hint) const {
  if (count_ == 0) return;
  std::string text = text_;
  if (count_ > 100) text += fmt::format("\n  and {} more", count_ - 100);
  throw Error(ExitCode::kUsage, first_place_, text, hint);
}

Condition parse_condition(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw Error(ExitCode::kUsage, "--where", "'" + text + "' is not COLUMN=VALUE",
                "write for example --where Task=bird_10");
  return {text.substr(0, equals), text.substr(equals + 1)};
}

namespace {

bool meets(std::string_view field, const Condition& condition) {
  if (field == condition.value) return true;
  const auto a = parse_number(field), b = parse_number(condition.value);
  return a && b && *a == *b;
}

// The place of each name in the header; missing ones are errors that suggest the nearest.
std::vector<size_t> places_of(const std::vector<std::string>& names,
                              const std::vector<std::string>& header, InputErrors& errors) {
  std::vector<size_t> places;
  for (const auto& name : names) {
    const auto found = std::find(header.begin(), header.end(), name);
    if (found == header.end()) {
      const std::string near = nearest(name, header);
      errors.add(1, 0,
                 "no column '" + name + "'" +
                     (near.empty() ? std::string() : "; did you mean '" + near + "'?"));
    }
    places.push_back(static_cast<size_t>(found - header.begin()));
  }
  return places;
}

}  // namespace

Columns read_columns(const std::filesystem::path& file, const std::vector<std::string>& columns,
                     const std::vector<Condition>& where) {
  const std::string text = read_file(file);
  CsvReader reader(text, file.string());
  std::vector<std::string_view> fields;
  if (!reader.next(fields))
    throw Error(ExitCode::kData, file.string(), "the table is empty", "give a header and rows");
  const std::vector<std::string> header(fields.begin(), fields.end());
  InputErrors errors(file.string());
  const std::vector<size_t> places = places_of(columns, header, errors);
  std::vector<std::string> condition_columns;
  condition_columns.reserve(where.size());
  for (const auto& condition : where) condition_columns.push_back(condition.column);
  const std::vector<size_t> condition_places = places_of(condition_columns, header, errors);
  errors.throw_if_any("the columns are: " + fmt::format("{}", fmt::join(header, ", ")));

  Columns out;
  out.values.resize(columns.size());
  while (reader.next(fields)) {
    ++out.rows_in_file;
    if (fields.size() != header.size()) {
      errors.add(reader.line(), 0,
                 fmt::format("{} fields, the header has {}", fields.size(), header.size()));
      continue;
    }
    bool chosen = true;
    for (size_t i = 0; i < where.size() && chosen; ++i)
      chosen = meets(fields[condition_places[i]], where[i]);
    if (!chosen) continue;
    out.lines.push_back(reader.line());
    for (size_t i = 0; i < places.size(); ++i) {
      const auto value = parse_number(fields[places[i]]);
      if (!value)
        errors.add(reader.line(), places[i] + 1,
                   fmt::format("{}: '{}' is not a number", columns[i], fields[places[i]]));
      out.values[i].push_back(value.value_or(0));
    }
  }
  errors.throw_if_any("correct these places; nothing was read");
  if (out.rows_in_file == 0)
    throw Error(ExitCode::kData, file.string(), "the table has a header and no rows");
  return out;
}

}  // namespace nf::analysis
