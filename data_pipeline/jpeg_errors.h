// How libjpeg's callbacks reach us: every error, and every warning, jumps back to the caller with a
// reason. For the files that call libjpeg; no frame in between may own anything.
#pragma once

#include <csetjmp>
#include <cstdio>

// Before jpeglib.h: it needs <cstdio>, and with JPEG_INTERNALS it includes jpegint.h, the interface
// between libjpeg's own modules, where that is installed.
#if __has_include(<jpegint.h>)
#define JPEG_INTERNALS
#define NF_JPEG_MODULES 1
#else
#define NF_JPEG_MODULES 0
#endif
#include <jpeglib.h>

namespace nf::data {

struct JpegErrors {
  jpeg_error_mgr base;  // first: libjpeg's pointer to it is ours
  std::jmp_buf jump;    // set by the caller before each group of calls
  char reason[JMSG_LENGTH_MAX + 32];
};

void init_jpeg_errors(JpegErrors& errors);
[[noreturn]] void fail_jpeg(j_common_ptr cinfo, const char* reason);

// Of the saved APP1 markers; 1 without any.
int saved_orientation(const jpeg_decompress_struct& cinfo);

}  // namespace nf::data
