// See huffman_code.h. Lengths by Huffman's algorithm with two queues; where codes are too long,
// pairs of the longest move up as T.81, K.2 has it. A pretended symbol, rarer than all, takes the
// code of all ones.
#include "data_pipeline/huffman_code.h"

#include <algorithm>
#include <vector>

#include "core/check.h"

namespace nf::data {
namespace {

struct Node {
  uint64_t weight;
  int parent = -1;
};

// How many codes there are of each length, for weights in ascending order.
std::vector<int> code_lengths(const std::vector<uint32_t>& weights) {
  const size_t n = weights.size();
  std::vector<Node> nodes;
  nodes.reserve(2 * n);
  for (const uint32_t w : weights) nodes.push_back({w});
  size_t leaf = 0, inner = n;
  const auto take = [&](int parent) {
    const bool from_leaves =
        leaf < n && (inner >= nodes.size() || nodes[leaf].weight <= nodes[inner].weight);
    Node& node = nodes[from_leaves ? leaf++ : inner++];
    node.parent = parent;
    return node.weight;
  };
  while (nodes.size() < 2 * n - 1) {
    const int parent = static_cast<int>(nodes.size());
    const uint64_t a = take(parent), b = take(parent);
    nodes.push_back({a + b});
  }
  std::vector<int> depth(nodes.size(), 0), count(n + 2, 0);
  for (size_t i = nodes.size() - 1; i-- > 0;)
    depth[i] = depth[static_cast<size_t>(nodes[i].parent)] + 1;
  for (size_t i = 0; i < n; ++i) ++count[static_cast<size_t>(depth[i])];
  return count;
}

// Two of the longest codes become one a bit shorter and one beside a shorter code that is split.
void shorten(std::vector<int>& count, size_t max_length) {
  for (size_t i = count.size() - 1; i > max_length; --i) {
    while (count[i] > 0) {
      size_t j = i - 2;
      while (count[j] == 0) --j;
      count[i] -= 2;
      ++count[i - 1];
      count[j + 1] += 2;
      --count[j];
    }
  }
}

}  // namespace

HuffmanSpec best_huffman_table(const SymbolCounts& counts, int max_length) {
  NF_CHECK(max_length >= 9 && max_length <= 16);
  std::vector<uint8_t> symbols;
  for (size_t s = 0; s < 256; ++s) {
    if (counts[s] > 0) symbols.push_back(static_cast<uint8_t>(s));
  }
  NF_CHECK(!symbols.empty());
  std::stable_sort(symbols.begin(), symbols.end(),
                   [&](uint8_t a, uint8_t b) { return counts[a] > counts[b]; });
  std::vector<uint32_t> weights = {0};  // ascending; the first is the pretended symbol
  for (auto s = symbols.rbegin(); s != symbols.rend(); ++s) weights.push_back(counts[*s]);
  std::vector<int> count = code_lengths(weights);
  shorten(count, static_cast<size_t>(max_length));
  size_t longest = std::min(count.size() - 1, static_cast<size_t>(max_length));
  while (count[longest] == 0) --longest;
  --count[longest];
  HuffmanSpec spec;
  spec.symbols = static_cast<int>(symbols.size());
  std::copy(symbols.begin(), symbols.end(), spec.symbol.begin());
  for (size_t n = 1; n <= longest; ++n) spec.count[n] = static_cast<uint8_t>(count[n]);
  return spec;
}

HuffmanCodes huffman_codes(const HuffmanSpec& spec) {
  HuffmanCodes codes;
  uint32_t code = 0;
  size_t index = 0;
  for (size_t n = 1; n <= 16; ++n, code <<= 1) {
    for (int i = 0; i < spec.count[n]; ++i, ++code) {
      const uint8_t symbol = spec.symbol[index++];
      codes.code[symbol] = static_cast<uint16_t>(code);
      codes.length[symbol] = static_cast<uint8_t>(n);
    }
  }
  return codes;
}

}  // namespace nf::data
