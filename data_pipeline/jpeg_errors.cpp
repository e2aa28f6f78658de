// See jpeg_errors.h.
#include "data_pipeline/jpeg_errors.h"

#include <cstring>

#include "data_pipeline/exif.h"

namespace nf::data {
namespace {

[[noreturn]] void on_error(j_common_ptr cinfo) {
  char message[JMSG_LENGTH_MAX];
  cinfo->err->format_message(cinfo, message);
  fail_jpeg(cinfo, message);
}

void on_message(j_common_ptr cinfo, int level) {
  if (level < 0) on_error(cinfo);  // a warning: corrupt data that the library would paper over
}

void on_output(j_common_ptr) {}

}  // namespace

void init_jpeg_errors(JpegErrors& errors) {
  jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = on_message;
  errors.base.output_message = on_output;
  errors.reason[0] = '\0';
}

void fail_jpeg(j_common_ptr cinfo, const char* reason) {
  auto* errors = reinterpret_cast<JpegErrors*>(cinfo->err);
  std::snprintf(errors->reason, sizeof errors->reason, "JPEG: %s", reason);
  std::longjmp(errors->jump, 1);
}

int saved_orientation(const jpeg_decompress_struct& cinfo) {
  static constexpr char kExif[] = "Exif\0";  // and the array's own final zero: six bytes
  for (const auto* marker = cinfo.marker_list; marker != nullptr; marker = marker->next) {
    if (marker->data_length > 6 && std::memcmp(marker->data, kExif, 6) == 0)
      return exif_orientation({marker->data + 6, marker->data_length - 6});
  }
  return 1;
}

}  // namespace nf::data
