// LD_PRELOAD library for tests. While the file $NF_FULL_DISK_WHEN exists, writing to files under
// $NF_FULL_DISK_UNDER, and creating them, fails with ENOSPC, as on a full disk. While the file
// $NF_STALL_WHEN exists, reading files whose path begins with $NF_STALL_UNDER does not return, as
// from a dead file server; with $NF_STALL_RANK only in that rank of an mpirun job.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

namespace {

bool is_full() {
  static const char* const when = getenv("NF_FULL_DISK_WHEN");
  return when != nullptr && access(when, F_OK) == 0;
}

bool begins_with(const char* path, const char* prefix) {
  return prefix != nullptr && strncmp(path, prefix, strlen(prefix)) == 0;
}

bool begins_with(int fd, const char* prefix) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return false;
  path[n] = 0;
  return begins_with(path, prefix);
}

template <class File>
bool is_under(File file) {
  static const char* const under = getenv("NF_FULL_DISK_UNDER");
  return begins_with(file, under);
}

// Returns when the read may go on.
void stall(int fd) {
  static const char* const when = getenv("NF_STALL_WHEN");
  static const char* const under = getenv("NF_STALL_UNDER");
  static const char* const only = getenv("NF_STALL_RANK");
  static const char* const rank = getenv("OMPI_COMM_WORLD_RANK");
  if (when == nullptr || (only != nullptr && rank != nullptr && strcmp(only, rank) != 0)) return;
  while (access(when, F_OK) == 0 && begins_with(fd, under)) usleep(20000);
}

template <class F>
F* real(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* data, size_t size) {
  static auto* const next = real<ssize_t(int, const void*, size_t)>("write");
  if (is_full() && is_under(fd)) {
    errno = ENOSPC;
    return -1;
  }
  return next(fd, data, size);
}

ssize_t pread(int fd, void* data, size_t size, off_t at) {
  static auto* const next = real<ssize_t(int, void*, size_t, off_t)>("pread");
  stall(fd);
  return next(fd, data, size, at);
}

ssize_t pread64(int fd, void* data, size_t size, off64_t at) { return pread(fd, data, size, at); }

int open(const char* path, int flags, ...) {
  static auto* const next = real<int(const char*, int, ...)>("open");
  va_list rest;
  va_start(rest, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
  va_end(rest);
  if ((flags & O_CREAT) != 0 && is_under(path) && is_full() && access(path, F_OK) != 0) {
    errno = ENOSPC;
    return -1;
  }
  return next(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
  va_end(rest);
  return open(path, flags, mode);
}
}
