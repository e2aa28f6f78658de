// LD_PRELOAD library: while the file $NF_FULL_DISK_WHEN exists, writing to files under
// $NF_FULL_DISK_UNDER, and creating them, fails with ENOSPC, as on a full disk. For tests.
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

bool is_under(const char* path) {
  static const char* const under = getenv("NF_FULL_DISK_UNDER");
  return under != nullptr && strncmp(path, under, strlen(under)) == 0;
}

bool is_under(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return false;
  path[n] = 0;
  return is_under(path);
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
