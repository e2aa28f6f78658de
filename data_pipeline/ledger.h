// The run's own account of what it used. ledger.jsonl holds one line per update: the range of
// positions and a digest of the samples that were really handed to the network. Together with
// run.json (which order the run follows) an auditor can prove, long after, that every sample was
// used once per epoch, without trusting the trainer's arithmetic.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/jsonl.h"
#include "data_pipeline/sampler.h"

namespace nf::data {

// `step` counts updates done: the first update writes step 1, begin 0.
struct LedgerLine {
  uint64_t step = 0;
  uint64_t begin = 0, end = 0;  // positions [begin, end)
  uint64_t digest = 0;          // batch_digest() of the samples at these positions

  bool operator==(const LedgerLine&) const = default;
};

// A strong 64-bit mix of (position, sample). The digest of a batch is the sum modulo 2^64 over its
// positions: ranks and micro-batches may add their parts in any order, and for any split. Frozen:
// ledgers on disk depend on it.
uint64_t sample_digest(uint64_t position, uint64_t sample);
// Sum over positions begin, begin + 1, ... of samples.
uint64_t batch_digest(uint64_t begin, std::span<const uint64_t> samples);

// {"step", "begin", "end", "digest": 16 hex digits}. from_json throws Error(kData) for anything
// else.
Json to_json(const LedgerLine& line);
LedgerLine ledger_line_from_json(const Json& json, const std::string& where);
// All whole lines of a ledger, ten times as fast as through Json. Throws Error(kData) naming the
// line that is no ledger line; a torn last line is left out.
std::vector<LedgerLine> read_ledger(const std::filesystem::path& file);

// RUN_DIR/run.json: what an auditor needs to know to recompute the order of a run. Written by the
// trainer at the start.
struct RunOrder {
  SamplerOptions sampler;
  uint64_t batch_size = 0;
  uint64_t micro_batches = 0;
  uint64_t end_position = 0;  // the run is complete when its ledger ends here
  std::string fingerprint;    // of the split

  static constexpr const char* kFileName = "run.json";
};
Json to_json(const RunOrder& order);
RunOrder run_order_from_json(const Json& json, const std::string& where);
void write_run_order(const std::filesystem::path& run_dir, const RunOrder& order);
RunOrder read_run_order(const std::filesystem::path& run_dir);  // throws Error(kData)

// "none", "global", "windowed" as in the config. Throws Error(kData) for another word.
std::string to_string(Shuffle shuffle);
Shuffle shuffle_from_string(const std::string& word, const std::string& where);

// RUN_DIR/trace/rank_00000.tsv, no header: step, position, epoch, sample; one line a sample at the
// moment the step takes it. One write(2) per call, so that a kill leaves whole lines; a torn line
// of an earlier life is cut off when opening.
class TraceWriter {
 public:
  TraceWriter(const std::filesystem::path& run_dir, uint64_t rank);
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  // Lines for samples at positions begin, begin + 1, ... used by update `step` (counting from 1).
  void append(uint64_t step, uint64_t begin, uint64_t positions_per_epoch,
              std::span<const uint64_t> samples);

 private:
  std::filesystem::path path_;
  std::string lines_;
  int fd_;
};

}  // namespace nf::data
