// Strict configuration: plain structs whose one visit() lists their keys; that list parses TOML,
// applies --set, prints the resolved config, hashes it and compares two runs. All errors of a file
// are reported at once, each with file, line and key; unknown keys suggest the nearest known one.
//
//   struct DataOptions {
//     std::string path;
//     int64_t workers = 2;
//     void visit(Fields& f) {
//       f("path", path, "data set folder");
//       f("workers", workers, "loader threads", {.affects_result = false, .min = 0});
//     }
//   };
//   Fields f;  f.section("data", options.data);  parse_toml_file("run.toml", f);
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace nf {

// What a key allows beyond its type, and whether it can change a run's bits (only such keys enter
// the config hash).
struct FieldRules {
  bool affects_result = true;
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> one_of = {};  // for strings
};

struct Field {
  using Target = std::variant<bool*, int64_t*, double*, std::string*, std::vector<int64_t>*,
                              std::vector<double>*, std::vector<std::string>*>;
  std::string key;  // dotted, as "data.path"
  Target target;
  std::string doc;
  FieldRules rules;
  bool set = false;  // given in a file or by --set
};

// The keys of a tree of option structs, in order of visit().
class Fields {
 public:
  template <class Options>
  void section(const std::string& name, Options& options) {
    const std::string outer = prefix_;
    prefix_ += name + ".";
    options.visit(*this);
    prefix_ = outer;
  }
  template <class T>
  void operator()(const std::string& key, T& target, std::string doc, FieldRules rules = {}) {
    fields_.push_back({prefix_ + key, &target, std::move(doc), std::move(rules), false});
  }

  std::vector<Field>& all() { return fields_; }
  const std::vector<Field>& all() const { return fields_; }
  Field* find(std::string_view key);
  bool was_set(std::string_view key) const;  // given by the user rather than left at its default

 private:
  std::string prefix_;
  std::vector<Field> fields_;
};

// kKnownKeys: keys that are none of the fields' belong to somebody else and are passed over.
enum class Strictness { kAllKeys, kKnownKeys };

// Reads a TOML file into the fields, then the overrides "key=value" (TOML values; bare words are
// strings). Throws one Error(kUsage) that lists every problem.
void parse_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                  Fields& fields, Strictness strictness = Strictness::kAllKeys);
// The same for text; `name` stands for the file in messages.
void parse_config_text(std::string_view toml, const std::string& name,
                       const std::vector<std::string>& overrides, Fields& fields,
                       Strictness strictness = Strictness::kAllKeys);

// The resolved config as TOML, one section a table, every key, in visit order. parse(to_toml(f))
// gives f again.
std::string to_toml(const Fields& fields);
// A reference of all keys: type, default, allowed values, meaning; for --help-config.
std::string describe(const Fields& fields);

// XXH3 over key and value of all fields that affect the result, as 16 hex digits.
std::string config_hash(const Fields& fields);
// Result-affecting keys in which the fields differ from an earlier to_toml() text, as "key: old ->
// new". Keys that the old text lacks count with their present default.
std::vector<std::string> config_differences(std::string_view old_toml, const std::string& name,
                                            const Fields& fields);

// The nearest of `candidates` by edit distance, or "" when nothing is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace nf
