// See memfd.h.
#include "trainer/comm/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

namespace nf::train {
namespace {

[[noreturn]] void throw_errno(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

void MemfdBlock::map(int fd) {
  map_ = ::mmap(nullptr, kHead + address_.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map_ == MAP_FAILED) {
    map_ = nullptr;
    throw_errno("mmap of shared gradient memory");
  }
}

MemfdBlock::MemfdBlock(size_t bytes) {
  address_.bytes = bytes;
  address_.pid = ::getpid();
  if (::getrandom(&address_.token, sizeof address_.token, 0) != sizeof address_.token)
    throw_errno("getrandom");
  own_fd_ = ::memfd_create("nfscale gradients", MFD_CLOEXEC);
  if (own_fd_ < 0) throw_errno("memfd_create");
  address_.fd = own_fd_;
  try {
    if (::ftruncate(own_fd_, static_cast<off_t>(kHead + bytes)) != 0) throw_errno("ftruncate");
    map(own_fd_);
  } catch (...) {
    ::close(own_fd_);
    throw;
  }
  std::memcpy(map_, &address_.token, sizeof address_.token);
}

MemfdBlock::MemfdBlock(const MemfdAddress& address) : address_(address) {
  const std::string path =
      "/proc/" + std::to_string(address.pid) + "/fd/" + std::to_string(address.fd);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw_errno(path);
  try {
    struct stat info {};
    if (::fstat(fd, &info) != 0) throw_errno(path);
    if (!S_ISREG(info.st_mode) || info.st_size != static_cast<off_t>(kHead + address.bytes)) {
      errno = ENXIO;  // a process of another host or namespace has this number here
      throw_errno(path);
    }
    map(fd);
    if (std::memcmp(map_, &address.token, sizeof address.token) != 0) {
      ::munmap(map_, kHead + address_.bytes);
      errno = ENXIO;
      throw_errno(path);
    }
  } catch (...) {
    ::close(fd);
    throw;
  }
  ::close(fd);  // the mapping keeps the memory
}

MemfdBlock::~MemfdBlock() {
  if (map_) ::munmap(map_, kHead + address_.bytes);
  if (own_fd_ >= 0) ::close(own_fd_);
}

}  // namespace nf::train
