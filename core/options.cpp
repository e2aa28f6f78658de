// See options.h.
#include "core/options.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/error.h"
#include "core/hash.h"

namespace nf {
namespace {

std::string type_name(const Field::Target& target) {
  static const char* const kNames[] = {
      "true or false",      "an integer",        "a number",         "a string",
      "a list of integers", "a list of numbers", "a list of strings"};
  return kNames[target.index()];
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string number(double value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", value);  // shortest that round-trips
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

template <class T>
std::string value_text(const T& value) {
  if constexpr (std::is_same_v<T, bool>)
    return value ? "true" : "false";
  else if constexpr (std::is_same_v<T, int64_t>)
    return std::to_string(value);
  else if constexpr (std::is_same_v<T, double>)
    return number(value);
  else if constexpr (std::is_same_v<T, std::string>)
    return quote(value);
  else {
    std::string out = "[";
    for (const auto& element : value) {
      if (out.size() > 1) out += ", ";
      out += value_text(element);
    }
    return out + "]";
  }
}

std::string value_text(const Field& field) {
  return std::visit([](const auto* target) { return value_text(*target); }, field.target);
}

template <class T>
bool read_value(const toml::node& node, T& target) {
  if constexpr (std::is_same_v<T, bool>) {
    if (const auto* v = node.as_boolean()) return target = v->get(), true;
  } else if constexpr (std::is_same_v<T, int64_t>) {
    if (const auto* v = node.as_integer()) return target = v->get(), true;
  } else if constexpr (std::is_same_v<T, double>) {
    if (const auto* v = node.as_floating_point()) return target = v->get(), true;
    if (const auto* v = node.as_integer()) return target = static_cast<double>(v->get()), true;
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (const auto* v = node.as_string()) return target = v->get(), true;
  } else {
    const auto* array = node.as_array();
    if (!array) return false;
    T values;
    for (const auto& element : *array) {
      typename T::value_type value{};
      if (!read_value(element, value)) return false;
      values.push_back(std::move(value));
    }
    return target = std::move(values), true;
  }
  return false;
}

std::string range_text(const FieldRules& rules) {
  if (std::isinf(rules.max)) return "at least " + fmt::format("{}", rules.min);
  if (std::isinf(rules.min)) return "at most " + fmt::format("{}", rules.max);
  return fmt::format("between {} and {}", rules.min, rules.max);
}

// "" when the value obeys the rules.
std::string rule_violation(const Field& field) {
  const auto check = [&](double value) -> std::string {
    if (std::isnan(value)) return "must not be nan";
    if (value < field.rules.min || value > field.rules.max)
      return "must be " + range_text(field.rules) + ", not " + fmt::format("{}", value);
    return "";
  };
  if (const auto* const* v = std::get_if<int64_t*>(&field.target))
    return check(static_cast<double>(**v));
  if (const auto* const* v = std::get_if<double*>(&field.target)) return check(**v);
  if (const auto* const* v = std::get_if<std::vector<int64_t>*>(&field.target))
    for (const int64_t e : **v)
      if (auto text = check(static_cast<double>(e)); !text.empty()) return text;
  if (const auto* const* v = std::get_if<std::vector<double>*>(&field.target))
    for (const double e : **v)
      if (auto text = check(e); !text.empty()) return text;
  if (const auto* const* v = std::get_if<std::string*>(&field.target)) {
    const auto& allowed = field.rules.one_of;
    if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), **v) == allowed.end()) {
      std::string text = "must be one of";
      for (const auto& a : allowed) text += " \"" + a + "\"";
      const std::string near = nearest(**v, allowed);
      return text + ", not \"" + **v + "\"" +
             (near.empty() ? "" : " (did you mean \"" + near + "\"?)");
    }
  }
  return "";
}

// Collects every problem of a config, in file order.
struct Problems {
  std::vector<std::string> list;
  Strictness strictness = Strictness::kAllKeys;
  void add(const std::string& where, const std::string& text) {
    list.push_back(where + ": " + text);
  }
};

void assign(const toml::node& node, const std::string& where, const std::string& key,
            Fields& fields, Problems& problems) {
  Field* field = fields.find(key);
  if (!field && problems.strictness == Strictness::kKnownKeys) return;
  if (!field) {
    std::vector<std::string> keys;
    for (const auto& f : fields.all()) keys.push_back(f.key);
    const std::string near = nearest(key, keys);
    problems.add(where,
                 "unknown key " + key + (near.empty() ? "" : " (did you mean " + near + "?)"));
    return;
  }
  field->set = true;
  if (!std::visit([&](auto* target) { return read_value(node, *target); }, field->target)) {
    problems.add(where, key + " must be " + type_name(field->target));
    return;
  }
  if (const std::string text = rule_violation(*field); !text.empty())
    problems.add(where, key + " " + text);
}

void read_table(const toml::table& table, const std::string& prefix, const std::string& name,
                Fields& fields, Problems& problems) {
  for (const auto& [key, node] : table) {
    const std::string full = prefix + std::string(key.str());
    const std::string where = name + ":" + std::to_string(node.source().begin.line);
    if (const auto* inner = node.as_table(); inner && !fields.find(full)) {
      read_table(*inner, full + ".", name, fields, problems);
    } else {
      assign(node, where, full, fields, problems);
    }
  }
}

void apply_override(const std::string& text, Fields& fields, Problems& problems) {
  const size_t equals = text.find('=');
  const std::string where = "--set " + text;
  if (equals == std::string::npos) return problems.add(where, "expected key=value");
  const std::string key = text.substr(0, equals), value = text.substr(equals + 1);
  const Field* field = fields.find(key);
  const bool is_string = field && std::holds_alternative<std::string*>(field->target);
  const bool quoted = !value.empty() && (value[0] == '"' || value[0] == '\'');
  const std::string document = "v = " + (is_string && !quoted ? quote(value) : value);
  try {
    const toml::table table = toml::parse(document);
    assign(*table.get("v"), where, key, fields, problems);
  } catch (const toml::parse_error&) {
    if (!field) return assign(toml::value<std::string>(value), where, key, fields, problems);
    problems.add(where, key + " must be " + type_name(field->target));
  }
}

[[noreturn]] void throw_problems(const std::string& name, const Problems& problems) {
  std::string where = name, text = problems.list[0];
  if (problems.list.size() == 1) {
    // "file:line: text": the file and line become the error's place.
    const size_t at = text.find(": ");
    where = text.substr(0, at);
    text = text.substr(at + 2);
  } else {
    text = std::to_string(problems.list.size()) + " errors";
    for (const auto& p : problems.list) text += "\n  " + p;
  }
  throw Error(ExitCode::kUsage, where, text,
              "--help-config lists every key with its default and meaning");
}

}  // namespace

Field* Fields::find(std::string_view key) {
  for (auto& f : fields_)
    if (f.key == key) return &f;
  return nullptr;
}

bool Fields::was_set(std::string_view key) const {
  for (const auto& f : fields_)
    if (f.key == key) return f.set;
  return false;
}

void parse_config_text(std::string_view text, const std::string& name,
                       const std::vector<std::string>& overrides, Fields& fields,
                       Strictness strictness) {
  Problems problems;
  problems.strictness = strictness;
  toml::table table;
  try {
    table = toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    throw Error(ExitCode::kUsage, name + ":" + std::to_string(e.source().begin.line),
                std::string(e.description()), "the file must be TOML 1.0");
  }
  read_table(table, "", name, fields, problems);
  std::stable_sort(problems.list.begin(), problems.list.end(), [](const auto& a, const auto& b) {
    const auto line = [](const std::string& s) {
      const size_t at = s.find(':');
      return at == std::string::npos ? 0 : std::atoi(s.c_str() + at + 1);
    };
    return line(a) < line(b);
  });
  for (const auto& o : overrides) apply_override(o, fields, problems);
  if (!problems.list.empty()) throw_problems(name, problems);
}

void parse_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                  Fields& fields, Strictness strictness) {
  std::string text;
  try {
    text = read_file(file);
  } catch (const Error& e) {
    throw Error(ExitCode::kUsage, file.string(), e.what(),
                "--config needs a TOML file; see configs/");
  }
  parse_config_text(text, file.string(), overrides, fields, strictness);
}

std::string to_toml(const Fields& fields) {
  std::string out, section;
  for (const auto& f : fields.all()) {
    const size_t dot = f.key.rfind('.');
    const std::string table = dot == std::string::npos ? "" : f.key.substr(0, dot);
    if (table != section) {
      out += (out.empty() ? "[" : "\n[") + table + "]\n";
      section = table;
    }
    out += f.key.substr(dot == std::string::npos ? 0 : dot + 1) + " = " + value_text(f) + "\n";
  }
  return out;
}

std::string describe(const Fields& fields) {
  std::string out;
  for (const auto& f : fields.all()) {
    std::string line = fmt::format("{} = {}\n    {}", f.key, value_text(f), f.doc);
    if (!f.rules.one_of.empty()) {
      line += "; one of";
      for (const auto& a : f.rules.one_of) line += " \"" + a + "\"";
    }
    if (!std::isinf(f.rules.min) || !std::isinf(f.rules.max)) line += "; " + range_text(f.rules);
    if (!f.rules.affects_result) line += "; may change on resume";
    out += line + "\n";
  }
  return out;
}

std::string config_hash(const Fields& fields) {
  std::string text;
  for (const auto& f : fields.all())
    if (f.rules.affects_result) text += f.key + " = " + value_text(f) + "\n";
  return to_hex(xxh3_64(as_bytes(text)));
}

std::vector<std::string> config_differences(std::string_view old_toml, const std::string& name,
                                            const Fields& fields) {
  const toml::table table = [&] {
    try {
      return toml::parse(old_toml, name);
    } catch (const toml::parse_error& e) {
      throw Error(ExitCode::kUsage, name, std::string(e.description()),
                  "the run's config.toml was edited");
    }
  }();
  std::vector<std::string> differences;
  for (const auto& f : fields.all()) {
    if (!f.rules.affects_result) continue;
    const auto node = table.at_path(f.key);
    if (!node) continue;
    const std::string before = std::visit(
        [&](const auto* target) {
          std::remove_cvref_t<decltype(*target)> value{};
          return read_value(*node.node(), value) ? value_text(value) : std::string("(unreadable)");
        },
        f.target);
    if (before != value_text(f))
      differences.push_back(f.key + ": " + before + " -> " + value_text(f));
  }
  return differences;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  size_t best = std::max<size_t>(2, word.size() / 3) + 1;
  std::string found;
  for (const auto& c : candidates) {
    // Optimal string alignment distance: a swap of neighbours counts once.
    std::vector<std::vector<size_t>> d(word.size() + 1, std::vector<size_t>(c.size() + 1));
    for (size_t i = 0; i <= word.size(); ++i) {
      for (size_t j = 0; j <= c.size(); ++j) {
        if (i == 0 || j == 0) {
          d[i][j] = i + j;
          continue;
        }
        d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1,
                            d[i - 1][j - 1] + (word[i - 1] == c[j - 1] ? 0 : 1)});
        if (i > 1 && j > 1 && word[i - 1] == c[j - 2] && word[i - 2] == c[j - 1])
          d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
    if (d[word.size()][c.size()] < best) {
      best = d[word.size()][c.size()];
      found = c;
    }
  }
  return found;
}

}  // namespace nf
