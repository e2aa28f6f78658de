// See pack_lock.h.
#include "data_pipeline/pack_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::data {
namespace fs = std::filesystem;

PackLock::PackLock(const fs::path& dataset) : file_(dataset / ".nf-pack.lock") {
  for (;;) {
    fd_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) throw_io_error(file_, "cannot create", errno);
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int e = errno;
      ::close(fd_);
      if (e != EWOULDBLOCK) throw_io_error(file_, "cannot lock", e);
      throw Error(ExitCode::kOther, dataset.string(), "another nf-pack is writing this data set",
                  "wait until it has finished");
    }
    // The holder before us removes the file when it is done; a lock on a removed file guards
    // nothing.
    struct stat ours {
    }, named{};
    if (::fstat(fd_, &ours) == 0 && ::stat(file_.c_str(), &named) == 0 &&
        ours.st_ino == named.st_ino)
      return;
    ::close(fd_);
  }
}

PackLock::~PackLock() {
  ::unlink(file_.c_str());
  ::close(fd_);
}

}  // namespace nf::data
