// See ledger.h.
#include "data_pipeline/ledger.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "data_pipeline/json_scanner.h"

namespace nf::data {
namespace {

// Stafford's Mix13, the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
constexpr uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

[[noreturn]] void bad_json(const std::string& where, const std::string& what) {
  throw Error(ExitCode::kData, where, what, "the file was not written by this version of nf-train");
}

uint64_t number(const Json& json, const char* key, const std::string& where) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_number_integer() ||
      (!it->is_number_unsigned() && it->get<int64_t>() < 0)) {
    bad_json(where, std::string("key \"") + key + "\" is missing or not a whole number");
  }
  return it->get<uint64_t>();
}

std::string text(const Json& json, const char* key, const std::string& where) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_string()) {
    bad_json(where, std::string("key \"") + key + "\" is missing or not a string");
  }
  return it->get<std::string>();
}

void append_number(std::string& out, uint64_t value, char after) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, end);
  out.push_back(after);
}

// Cuts the file behind its last newline.
void drop_torn_line(int fd, const std::filesystem::path& path) {
  const off_t size = lseek(fd, 0, SEEK_END);
  if (size < 0) throw_io_error(path, "cannot seek", errno);
  off_t keep = size;
  char last = 0;
  while (keep > 0) {
    if (pread(fd, &last, 1, keep - 1) != 1) throw_io_error(path, "cannot read", errno);
    if (last == '\n') break;
    --keep;
  }
  if (keep != size && ftruncate(fd, keep) != 0) throw_io_error(path, "cannot truncate", errno);
}

}  // namespace

uint64_t sample_digest(uint64_t position, uint64_t sample) {
  return mix64(mix64(position + 0x9E3779B97F4A7C15ull) ^ mix64(sample + 0xD1B54A32D192ED03ull) * 3);
}

uint64_t batch_digest(uint64_t begin, std::span<const uint64_t> samples) {
  uint64_t sum = 0;
  for (size_t k = 0; k < samples.size(); ++k) sum += sample_digest(begin + k, samples[k]);
  return sum;
}

Json to_json(const LedgerLine& line) {
  return {{"step", line.step},
          {"begin", line.begin},
          {"end", line.end},
          {"digest", to_hex(line.digest)}};
}

LedgerLine ledger_line_from_json(const Json& json, const std::string& where) {
  if (!json.is_object()) bad_json(where, "a ledger line is not an object");
  LedgerLine line{number(json, "step", where), number(json, "begin", where),
                  number(json, "end", where), 0};
  const std::string hex = text(json, "digest", where);
  const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), line.digest, 16);
  if (hex.size() != 16 || error != std::errc() || end != hex.data() + hex.size()) {
    bad_json(where, "digest \"" + hex + "\" is not 16 hex digits");
  }
  return line;
}

namespace {

// A line as JsonlWriter writes it; false for anything unusual.
bool scan_line(std::string_view text, LedgerLine& line) {
  unsigned seen = 0;
  std::string storage;
  try {
    JsonScanner json(text);
    json.object([&](std::string_view key) {
      if (key == "step") {
        line.step = json.unsigned_number();
        seen += 1;
      } else if (key == "begin") {
        line.begin = json.unsigned_number();
        seen += 8;
      } else if (key == "end") {
        line.end = json.unsigned_number();
        seen += 64;
      } else if (key == "digest") {
        const std::string_view hex = json.string_view(storage);
        const auto [end, error] =
            std::from_chars(hex.data(), hex.data() + hex.size(), line.digest, 16);
        if (hex.size() == 16 && error == std::errc() && end == hex.data() + hex.size()) seen += 512;
      } else {
        json.skip_value();
      }
    });
    json.finish();
  } catch (const JsonSyntax&) {
    return false;
  }
  return seen == 1 + 8 + 64 + 512;
}

}  // namespace

std::vector<LedgerLine> read_ledger(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  std::vector<LedgerLine> lines;
  lines.reserve(text.size() / 70);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn by a kill
    const std::string_view whole = std::string_view(text).substr(begin, end - begin);
    LedgerLine line;
    if (!scan_line(whole, line)) {
      const std::string where = file.string() + ":" + std::to_string(lines.size() + 1);
      const Json json = Json::parse(whole, nullptr, false);
      if (json.is_discarded()) {
        if (end + 1 == text.size()) break;
        throw Error(ExitCode::kData, where, "broken JSON line",
                    "the file was edited or damaged; restore it from a copy");
      }
      line = ledger_line_from_json(json, where);
    }
    lines.push_back(line);
    begin = end + 1;
  }
  return lines;
}

std::string to_string(Shuffle shuffle) {
  switch (shuffle) {
    case Shuffle::kNone:
      return "none";
    case Shuffle::kGlobal:
      return "global";
    case Shuffle::kWindowed:
      return "windowed";
  }
  return "";
}

Shuffle shuffle_from_string(const std::string& word, const std::string& where) {
  for (const Shuffle shuffle : {Shuffle::kNone, Shuffle::kGlobal, Shuffle::kWindowed}) {
    if (word == to_string(shuffle)) return shuffle;
  }
  throw Error(ExitCode::kData, where, "unknown order \"" + word + "\"",
              "one of none, global, windowed");
}

Json to_json(const RunOrder& order) {
  return {{"samples", order.sampler.samples},
          {"seed", order.sampler.seed},
          {"batch_size", order.batch_size},
          {"micro_batches", order.micro_batches},
          {"end_position", order.end_position},
          {"shuffle", to_string(order.sampler.shuffle)},
          {"repeat", order.sampler.repeat},
          {"shard_samples", order.sampler.shard_samples},
          {"window_shards", order.sampler.window_shards},
          {"fingerprint", order.fingerprint}};
}

RunOrder run_order_from_json(const Json& json, const std::string& where) {
  if (!json.is_object()) bad_json(where, "not a JSON object");
  RunOrder order;
  order.sampler.samples = number(json, "samples", where);
  order.sampler.seed = number(json, "seed", where);
  order.batch_size = number(json, "batch_size", where);
  order.micro_batches = number(json, "micro_batches", where);
  order.end_position = number(json, "end_position", where);
  order.sampler.shuffle = shuffle_from_string(text(json, "shuffle", where), where);
  order.sampler.repeat = number(json, "repeat", where);
  order.sampler.shard_samples = number(json, "shard_samples", where);
  order.sampler.window_shards = number(json, "window_shards", where);
  order.fingerprint = text(json, "fingerprint", where);
  if (order.sampler.samples == 0 || order.sampler.repeat == 0 || order.batch_size == 0 ||
      order.sampler.shard_samples == 0 || order.sampler.window_shards == 0) {
    bad_json(where, "samples, batch_size, repeat, shard_samples and window_shards must be above 0");
  }
  if (order.sampler.samples > (uint64_t{1} << 63) / order.sampler.repeat) {
    bad_json(where, "samples times repeat is beyond 2^63");
  }
  return order;
}

void write_run_order(const std::filesystem::path& run_dir, const RunOrder& order) {
  write_file_atomic(run_dir / RunOrder::kFileName, to_json(order).dump(2) + "\n");
}

RunOrder read_run_order(const std::filesystem::path& run_dir) {
  const std::filesystem::path file = run_dir / RunOrder::kFileName;
  if (!std::filesystem::exists(file)) {
    throw Error(ExitCode::kData, file.string(), "file not found",
                "is this the --output folder of an nf-train run?");
  }
  const Json json = Json::parse(read_file(file), nullptr, false);
  if (json.is_discarded()) bad_json(file.string(), "not valid JSON");
  return run_order_from_json(json, file.string());
}

TraceWriter::TraceWriter(const std::filesystem::path& run_dir, uint64_t rank) {
  char name[32];
  std::snprintf(name, sizeof name, "rank_%05llu.tsv", static_cast<unsigned long long>(rank));
  std::error_code error;
  std::filesystem::create_directories(run_dir / "trace", error);
  if (error) throw_io_error(run_dir / "trace", "cannot create", error.value());
  path_ = run_dir / "trace" / name;
  fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_io_error(path_, "cannot open", errno);
  try {
    drop_torn_line(fd_, path_);
  } catch (...) {
    close(fd_);
    throw;
  }
}

TraceWriter::~TraceWriter() { close(fd_); }

void TraceWriter::append(uint64_t step, uint64_t begin, uint64_t positions_per_epoch,
                         std::span<const uint64_t> samples) {
  lines_.clear();
  for (size_t k = 0; k < samples.size(); ++k) {
    append_number(lines_, step, '\t');
    append_number(lines_, begin + k, '\t');
    append_number(lines_, (begin + k) / positions_per_epoch, '\t');
    append_number(lines_, samples[k], '\n');
  }
  for (size_t done = 0; done < lines_.size();) {
    const ssize_t n = write(fd_, lines_.data() + done, lines_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io_error(path_, "cannot write", errno);
    done += static_cast<size_t>(n);
  }
}

}  // namespace nf::data
