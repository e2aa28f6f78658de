// One nf-pack at a time on a data set: a lock file that the system releases when the process dies,
// however it dies.
#pragma once

#include <filesystem>

namespace nf::data {

class PackLock {
 public:
  // Throws Error (exit 1) when another process holds the lock or the folder is not writable.
  explicit PackLock(const std::filesystem::path& dataset);
  ~PackLock();  // removes the file
  PackLock(const PackLock&) = delete;
  PackLock& operator=(const PackLock&) = delete;

 private:
  std::filesystem::path file_;
  int fd_ = -1;
};

}  // namespace nf::data
