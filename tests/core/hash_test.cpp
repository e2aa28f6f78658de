// Checksums against published answers: CRC32C (RFC 3720, appendix B.4), SHA-256 (FIPS 180-2), XXH3
// (its reference code).
#include "core/hash.h"

#include <gtest/gtest.h>

#include <fstream>
#include <vector>

#include "core/error.h"
#include "tests/support/paths.h"

namespace nf {
namespace {

TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c({}), 0u);
  std::vector<std::byte> block(32, std::byte{0});
  EXPECT_EQ(crc32c(block), 0x8a9136aau);
  std::fill(block.begin(), block.end(), std::byte{0xff});
  EXPECT_EQ(crc32c(block), 0x62a8ab43u);
  for (size_t i = 0; i < 32; ++i) block[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(block), 0x46dd794eu);
}

TEST(Crc32c, PiecesContinueASumWhateverTheirLength) {
  std::vector<std::byte> data(1000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * i >> 3);
  const Bytes all = data;
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{501}, size_t{1000}})
    EXPECT_EQ(crc32c(all.subspan(cut), crc32c(all.first(cut))), crc32c(all));
  data[500] ^= std::byte{1};
  EXPECT_NE(crc32c(data), crc32c(Bytes(all).first(0)));
}

// The processor's instruction runs three stretches side by side from certain lengths on.
TEST(Crc32c, EqualsTheTableForEveryLengthAndAlignment) {
  std::vector<std::byte> data(40000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7 + i / 251);
  const Bytes all = data;
  for (size_t size = 0; size < 3000; ++size)
    ASSERT_EQ(crc32c(all.subspan(size % 9, size), 17),
              crc32c_by_table(all.subspan(size % 9, size), 17));
  for (size_t size = 12200; size < 40000; size += 97)
    ASSERT_EQ(crc32c(all.first(size)), crc32c_by_table(all.first(size)));
}

TEST(Crc32c, JoinsTheSumsOfTwoStretches) {
  const Bytes text = as_bytes("the quick brown fox jumps over the lazy dog");
  for (size_t cut = 0; cut <= text.size(); ++cut)
    EXPECT_EQ(crc32c_joined(crc32c(text.first(cut)), crc32c(text.subspan(cut)), text.size() - cut),
              crc32c(text));
}

TEST(Crc32c, SeesEverySingleBitFlip) {
  std::vector<std::byte> data(64, std::byte{0x5a});
  const uint32_t good = crc32c(data);
  for (size_t bit = 0; bit < data.size() * 8; ++bit) {
    data[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_NE(crc32c(data), good);
    data[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
}

TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(sha256(as_bytes("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 pieces;
  pieces.update(as_bytes("a"));
  pieces.update(as_bytes("bc"));
  EXPECT_EQ(pieces.hex(), sha256(as_bytes("abc")));
}

TEST(Xxh3, KnownAnswers) {
  EXPECT_EQ(xxh3_64({}), 0x2d06800538d394c2u);
  EXPECT_EQ(xxh3_64(as_bytes("a")), 0xe6c632b61e964e1fu);
}

TEST(FileHashes, EqualThoseOfTheBytes) {
  const test::TempDir dir;
  std::string text;  // more than one block of the reader
  for (int i = 0; i < 300000; ++i) text += std::to_string(i);
  std::ofstream(dir / "file", std::ios::binary) << text;
  EXPECT_EQ(xxh3_64_file(dir / "file"), xxh3_64(as_bytes(text)));
  EXPECT_EQ(sha256_file(dir / "file"), sha256(as_bytes(text)));
  EXPECT_THROW(xxh3_64_file(dir / "absent"), Error);
  EXPECT_THROW(sha256_file(dir / "absent"), Error);
}

TEST(ToHex, Has16Digits) {
  EXPECT_EQ(to_hex(0), "0000000000000000");
  EXPECT_EQ(to_hex(0x0123456789abcdefu), "0123456789abcdef");
}

}  // namespace
}  // namespace nf
