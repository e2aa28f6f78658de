// Where tests find golden values, built programs and a scratch folder of their own.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace nf::test {

inline std::filesystem::path source_dir() { return NF_SOURCE_DIR; }
inline std::filesystem::path golden(const std::string& name) {
  return source_dir() / "tests/golden" / name;
}
inline std::filesystem::path program(const std::string& name) {
  return std::filesystem::path(NF_BIN_DIR) / name;
}

// The shared data of the workplace beside the checkout, or an empty path where it is absent. Tests
// must do without it.
inline std::filesystem::path shared_data() {
  const auto p = source_dir().parent_path() / "shared/data";
  return std::filesystem::exists(p) ? p : std::filesystem::path();
}

// A folder in memory where there is one: for tests that sync thousands of times.
inline std::filesystem::path memory_directory() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path();
}

// A fresh folder, removed with everything in it when the object goes.
class TempDir {
 public:
  explicit TempDir(const std::filesystem::path& in = std::filesystem::temp_directory_path()) {
    std::string pattern = (in / "nf-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace nf::test
