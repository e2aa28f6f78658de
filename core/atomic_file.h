// Files that are either the old or the new version after any crash: temporary name, fsync, rename,
// fsync of the folder.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace nf {

// Writes the bytes to `file` atomically. Throws Error (exit 1, with the path and the system's
// message; "disk full" gets a hint) and leaves the old file and no temporary one.
void write_file_atomic(const std::filesystem::path& file, std::string_view bytes);

// The whole file. Throws Error (exit 1).
std::string read_file(const std::filesystem::path& file);

void fsync_file(const std::filesystem::path& file);
void fsync_directory(const std::filesystem::path& directory);
// rename(2) and fsync of the parent folder.
void rename_durable(const std::filesystem::path& from, const std::filesystem::path& to);

// The Error for a failed system call on a path; errno_value as the call left it.
[[noreturn]] void throw_io_error(const std::filesystem::path& path, const char* action,
                                 int errno_value);

// An open file for sequential writes; every failure is an Error. close() or finish() reports late
// errors (NFS, quota).
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);  // truncates
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write(const void* data, size_t size);
  void finish();  // fsync and close

 private:
  std::filesystem::path path_;
  int fd_;
};

}  // namespace nf
