// See run_table.h.
#include "analysis/run_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <unordered_map>

#include "analysis/csv.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/options.h"

namespace nf::analysis {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

struct NumberColumn {
  const char* name;
  double Run::*member;
  bool required;      // the contract's columns must exist
  bool may_be_empty;  // a field without a value
  bool positive;      // where the run is done
};

constexpr NumberColumn kNumbers[] = {
    {"params", &Run::params, true, true, false},
    {"train_flops_per_image", &Run::train_flops_per_image, true, false, true},
    {"epochs", &Run::epochs, true, false, true},
    {"images_seen", &Run::images_seen, true, false, true},
    {"learning_rate", &Run::learning_rate, true, false, true},
    {"batch", &Run::batch, true, true, false},
    {"image_size", &Run::image_size, true, true, false},
    {"seed", &Run::seed, true, true, false},
    {"train_flops", &Run::train_flops, true, false, true},
    {"device_hours", &Run::device_hours, true, true, false},
    {"cost_usd", &Run::cost_usd, true, true, false},
    {"heldout_loss", &Run::heldout_loss, true, true, false},
    {"heldout_top1", &Run::heldout_top1, true, true, false},
    {"images_missed", &Run::images_missed, false, true, false},
    {"heldout_loss_se", &Run::heldout_loss_se, false, true, false},
    {"restarts", &Run::restarts, false, true, false},
    {"transfer_top1", &Run::transfer_top1, false, true, false}};

// Columns in which runs that are compared must agree.
constexpr const char* kMeasured[] = {
    "loss_kind",       "heldout_fingerprint", "heldout_images",  "heldout_image_size",
    "eval_image_size", "evaluate_image_size", "evaluation_size", "weights",
    "heldout_weights"};

std::optional<RunStatus> parse_status(std::string_view text) {
  for (const RunStatus s : {RunStatus::kDone, RunStatus::kDiverged, RunStatus::kFailed,
                            RunStatus::kRunning, RunStatus::kPreempted, RunStatus::kQueued})
    if (text == status_name(s)) return s;
  return std::nullopt;
}

class TableReader {
 public:
  TableReader(std::string_view text, const std::string& name)
      : reader_(text, name), errors_(name), name_(name) {}

  RunTable read() {
    std::vector<std::string_view> fields;
    if (!reader_.next(fields))
      throw Error(ExitCode::kData, name_, "the table is empty", "give a header and rows");
    find_columns(fields);
    RunTable table;
    table.name = name_;
    std::vector<uint64_t> row_hashes;
    while (reader_.next(fields)) {
      ++table.rows;
      if (fields.size() != header_.size()) {
        errors_.add(reader_.line(), 0,
                    fmt::format("{} fields, the header has {}", fields.size(), header_.size()));
        continue;
      }
      Run run = read_run(fields);
      const uint64_t content = content_of(fields);
      row_hashes.push_back(content);
      if (keep(table, run, content)) table.runs.push_back(std::move(run));
    }
    errors_.throw_if_any("correct these places; nothing was read");
    if (table.rows == 0)
      throw Error(ExitCode::kData, name_, "the table has a header and no rows",
                  "collect the runs first");
    std::sort(row_hashes.begin(), row_hashes.end());
    table.hash = to_hex(xxh3_64(std::as_bytes(std::span(row_hashes))));
    return table;
  }

 private:
  void find_columns(const std::vector<std::string_view>& fields) {
    header_.assign(fields.begin(), fields.end());
    const auto place = [&](const std::string& column, bool required) -> ptrdiff_t {
      const auto found = std::find(header_.begin(), header_.end(), column);
      if (found != header_.end()) return found - header_.begin();
      if (required) {
        const std::string near = nearest(column, header_);
        errors_.add(1, 0,
                    "no column '" + column + "'" +
                        (near.empty() ? std::string() : "; did you mean '" + near + "'?"));
      }
      return -1;
    };
    run_ = place("run", true);
    model_ = place("model", true);
    for (const auto& column : kNumbers) numbers_.push_back(place(column.name, column.required));
    status_ = place("status", true);
    device_ = place("device", false);
    bool has_size = false;
    for (const char* column : kMeasured)
      if (const ptrdiff_t at = place(column, false); at >= 0) {
        measured_.push_back(at);
        has_size = has_size || std::string_view(column).ends_with("_size");
      }
    // Without a column of its own the evaluation's size is the training's.
    if (const ptrdiff_t at = place("image_size", false); at >= 0 && !has_size)
      measured_.push_back(at);
    errors_.throw_if_any("results.csv has the columns that `nf-sweep collect` writes");
    order_.resize(header_.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::sort(order_.begin(), order_.end(),
              [&](size_t a, size_t b) { return header_[a] < header_[b]; });
  }

  Run read_run(const std::vector<std::string_view>& fields) {
    const auto field = [&](ptrdiff_t at) {
      return at < 0 ? std::string_view() : fields[static_cast<size_t>(at)];
    };
    Run run;
    run.line = reader_.line();
    run.run = field(run_);
    run.model = field(model_);
    run.device = field(device_);
    const auto problem = [&](ptrdiff_t at, const std::string& what) {
      errors_.add(run.line, static_cast<size_t>(at) + 1,
                  header_[static_cast<size_t>(at)] + ": " + what);
    };
    if (run.run.empty()) problem(run_, "a run needs a name");
    if (run.model.empty()) problem(model_, "a run needs a model");
    if (const auto status = parse_status(field(status_)))
      run.status = *status;
    else
      problem(status_, fmt::format("unknown status '{}' (done, diverged, failed, running, "
                                   "preempted, queued)",
                                   field(status_)));
    for (size_t i = 0; i < numbers_.size(); ++i) {
      const auto& column = kNumbers[i];
      double& value = run.*column.member;
      value = kMissing;
      if (numbers_[i] < 0) continue;
      const std::string_view text = field(numbers_[i]);
      if (text.empty() && column.may_be_empty) continue;
      const auto number = parse_number(text);
      if (!number)
        problem(numbers_[i], fmt::format("'{}' is not a number", text));
      else if (column.positive && run.status == RunStatus::kDone &&
               !(*number > 0 && std::isfinite(*number)))
        problem(numbers_[i], fmt::format("{} must be positive", text));
      value = number.value_or(kMissing);
    }
    for (const ptrdiff_t at : measured_) {
      if (!run.measured_as.empty()) run.measured_as += ", ";
      run.measured_as += header_[static_cast<size_t>(at)] + " " + std::string(field(at));
    }
    return run;
  }

  // Independent of the order of columns; the run's name is part of it.
  uint64_t content_of(const std::vector<std::string_view>& fields) {
    buffer_.clear();
    for (const size_t i : order_) {
      buffer_ += header_[i];
      buffer_ += '=';
      buffer_ += fields[i];
      buffer_ += '\n';
    }
    return xxh3_64(nf::as_bytes(buffer_));
  }

  // False for a row that repeats an earlier one.
  bool keep(RunTable& table, const Run& run, uint64_t content) {
    const auto [seen, fresh] = seen_.try_emplace(run.run, Seen{content, run.line});
    if (fresh) return true;
    if (seen->second.content != content)
      throw Error(ExitCode::kData, fmt::format("{}:{}", name_, run.line),
                  fmt::format("run '{}' stands in line {} and in line {} with different values",
                              run.run, seen->second.line, run.line),
                  "run names are unique; remove the wrong row");
    table.duplicates.push_back(run.run);
    return false;
  }

  struct Seen {
    uint64_t content;
    int64_t line;
  };
  CsvReader reader_;
  InputErrors errors_;
  std::string name_, buffer_;
  std::vector<std::string> header_;
  std::vector<size_t> order_;
  ptrdiff_t run_ = -1, model_ = -1, status_ = -1, device_ = -1;
  std::vector<ptrdiff_t> numbers_, measured_;
  std::unordered_map<std::string, Seen> seen_;
};

void check_measured_alike(const std::vector<Run>& used, const std::string& name) {
  std::map<std::string, std::vector<std::string>> kinds;
  for (const Run& run : used) kinds[run.measured_as].push_back(run.run);
  if (kinds.size() < 2) return;
  std::string text = "the rows were not measured alike: ";
  bool first = true;
  for (const auto& [kind, runs] : kinds) {
    if (!first) text += "; ";
    first = false;
    text += kind + " in ";
    for (size_t i = 0; i < std::min<size_t>(runs.size(), 8); ++i) {
      if (i > 0) text += ", ";
      text += runs[i];
    }
    if (runs.size() > 8) text += fmt::format(" and {} more", runs.size() - 8);
  }
  throw Error(ExitCode::kUsage, name, text,
              "losses of different kinds, held-out sets, evaluation sizes or weights cannot be "
              "compared: evaluate all runs alike, or split the table");
}

}  // namespace

std::string status_name(RunStatus status) {
  constexpr const char* kNames[] = {"done", "diverged", "failed", "running", "preempted", "queued"};
  return kNames[static_cast<int>(status)];
}

RunTable read_run_table_text(std::string_view text, const std::string& name) {
  return TableReader(text, name).read();
}

RunTable read_run_table(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  return read_run_table_text(text, file.string());
}

RunSelection select_runs(const RunTable& table, double allow_missed) {
  RunSelection selection;
  const auto exclude = [&](const std::string& reason, const std::string& run) {
    selection.excluded[reason].push_back(run);
  };
  for (const auto& run : table.duplicates) exclude("duplicate", run);
  for (const Run& run : table.runs) {
    if (run.status == RunStatus::kDiverged) {
      selection.diverged.push_back(run);
    } else if (run.status != RunStatus::kDone) {
      exclude(status_name(run.status), run.run);
    } else if (!(run.heldout_loss > 0) || !std::isfinite(run.heldout_loss)) {
      exclude("bad_loss", run.run);
    } else if (run.images_missed > allow_missed * run.images_seen) {
      exclude("undersampled", run.run);
    } else {
      selection.used.push_back(run);
    }
  }
  for (auto& [reason, runs] : selection.excluded) std::sort(runs.begin(), runs.end());
  const auto by_name = [](const Run& a, const Run& b) { return a.run < b.run; };
  std::sort(selection.used.begin(), selection.used.end(), by_name);
  std::sort(selection.diverged.begin(), selection.diverged.end(), by_name);
  if (selection.used.empty()) {
    std::string counts = fmt::format("{} diverged", selection.diverged.size());
    for (const auto& [reason, runs] : selection.excluded)
      counts += fmt::format(", {} {}", runs.size(), reason);
    throw Error(ExitCode::kData, table.name,
                fmt::format("none of {} rows can be used: {}", table.rows, counts),
                "fits need rows with status done and a positive finite heldout_loss");
  }
  check_measured_alike(selection.used, table.name);
  return selection;
}

}  // namespace nf::analysis
