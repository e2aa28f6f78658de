// See tensorboard.h. Formats: tensorflow/core/util/event.proto, summary.proto; TFRecord: length,
// masked CRC of the length, data, masked CRC of the data.
#include "trainer/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/atomic_file.h"
#include "core/hash.h"

namespace nf::train {
namespace {

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  out += static_cast<char>(value);
}
void put_tag(std::string& out, int field, int wire) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire));
}
template <class T>
void put_fixed(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_bytes(std::string& out, int field, const std::string& bytes) {
  put_tag(out, field, 2);
  put_varint(out, bytes.size());
  out += bytes;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(as_bytes(bytes));
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& directory, uint64_t first_step) : fd_(-1) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::filesystem::create_directories(directory);
  path_ =
      directory / ("events.out.tfevents." + std::to_string(static_cast<int64_t>(wall_seconds())) +
                   "." + host.data() + "." + std::to_string(getpid()));
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw_io_error(path_, "cannot create", errno);
  std::string version;
  put_bytes(version, 3, "brain.Event:2");
  write_event(0, version);
  std::string status, session;
  put_tag(status, 1, 0);
  put_varint(status, 1);  // SessionLog.START
  put_bytes(session, 7, status);
  write_event(first_step, session);
}

EventFile::~EventFile() {
  if (fd_ >= 0) ::close(fd_);
}

void EventFile::add(uint64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [name, value] : scalars) {
    std::string entry;
    put_bytes(entry, 1, name);
    put_tag(entry, 2, 5);
    put_fixed(entry, static_cast<float>(value));
    put_bytes(summary, 1, entry);
  }
  std::string payload;
  put_bytes(payload, 5, summary);
  write_event(step, payload);
}

void EventFile::write_event(uint64_t step, const std::string& payload) {
  std::string event;
  put_tag(event, 1, 1);
  put_fixed(event, wall_seconds());
  put_tag(event, 2, 0);
  put_varint(event, step);
  event += payload;
  std::string length, record;
  put_fixed(length, static_cast<uint64_t>(event.size()));
  record = length;
  put_fixed(record, masked_crc(length));
  record += event;
  put_fixed(record, masked_crc(event));
  if (::write(fd_, record.data(), record.size()) != static_cast<ssize_t>(record.size()))
    throw_io_error(path_, "cannot write", errno);
}

}  // namespace nf::train
