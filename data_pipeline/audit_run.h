// The proof behind nf-audit run: from ledger.jsonl, run.json and the trace (if one was written),
// that the positions [0, end) were used once each and held the samples that (N, seed, order) put
// there, hence each sample once per epoch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/jsonl.h"
#include "data_pipeline/ledger.h"

namespace nf::data {

struct AuditOptions {
  // kAuto: all digests up to `auto_limit` positions, an even sample of steps above.
  enum class Digests { kAuto, kAll, kSample, kNone } digests = Digests::kAuto;
  uint64_t auto_limit = 100'000'000;
  uint64_t sampled_steps = 1000;
  size_t max_faults = 20;  // messages kept; all are counted
};

struct AuditReport {
  uint64_t samples = 0;   // N
  uint64_t steps = 0;     // lines of the ledger
  uint64_t end = 0;       // positions [0, end) are claimed
  double epochs = 0;      // end / (N x repeat)
  bool complete = false;  // end equals the run's end_position
  uint64_t missed =
      0;  // positions of [0, end) in no line, or (with a trace) images that no step took
  uint64_t repeated = 0;  // positions in more than one line, or images taken too often
  uint64_t digests_checked = 0, digests_wrong = 0;
  bool traced = false;             // trace files were there
  uint64_t trace_lines = 0;        // all of them, replayed steps included
  uint64_t trace_replayed = 0;     // lines of a position that had one already
  uint64_t trace_uncommitted = 0;  // lines past `end`: work that no checkpoint holds
  // Of each epoch that the trace touches: histogram[k] = samples that were taken k times (the last
  // entry: or more).
  std::vector<std::vector<uint64_t>> trace_histogram;
  uint64_t faults = 0;
  std::vector<std::string> fault_text;

  bool passed() const { return faults == 0; }
};

// Throws Error(kData) when there is nothing to audit (no run.json or ledger.jsonl) or a file is not
// what it claims to be.
AuditReport audit_run(const std::filesystem::path& run_dir, const AuditOptions& options);
// The same proof for lines that are already in memory, without a trace.
AuditReport audit_ledger(const RunOrder& order, const std::vector<LedgerLine>& lines,
                         const AuditOptions& options);

Json to_json(const AuditReport& report);

}  // namespace nf::data
