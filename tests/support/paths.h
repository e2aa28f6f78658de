// Where tests find golden values, built programs and a scratch folder of their own.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "core/temporary_folder.h"

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
class TempDir : public TemporaryFolder {
 public:
  explicit TempDir(const std::filesystem::path& in = std::filesystem::temp_directory_path())
      : TemporaryFolder("nf-test", in) {}
  std::filesystem::path operator/(const std::string& name) const { return path() / name; }
};

}  // namespace nf::test
