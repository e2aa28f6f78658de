// The best Huffman table for given counts, and its codes.
#pragma once

#include <array>
#include <cstdint>

#include "data_pipeline/jpeg_layout.h"

namespace nf::data {

using SymbolCounts = std::array<uint32_t, 256>;

struct HuffmanCodes {
  std::array<uint16_t, 256> code{};
  std::array<uint8_t, 256> length{};  // 0: the symbol has no code
};

// Codes of at most `max_length` bits (9..16), none of them all ones. At least one count must not be
// zero. Equal counts give equal tables.
HuffmanSpec best_huffman_table(const SymbolCounts& counts, int max_length);
HuffmanCodes huffman_codes(const HuffmanSpec& spec);

}  // namespace nf::data
