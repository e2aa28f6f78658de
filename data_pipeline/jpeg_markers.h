// A JPEG checked without decoding it: every marker from the first to the last, frame, scans and
// tables, up to the image's end marker; bytes behind it do not matter, as they do not to a decoder.
// The entropy-coded data are passed over, so damage in them is not seen here (nf-pack --check
// headers).
#pragma once

#include <cstdint>
#include <span>

#include "data_pipeline/decode.h"

namespace nf::data {

// Says nothing about what probe_jpeg() finds in the headers: ask that first.
SampleFault check_jpeg_markers(std::span<const uint8_t> bytes, const DecodeLimits& limits);

}  // namespace nf::data
