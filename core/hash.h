// Checksums and fingerprints: CRC32C for samples, XXH3 for checkpoint files, SHA-256 where the user
// compares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace nf {

using Bytes = std::span<const std::byte>;
inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// CRC-32C (Castagnoli, RFC 3720), start and final value inverted. Continue a sum by giving the last
// result as `crc`.
uint32_t crc32c(Bytes data, uint32_t crc = 0);
// The CRC-32C of two stretches, one after the other, from their own.
uint32_t crc32c_joined(uint32_t first, uint32_t second, uint64_t second_bytes);
// crc32c() without the processor's instruction: what other processors run, and a reference.
uint32_t crc32c_by_table(Bytes data, uint32_t crc = 0);

// XXH3, 64 bits, of bytes or of a whole file. Throws Error (exit 1) when the file cannot be read.
uint64_t xxh3_64(Bytes data);
uint64_t xxh3_64_file(const std::filesystem::path& file);

// SHA-256, lower-case hex.
std::string sha256(Bytes data);
std::string sha256_file(const std::filesystem::path& file);

// Streaming SHA-256 for data that comes in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(Bytes data);
  std::string hex();  // call once

 private:
  void* context_;
};

std::string to_hex(uint64_t value);  // 16 digits

}  // namespace nf
