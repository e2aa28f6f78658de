// A fresh folder, removed with everything in it when the object goes (not by SIGKILL).
#pragma once

#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <string>

#include "core/atomic_file.h"

namespace nf {

class TemporaryFolder {
 public:
  // $TMPDIR/NAME-xxxxxx. Throws Error(kOther) when it cannot be made.
  explicit TemporaryFolder(const std::string& name, const std::filesystem::path& in =
                                                        std::filesystem::temp_directory_path()) {
    std::string pattern = (in / (name + "-")).string() + std::string(6, 'X');  // mkdtemp's
    if (::mkdtemp(pattern.data()) == nullptr) throw_io_error(pattern, "cannot create", errno);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace nf
