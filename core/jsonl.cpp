// See jsonl.h.
#include "core/jsonl.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf {
namespace fs = std::filesystem;

void read_jsonl(const fs::path& file, const std::function<void(const Json&)>& use) {
  std::ifstream in(file);
  std::string line;
  for (size_t number = 1; std::getline(in, line); ++number) {
    const bool whole = !in.eof();  // getline met the newline
    Json object = Json::parse(line, nullptr, false);
    if (object.is_discarded()) {
      if (!whole || in.peek() == std::char_traits<char>::eof()) return;  // torn by a kill
      throw Error(ExitCode::kData, file.string() + ":" + std::to_string(number), "broken JSON line",
                  "the file was edited or damaged; restore it from a copy");
    }
    if (!whole) return;
    use(object);
  }
}

std::vector<Json> read_jsonl(const fs::path& file) {
  std::vector<Json> lines;
  read_jsonl(file, [&](const Json& object) { lines.push_back(object); });
  return lines;
}

JsonlWriter::JsonlWriter(const fs::path& file, const std::function<bool(const Json&)>& keep)
    : path_(file), fd_(-1) {
  if (fs::exists(file)) {
    std::string kept;
    read_jsonl(file, [&](const Json& object) {
      if (!keep || keep(object)) kept += object.dump() + "\n";
    });
    if (kept.size() != fs::file_size(file)) write_file_atomic(file, kept);
  }
  fd_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw_io_error(file, "cannot open", errno);
}

JsonlWriter::~JsonlWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void JsonlWriter::append(const Json& object) {
  const std::string line = object.dump() + "\n";
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io_error(path_, "cannot append", errno);
    done += static_cast<size_t>(n);
  }
}

void JsonlWriter::sync() {
  if (::fsync(fd_) != 0) throw_io_error(path_, "cannot fsync", errno);
}

}  // namespace nf
