// EXIF orientation: the one EXIF field that changes pixels. The parser is small and bounded because
// EXIF blocks are the part of an image file that is broken most often: whatever it cannot read
// means "upright" (1), never an error.
#pragma once

#include <cstdint>
#include <span>

#include "data_pipeline/box.h"
#include "data_pipeline/decode.h"

namespace nf::data {

// `tiff`: the EXIF block from its TIFF header ("II" or "MM") on. Gives 1..8; 1 for absent, invalid
// or broken.
int exif_orientation(std::span<const uint8_t> tiff);

// Turns an image stored with EXIF orientation 1..8 upright (EXIF 2.3, tag 0x0112).
void apply_orientation(int orientation, Image& image);

// Where a box of the upright image lies in the stored one of `width` x `height`.
Box stored_box(int orientation, int64_t width, int64_t height, const Box& upright);

// True when the orientation exchanges width and height.
inline bool swaps_sides(int orientation) { return orientation >= 5; }

}  // namespace nf::data
