// The innermost product of weight_gradient.cpp, for packed tensors of either type: a tile of
// outputs and inputs, summed over pixels in registers.
#pragma once

#include <cstdint>
#include <span>

#include "core/host_device.h"
#include "core/vector_loop.h"

namespace nf::model {

constexpr int64_t kTileOutputs = 16;  // of a tile
constexpr int64_t kTileLanes = 16;    // of a vector

// Pixels that lie side by side in g, and in x too, `stride` apart.
struct Run {
  int64_t g, x, count;  // the first ones' rows
};
using Runs = std::span<const Run>;

// The two types. Of each: what tensors hold (Source); an element of a packed tensor, a channel of a
// pixel of kImages images; inputs of a tile; elements put together from the images' channels, one
// or a vector; and
//   multiply: c[o][i] (+)= sum over the runs of g[o] . x[i], where . multiplies the values of all
//   the element's images and adds. g is [row][kTileOutputs], x [row][kInputs].
struct Bfloat16 {
  using Source = uint16_t;
  using Element = uint32_t;
  static constexpr int64_t kImages = 2, kInputs = 32;

  NF_INLINE static Element together(const Source* const* from, int64_t c) {
    return from[0][c] | Element{from[1][c]} << 16;
  }
  NF_INLINE static void together(const Source* const* from, int64_t c, Element* to) {
    using Halves [[gnu::vector_size(kTileLanes * sizeof(Source))]] = Source;
    using Words [[gnu::vector_size(kTileLanes * sizeof(Element))]] = Element;
    Halves low, high;
    __builtin_memcpy(&low, from[0] + c, sizeof low);
    __builtin_memcpy(&high, from[1] + c, sizeof high);
    const Words both = __builtin_convertvector(low, Words) | __builtin_convertvector(high, Words)
                                                                 << 16;
    __builtin_memcpy(to, &both, sizeof both);
  }
  NF_INLINE static float sum(Element e) { return first(e) + second(e); }
  static void multiply(const Element* g, const Element* x, Runs runs, int64_t stride, bool add,
                       float* c);
  NF_INLINE static float first(Element e) { return bits_as<float>(e << 16); }
  NF_INLINE static float second(Element e) { return bits_as<float>(e & 0xffff0000U); }
  NF_INLINE static float product(Element a, Element b, float sum) {
    return (sum + second(a) * second(b)) + first(a) * first(b);
  }
};

struct Float32 {
  using Source = float;
  using Element = float;
  static constexpr int64_t kImages = 1, kInputs = 16;

  NF_INLINE static Element together(const Source* const* from, int64_t c) { return from[0][c]; }
  NF_INLINE static void together(const Source* const* from, int64_t c, Element* to) {
    __builtin_memcpy(to, from[0] + c, kTileLanes * sizeof *to);
  }
  NF_INLINE static float sum(Element e) { return e; }
  static void multiply(const Element* g, const Element* x, Runs runs, int64_t stride, bool add,
                       float* c);
  NF_INLINE static float product(Element a, Element b, float sum) { return sum + a * b; }
};

// sums[i] += the sums of the other parts, which lie n apart, one part after the other; on all
// threads.
void add_parts(float* sums, int64_t n, int64_t parts);

}  // namespace nf::model
