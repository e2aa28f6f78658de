// See atomic_file.h.
#include "core/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace nf {
namespace fs = std::filesystem;

void throw_io_error(const fs::path& path, const char* action, int e) {
  std::string hint;
  if (e == ENOSPC || e == EDQUOT)
    hint = "the disk or the quota is full: free space, then run the same command again";
  if (e == EACCES || e == EROFS) hint = "the folder must be writable for this user";
  throw Error(ExitCode::kOther, path.string(), std::string(action) + ": " + std::strerror(e), hint);
}

OutputFile::OutputFile(const fs::path& path)
    : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ < 0) throw_io_error(path, "cannot create", errno);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::write(const void* data, size_t size) {
  const char* p = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd_, p, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io_error(path_, "cannot write", errno);
    p += n;
    size -= static_cast<size_t>(n);
  }
}

void OutputFile::finish() {
  if (::fsync(fd_) != 0) throw_io_error(path_, "cannot fsync", errno);
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) throw_io_error(path_, "cannot close", errno);
}

void fsync_file(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_io_error(file, "cannot open", errno);
  const int rc = ::fsync(fd);
  const int e = errno;
  ::close(fd);
  if (rc != 0) throw_io_error(file, "cannot fsync", e);
}

void fsync_directory(const fs::path& directory) {
  fsync_file(directory.empty() ? fs::path(".") : directory);
}

void rename_durable(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    throw_io_error(to, "cannot rename into place", errno);
  fsync_directory(to.parent_path());
}

void write_file_atomic(const fs::path& file, std::string_view bytes) {
  const fs::path temporary = file.string() + ".tmp." + std::to_string(::getpid());
  try {
    OutputFile out(temporary);
    out.write(bytes.data(), bytes.size());
    out.finish();
    rename_durable(temporary, file);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

std::string read_file(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_io_error(file, "cannot open", errno);
  std::string out;
  struct stat st {};
  if (::fstat(fd, &st) == 0 && st.st_size > 0) out.reserve(static_cast<size_t>(st.st_size));
  char block[65536];
  for (;;) {
    const ssize_t n = ::read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int e = errno;
      ::close(fd);
      throw_io_error(file, "cannot read", e);
    }
    if (n == 0) break;
    out.append(block, static_cast<size_t>(n));
  }
  ::close(fd);
  return out;
}

}  // namespace nf
