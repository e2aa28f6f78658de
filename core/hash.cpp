// See hash.h.
#include "core/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "core/check.h"
#include "core/error.h"

namespace nf {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected

using Crc32cTables = std::array<std::array<uint32_t, 256>, 8>;

const Crc32cTables& crc32c_tables() {
  static const auto tables = [] {
    auto t = std::make_unique<Crc32cTables>();
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1) ? (c >> 1) ^ kPolynomial : c >> 1;
      (*t)[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; ++i)
      for (int s = 1; s < 8; ++s)
        (*t)[s][i] = ((*t)[s - 1][i] >> 8) ^ (*t)[0][(*t)[s - 1][i] & 255];
    return t;
  }();
  return *tables;
}

uint32_t crc32c_portable(const unsigned char* p, size_t n, uint32_t c) {  // slicing by 8
  const Crc32cTables& t = crc32c_tables();
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    v ^= c;
    c = t[7][v & 255] ^ t[6][v >> 8 & 255] ^ t[5][v >> 16 & 255] ^ t[4][v >> 24 & 255] ^
        t[3][v >> 32 & 255] ^ t[2][v >> 40 & 255] ^ t[1][v >> 48 & 255] ^ t[0][v >> 56];
  }
  for (; n > 0; --n) c = (c >> 8) ^ t[0][(c ^ *p++) & 255];
  return c;
}

// Polynomials over GF(2) modulo CRC32C's, bit 31 = x^0 (the reflected order of the CRC itself).
constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = uint32_t{1} << 31; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = (b & 1) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// x^(8 n): multiplying a CRC by it appends n zero bytes.
constexpr uint32_t power_of_bytes(uint64_t n) {
  uint32_t result = uint32_t{1} << 31;        // x^0
  uint32_t square = uint32_t{1} << (31 - 8);  // x^8
  for (; n != 0; n >>= 1, square = multiply(square, square)) {
    if ((n & 1) != 0) result = multiply(result, square);
  }
  return result;
}

#if defined(__x86_64__)
// Appends `Bytes` zero bytes to a CRC by four look-ups.
template <uint64_t Bytes>
uint32_t append_zeros(uint32_t crc) {
  static const auto table = [] {
    constexpr uint32_t kPower = power_of_bytes(Bytes);
    std::array<std::array<uint32_t, 256>, 4> t{};
    for (uint32_t k = 0; k < 4; ++k)
      for (uint32_t i = 0; i < 256; ++i) t[k][i] = multiply(kPower, i << (8 * k));
    return t;
  }();
  return table[0][crc & 255] ^ table[1][crc >> 8 & 255] ^ table[2][crc >> 16 & 255] ^
         table[3][crc >> 24];
}

inline uint64_t load64(const unsigned char* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}

// The instruction takes 3 cycles but a new one can begin in each: three neighbouring stretches of
// `Stretch` bytes run side by side, and their sums are joined at the end. Eats whole triples.
template <uint64_t Stretch>
__attribute__((target("sse4.2"))) uint32_t crc32c_three_ways(const unsigned char*& p, size_t& n,
                                                             uint32_t crc) {
  while (n >= 3 * Stretch) {
    uint64_t a = crc, b = 0, c = 0;
    for (const unsigned char* end = p + Stretch; p != end; p += 8) {
      a = __builtin_ia32_crc32di(a, load64(p));
      b = __builtin_ia32_crc32di(b, load64(p + Stretch));
      c = __builtin_ia32_crc32di(c, load64(p + 2 * Stretch));
    }
    crc = append_zeros<Stretch>(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
    crc = append_zeros<Stretch>(crc) ^ static_cast<uint32_t>(c);
    p += 2 * Stretch;
    n -= 3 * Stretch;
  }
  return crc;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(const unsigned char* p, size_t n,
                                                        uint32_t c) {
  c = crc32c_three_ways<4096>(p, n, c);
  c = crc32c_three_ways<256>(p, n, c);
  uint64_t wide = c;
  for (; n >= 8; n -= 8, p += 8) wide = __builtin_ia32_crc32di(wide, load64(p));
  c = static_cast<uint32_t>(wide);
  for (; n > 0; --n) c = __builtin_ia32_crc32qi(c, *p++);
  return c;
}
#endif

// Reads the file in blocks of 1 MiB.
void for_each_block(const std::filesystem::path& file, const std::function<void(Bytes)>& use) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error(ExitCode::kOther, file.string(), std::strerror(errno));
  std::vector<std::byte> block(1 << 20);
  for (;;) {
    const ssize_t n = ::read(fd, block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int e = errno;
      ::close(fd);
      throw Error(ExitCode::kOther, file.string(), std::string("cannot read: ") + std::strerror(e));
    }
    if (n == 0) break;
    use({block.data(), static_cast<size_t>(n)});
  }
  ::close(fd);
}

}  // namespace

uint32_t crc32c(Bytes data, uint32_t crc) {
  const auto* p = reinterpret_cast<const unsigned char*>(data.data());
#if defined(__x86_64__)
  static const bool hardware = __builtin_cpu_supports("sse4.2");
  if (hardware) return ~crc32c_sse42(p, data.size(), ~crc);
#endif
  return crc32c_by_table(data, crc);
}

uint32_t crc32c_joined(uint32_t first, uint32_t second, uint64_t second_bytes) {
  return multiply(power_of_bytes(second_bytes), first) ^ second;
}

uint32_t crc32c_by_table(Bytes data, uint32_t crc) {
  return ~crc32c_portable(reinterpret_cast<const unsigned char*>(data.data()), data.size(), ~crc);
}

uint64_t xxh3_64(Bytes data) { return XXH3_64bits(data.data(), data.size()); }

uint64_t xxh3_64_file(const std::filesystem::path& file) {
  XXH3_state_t* state = XXH3_createState();
  NF_CHECK(state != nullptr);
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> owner(state, &XXH3_freeState);
  XXH3_64bits_reset(state);
  for_each_block(file, [&](Bytes b) { XXH3_64bits_update(state, b.data(), b.size()); });
  return XXH3_64bits_digest(state);
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  NF_CHECK(context_ != nullptr);
  NF_CHECK(EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::update(Bytes data) {
  NF_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data.data(), data.size()) == 1);
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest{};
  unsigned size = 0;
  NF_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &size) == 1);
  std::string out;
  for (const unsigned char b : digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

std::string sha256(Bytes data) {
  Sha256 h;
  h.update(data);
  return h.hex();
}

std::string sha256_file(const std::filesystem::path& file) {
  Sha256 h;
  for_each_block(file, [&](Bytes b) { h.update(b); });
  return h.hex();
}

std::string to_hex(uint64_t value) {
  std::string out(16, '0');
  for (int i = 15; i >= 0; --i, value >>= 4)
    out[static_cast<size_t>(i)] = "0123456789abcdef"[value & 15];
  return out;
}

}  // namespace nf
