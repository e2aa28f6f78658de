// CSV as programs write it: comma, double quotes around fields that hold commas or quotes, LF or
// CRLF, an optional byte order mark. Two levels: a reader that hands out one record at a time
// without copying (a million rows in a second), and columns of numbers selected by name.
#pragma once

#include <deque>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nf::analysis {

class CsvReader {
 public:
  // `text` must outlive the reader; `name` stands for the file in messages.
  CsvReader(std::string_view text, std::string name);
  // The fields of the next record that is not blank; false at the end. The views live until the
  // next call. Throws Error(kUsage) for a quote that is never closed.
  bool next(std::vector<std::string_view>& fields);
  int64_t line() const { return line_; }  // on which the last record began, from 1

 private:
  std::string_view quoted_field();

  std::string_view text_;
  std::string name_;
  size_t at_ = 0;
  int64_t line_ = 0, next_line_ = 1;
  std::deque<std::string> unescaped_;  // fields with doubled quotes
};

// A number that is the whole field (spaces around it allowed); "nan" and "inf" are numbers.
std::optional<double> parse_number(std::string_view field);

// Collects what is wrong with a file and throws it at once, each with its place.
class InputErrors {
 public:
  explicit InputErrors(std::string file) : file_(std::move(file)) {}
  void add(int64_t line, size_t column, const std::string& what);  // column from 1; 0: none
  bool empty() const { return count_ == 0; }
  // Throws Error(kUsage) with every problem (the first 100 in words) if there is one.
  void throw_if_any(const std::string& hint) const;

 private:
  std::string file_;
  std::string first_place_, text_;
  int64_t count_ = 0;
};

// COLUMN=VALUE: equal text, or equal numbers.
struct Condition {
  std::string column, value;
};
// Throws Error(kUsage) when there is no '='.
Condition parse_condition(const std::string& text);

// Numbers of chosen columns in the rows that meet every condition.
struct Columns {
  std::vector<std::vector<double>> values;  // one vector a column asked for
  std::vector<int64_t> lines;
  int64_t rows_in_file = 0;
};
// Throws Error(kUsage) naming file, line and column for missing columns and text that is no number
// (all of them at once); Error(kData) for a file without rows.
Columns read_columns(const std::filesystem::path& file, const std::vector<std::string>& columns,
                     const std::vector<Condition>& where);

}  // namespace nf::analysis
