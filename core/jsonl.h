// Append-only logs of one JSON object a line (metrics, ledger, quarantine). A torn last line, left
// by a kill, is dropped by the reader and cut off by the writer when it opens the file again.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nf {

using Json = nlohmann::ordered_json;

class JsonlWriter {
 public:
  // Opens for append. `keep` (may be empty) is asked for each existing line; lines it refuses are
  // removed first, atomically. A torn or unparsable last line is always removed.
  explicit JsonlWriter(const std::filesystem::path& file,
                       const std::function<bool(const Json&)>& keep = {});
  ~JsonlWriter();
  JsonlWriter(const JsonlWriter&) = delete;
  JsonlWriter& operator=(const JsonlWriter&) = delete;

  // One write(2) per line: a kill leaves whole lines. Throws Error (exit 1) when the disk refuses.
  void append(const Json& object);
  void sync();  // fsync

 private:
  std::filesystem::path path_;
  int fd_;
};

// Calls `use` for each whole line. A missing file has no lines. Throws Error(kData) naming the line
// for broken JSON that is not the last line.
void read_jsonl(const std::filesystem::path& file, const std::function<void(const Json&)>& use);
std::vector<Json> read_jsonl(const std::filesystem::path& file);

}  // namespace nf
