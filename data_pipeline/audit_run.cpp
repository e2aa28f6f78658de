// See audit_run.h.
#include "data_pipeline/audit_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>
#include <utility>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::data {
namespace {

class Faults {
 public:
  Faults(AuditReport& report, size_t max_faults) : report_(report), max_(max_faults) {}
  void add(std::string text) {
    ++report_.faults;
    if (report_.fault_text.size() < max_) report_.fault_text.push_back(std::move(text));
  }

 private:
  AuditReport& report_;
  size_t max_;
};

std::string range_text(uint64_t begin, uint64_t end) { return fmt::format("[{}, {})", begin, end); }

// Steps count 1, 2, 3...; ranges tile [0, end). Gaps and overlaps are counted over sorted ranges,
// so that swapped lines are one fault and not also missing data.
void check_tiling(const std::vector<LedgerLine>& lines, AuditReport& report, Faults& faults) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;  // begin, end
  ranges.reserve(lines.size());
  uint64_t expected_step = 1, expected_begin = 0;
  for (const LedgerLine& line : lines) {
    if (line.step != expected_step) {
      faults.add(fmt::format("step {} stands where step {} belongs", line.step, expected_step));
    }
    if (line.end <= line.begin) {
      faults.add(
          fmt::format("step {}: empty range {}", line.step, range_text(line.begin, line.end)));
    } else {
      ranges.push_back({line.begin, line.end});
    }
    if (line.begin != expected_begin) {
      faults.add(fmt::format("step {} covers {} and should begin at {}", line.step,
                             range_text(line.begin, line.end), expected_begin));
    }
    expected_step = line.step + 1;
    expected_begin = line.end;
  }
  if (!std::is_sorted(ranges.begin(), ranges.end())) std::sort(ranges.begin(), ranges.end());
  uint64_t covered = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin > covered) report.missed += begin - covered;
    if (begin < covered) report.repeated += std::min(covered, end) - begin;
    covered = std::max(covered, end);
  }
  report.end = covered;
}

// Samples of ranges of positions. Neighbouring ranges come out of one block: the order costs less
// in long stretches.
class OrderBlock {
 public:
  explicit OrderBlock(const SamplerOptions& options) : sampler_(options) {}

  // `more`: the ranges asked for next will probably follow this one.
  std::span<const uint64_t> samples(uint64_t begin, uint64_t end, bool more) {
    constexpr uint64_t kAhead = 16384;
    if (begin < begin_ || end > begin_ + block_.size()) {
      begin_ = begin;
      block_.resize(std::max<uint64_t>(end - begin, more ? kAhead : 0));
      sampler_.fill(begin, block_);
    }
    return std::span(block_).subspan(begin - begin_, end - begin);
  }

 private:
  Sampler sampler_;
  std::vector<uint64_t> block_;
  uint64_t begin_ = 0;
};

void check_digests(const RunOrder& order, const std::vector<LedgerLine>& lines,
                   const AuditOptions& options, AuditReport& report, Faults& faults) {
  using Digests = AuditOptions::Digests;
  Digests mode = options.digests;
  if (mode == Digests::kAuto) {
    mode = report.end <= options.auto_limit ? Digests::kAll : Digests::kSample;
  }
  if (mode == Digests::kNone || lines.empty()) return;
  const size_t wanted =
      mode == Digests::kAll
          ? lines.size()
          : std::min<size_t>(lines.size(), std::max<uint64_t>(1, options.sampled_steps));
  OrderBlock block(order.sampler);
  for (size_t k = 0; k < wanted; ++k) {
    // Evenly spread, first and last line included.
    const size_t at = wanted == 1 ? lines.size() - 1
                                  : static_cast<size_t>(static_cast<unsigned __int128>(k) *
                                                        (lines.size() - 1) / (wanted - 1));
    const LedgerLine& line = lines[at];
    // A damaged line must not make the auditor allocate without bound; its range is a fault
    // already.
    if (line.end <= line.begin || line.end - line.begin > order.batch_size) continue;
    ++report.digests_checked;
    const auto samples = block.samples(line.begin, line.end, mode == Digests::kAll);
    if (batch_digest(line.begin, samples) != line.digest) {
      ++report.digests_wrong;
      faults.add(fmt::format("step {}: digest differs from the samples at {}", line.step,
                             range_text(line.begin, line.end)));
    }
  }
}

// Marks which positions a trace has named, and how often each sample was taken in each epoch.
class TraceCount {
 public:
  TraceCount(const RunOrder& order, AuditReport& report, Faults& faults)
      : sampler_(order.sampler), report_(report), faults_(faults), seen_(report.end) {
    const uint64_t per_epoch = sampler_.positions_per_epoch();
    taken_.resize((report.end + per_epoch - 1) / per_epoch);
    for (auto& epoch : taken_) epoch.resize(order.sampler.samples);
  }

  void read(const std::filesystem::path& file) {
    std::ifstream stream(file);
    const std::string name = file.filename().string();
    std::string text;
    uint64_t number = 0;
    while (std::getline(stream, text)) {
      ++number;
      if (stream.eof()) break;  // no newline: torn by a kill
      Line line;
      if (!parse(text, line)) {
        faults_.add(fmt::format("{}:{}: not \"step position epoch sample\"", name, number));
        continue;
      }
      count(line, name, number);
    }
  }

  void finish() {
    const uint64_t per_epoch = sampler_.positions_per_epoch(), repeat = sampler_.options().repeat;
    for (uint64_t e = 0; e < taken_.size(); ++e) {
      std::vector<uint64_t> histogram(repeat + 2);
      for (const uint8_t times : taken_[e]) ++histogram[std::min<uint64_t>(times, repeat + 1)];
      const bool whole = (e + 1) * per_epoch <= report_.end;
      uint64_t missed = 0, repeated = 0;
      for (uint64_t k = 0; k < histogram.size(); ++k) {
        if (whole && k < repeat) missed += histogram[k] * (repeat - k);
        if (k > repeat) repeated += histogram[k] * (k - repeat);
      }
      if (missed + repeated > 0) {
        faults_.add(fmt::format("epoch {}: the trace misses {} images and repeats {}", e, missed,
                                repeated));
      }
      report_.missed += missed;
      report_.repeated += repeated;
      report_.trace_histogram.push_back(std::move(histogram));
    }
    const auto unseen = static_cast<uint64_t>(std::count(seen_.begin(), seen_.end(), false));
    if (unseen > 0) {
      faults_.add(fmt::format("{} positions of the ledger are not in the trace", unseen));
    }
  }

 private:
  struct Line {
    uint64_t step, position, epoch, sample;
  };

  static bool parse(std::string_view text, Line& line) {
    const char *at = text.data(), *const end = at + text.size();
    for (uint64_t* field : {&line.step, &line.position, &line.epoch, &line.sample}) {
      if (field != &line.step && (at == end || *at++ != '\t')) return false;
      const auto [next, error] = std::from_chars(at, end, *field);
      if (error != std::errc()) return false;
      at = next;
    }
    return at == end;
  }

  // Every replay of a position must name the same sample as the first time: then "the last
  // occurrence" is well defined even across the files of several ranks, which have no common clock.
  void count(const Line& line, const std::string& file, uint64_t number) {
    ++report_.trace_lines;
    if (line.position >= report_.end) {
      ++report_.trace_uncommitted;
      return;
    }
    const uint64_t epoch = line.position / sampler_.positions_per_epoch();
    if (line.epoch != epoch || line.sample >= sampler_.options().samples ||
        sample_at(line.position) != line.sample) {
      faults_.add(fmt::format(
          "{}:{}: position {} names sample {} of epoch {}, which the order does not put there",
          file, number, line.position, line.sample, line.epoch));
      if (line.sample >= sampler_.options().samples) return;
    }
    if (seen_[line.position]) {
      ++report_.trace_replayed;
      return;
    }
    seen_[line.position] = true;
    uint8_t& times = taken_[epoch][line.sample];
    if (times < 255) ++times;
  }

  // Lines come in runs of neighbouring positions: asked for in blocks, the order costs little per
  // line.
  uint64_t sample_at(uint64_t position) {
    if (position < block_begin_ || position - block_begin_ >= block_.size()) {
      block_begin_ = position;
      block_.resize(std::min<uint64_t>(256, report_.end - position));
      sampler_.fill(position, block_);
    }
    return block_[position - block_begin_];
  }

  Sampler sampler_;
  AuditReport& report_;
  Faults& faults_;
  std::vector<bool> seen_;                   // [end]
  std::vector<std::vector<uint8_t>> taken_;  // [epoch][sample], saturating
  std::vector<uint64_t> block_;
  uint64_t block_begin_ = 0;
};

std::vector<std::filesystem::path> trace_files(const std::filesystem::path& run_dir) {
  std::vector<std::filesystem::path> files;
  const std::filesystem::path folder = run_dir / "trace";
  if (!std::filesystem::is_directory(folder)) return files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".tsv") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A run that limit.steps ended has a result too, but does not say it is complete.
bool claims_completion(const std::filesystem::path& result) {
  if (!std::filesystem::exists(result)) return false;
  const Json json = Json::parse(read_file(result), nullptr, false);
  return !json.is_object() || json.value("complete", true);
}

}  // namespace

AuditReport audit_ledger(const RunOrder& order, const std::vector<LedgerLine>& lines,
                         const AuditOptions& options) {
  AuditReport report;
  Faults faults(report, options.max_faults);
  report.samples = order.sampler.samples;
  report.steps = lines.size();
  check_tiling(lines, report, faults);
  if (report.end > order.end_position) {
    faults.add(fmt::format("the ledger ends at position {}, the run at {}", report.end,
                           order.end_position));
  }
  for (const LedgerLine& line : lines) {
    const bool last = line.end == order.end_position;
    if (line.end > line.begin && line.end - line.begin != order.batch_size &&
        !(last && line.end - line.begin < order.batch_size)) {
      faults.add(fmt::format("step {}: {} positions in a batch of {}", line.step,
                             line.end - line.begin, order.batch_size));
    }
  }
  report.complete = report.end == order.end_position;
  report.epochs = static_cast<double>(report.end) / (static_cast<double>(order.sampler.samples) *
                                                     static_cast<double>(order.sampler.repeat));
  check_digests(order, lines, options, report, faults);
  return report;
}

AuditReport audit_run(const std::filesystem::path& run_dir, const AuditOptions& options) {
  const RunOrder order = read_run_order(run_dir);
  const std::filesystem::path file = run_dir / "ledger.jsonl";
  if (!std::filesystem::exists(file)) {
    throw Error(ExitCode::kData, file.string(), "file not found",
                "the run has not finished its first update");
  }
  const std::vector<LedgerLine> lines = read_ledger(file);
  AuditReport report = audit_ledger(order, lines, options);
  Faults faults(report, options.max_faults);
  if (claims_completion(run_dir / "result.json") && !report.complete) {
    faults.add(
        fmt::format("result.json says the run is done, but the ledger ends at position {} of {}",
                    report.end, order.end_position));
  }
  const auto traces = trace_files(run_dir);
  report.traced = !traces.empty();
  // A ledger that claims more than its lines can hold is a fault already, and no measure for
  // memory.
  if (report.traced && report.end / order.batch_size <= report.steps) {
    TraceCount count(order, report, faults);
    for (const auto& trace : traces) count.read(trace);
    count.finish();
  }
  return report;
}

Json to_json(const AuditReport& report) {
  Json json = {{"verdict", report.passed() ? "pass" : "fail"},
               {"samples", report.samples},
               {"steps", report.steps},
               {"positions", report.end},
               {"epochs", report.epochs},
               {"complete", report.complete},
               {"missed", report.missed},
               {"repeated", report.repeated},
               {"digests_checked", report.digests_checked},
               {"digests_wrong", report.digests_wrong}};
  if (report.traced) {
    json["trace"] = {{"lines", report.trace_lines},
                     {"replayed", report.trace_replayed},
                     {"uncommitted", report.trace_uncommitted},
                     {"times_taken_per_epoch", report.trace_histogram}};
  }
  json["faults"] = report.faults;
  json["fault_text"] = report.fault_text;
  return json;
}

}  // namespace nf::data
