// See hdf5_source.h.
#include "data_pipeline/hdf5_source.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <mutex>
#include <opencv2/imgcodecs.hpp>
#include <optional>

#include "core/error.h"
#include "data_pipeline/hdf5_handle.h"
#include "data_pipeline/shard_format.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLayouts =
    "docs/data_format.md, \"HDF5 files of others\", has the accepted names and layouts";
constexpr size_t kChunkCache = size_t{64} << 20;  // bytes; a chunk of images is unpacked once
constexpr uint64_t kMaxSampleBytes = uint64_t{256} << 20;

enum class Layout { kVariableLength, kPixels, kOffsets };

std::vector<hsize_t> dims_of(hid_t set) {
  const Hdf5Handle space(H5Dget_space(set), H5Sclose, "no space");
  const int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> dims(static_cast<size_t>(std::max(rank, 0)));
  if (rank > 0) H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  return dims;
}

// An open array and what is known of it.
struct Array {
  Array(hid_t id, const char* name)
      : set(id, H5Dclose, name), dims(dims_of(id)), type(H5Dget_type(id), H5Tclose, name) {}

  Hdf5Handle set;
  std::vector<hsize_t> dims;
  Hdf5Handle type;
  H5T_class_t kind = H5Tget_class(type);
  size_t element = H5Tget_size(type);  // bytes
};

// The first of these names that is an array at the root of the file.
std::unique_ptr<const Array> open_first(hid_t file, const std::vector<const char*>& names) {
  for (const char* name : names) {
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0) continue;
    const Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose, name);
    hdf5_check(H5Pset_chunk_cache(access, 12421, kChunkCache, 1.0), name);
    const hid_t id = H5Dopen2(file, name, access);
    if (id < 0) continue;  // a group
    return std::make_unique<const Array>(id, name);
  }
  return nullptr;
}

// Sample i of an array whose first dimension counts samples, in the memory type given.
void read_one(const Array& array, uint64_t i, hid_t type, void* to) {
  std::vector<hsize_t> start(array.dims.size(), 0), count = array.dims;
  start[0] = i;
  count[0] = 1;
  const Hdf5Handle space(H5Dget_space(array.set), H5Sclose, "no space");
  hdf5_check(
      H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
      "cannot select");
  const Hdf5Handle memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr),
                          H5Sclose, "no space");
  hdf5_check(H5Dread(array.set, type, memory, space, H5P_DEFAULT, to), "HDF5 cannot read it");
}

template <class Integer>
std::vector<Integer> read_integers(const Array& array, hid_t type) {
  uint64_t count = 1;
  for (const hsize_t d : array.dims) count *= d;
  std::vector<Integer> values(count);
  hdf5_check(H5Dread(array.set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
             "HDF5 cannot read an array of integers");
  return values;
}

// One text a sample, of fixed or variable length.
std::vector<std::string> read_texts(const Array& array) {
  const hid_t type = array.type;
  std::vector<std::string> texts;
  const uint64_t n = array.dims[0];
  if (H5Tis_variable_str(type) > 0) {
    std::vector<char*> pointers(n, nullptr);
    const Hdf5Handle space(H5Dget_space(array.set), H5Sclose, "no space");
    hdf5_check(H5Dread(array.set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()),
               "HDF5 cannot read the labels");
    for (const char* p : pointers) texts.emplace_back(p != nullptr ? p : "");
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data());
    return texts;
  }
  const size_t size = H5Tget_size(type);
  std::vector<char> bytes(n * size);
  hdf5_check(H5Dread(array.set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()),
             "HDF5 cannot read the labels");
  for (uint64_t i = 0; i < n; ++i) {
    const char* begin = bytes.data() + i * size;
    texts.emplace_back(begin, ::strnlen(begin, size));
    while (!texts.back().empty() && texts.back().back() == ' ') texts.back().pop_back();
  }
  return texts;
}

bool is_bytes(const Array& a) { return a.kind == H5T_INTEGER && a.element == 1; }

}  // namespace

bool is_hdf5(const fs::path& file) {
  static constexpr std::array<char, 8> kSignature = {'\x89', 'H',  'D',    'F',
                                                     '\r',   '\n', '\x1a', '\n'};
  std::ifstream in(file, std::ios::binary);
  for (std::streamoff at : {0, 512, 1024, 2048, 4096}) {
    std::array<char, 8> head{};
    in.clear();
    in.seekg(at);
    if (in.read(head.data(), head.size()) && head == kSignature) return true;
  }
  return false;
}

struct Hdf5Source::Impl {
  std::optional<Hdf5Handle> file;
  std::unique_ptr<const Array> images;
  Layout layout = Layout::kPixels;
  uint64_t samples = 0;
  int height = 0, width = 0, channels = 0;  // kPixels
  std::vector<uint64_t> offset;             // kOffsets
  std::vector<std::vector<int32_t>> indices;
  std::vector<std::string> names;

  explicit Impl(const fs::path& path)
      : file(std::in_place, H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
             "not a readable HDF5 file") {
    find_images();
    find_labels();
  }

  void find_images() {
    images = open_first(*file, {"images", "image", "data", "x", "X", "jpeg"});
    if (!images || images->dims.empty())
      throw Hdf5Failure("no array named images, image, data, x, X or jpeg");
    const auto& dims = images->dims;
    samples = dims[0];
    if (images->kind == H5T_VLEN && dims.size() == 1) {
      layout = Layout::kVariableLength;
    } else if (is_bytes(*images) && (dims.size() == 3 || dims.size() == 4)) {
      layout = Layout::kPixels;
      channels = dims.size() == 4 ? static_cast<int>(std::min<hsize_t>(dims[3], 99)) : 1;
      if (dims[1] == 0 || dims[2] == 0 || dims[1] > 65'535 || dims[2] > 65'535 ||
          (channels != 1 && channels != 3))
        throw Hdf5Failure(
            "pixels must be [n, height, width, 3], [n, height, width, 1] or "
            "[n, height, width]");
      height = static_cast<int>(dims[1]);
      width = static_cast<int>(dims[2]);
    } else if (is_bytes(*images) && dims.size() == 1) {
      find_offsets();
    } else {
      throw Hdf5Failure("the images are neither variable-length bytes nor uint8 pixels");
    }
    if (samples == 0) throw Hdf5Failure("the file holds no samples");
  }

  // All files one after another, as in a shard.
  void find_offsets() {
    layout = Layout::kOffsets;
    const auto ends = open_first(*file, {"offset", "offsets"});
    if (!ends || ends->kind != H5T_INTEGER || ends->dims.size() != 1 || ends->dims[0] < 2)
      throw Hdf5Failure("a one-dimensional array of bytes needs an array named offset");
    offset = read_integers<uint64_t>(*ends, H5T_NATIVE_UINT64);
    samples = offset.size() - 1;
    for (uint64_t i = 0; i < samples; ++i)
      if (offset[i] > offset[i + 1] || offset[i + 1] > images->dims[0])
        throw Hdf5Failure("the offsets do not fit the bytes");
  }

  void find_labels() {
    const auto labels = open_first(*file, {"labels", "label", "targets", "target", "y", "Y"});
    if (!labels || labels->dims.empty())
      throw Hdf5Failure("no array named labels, label, targets, target, y or Y");
    const auto starts = open_first(*file, {"label_offset"});
    uint64_t count = 1;
    for (const hsize_t d : labels->dims) count *= d;
    if (labels->kind == H5T_STRING && labels->dims.size() == 1 && count == samples) {
      names = read_texts(*labels);
      return;
    }
    if (labels->kind != H5T_INTEGER) throw Hdf5Failure("labels must be integers or text");
    const auto values = read_integers<int32_t>(*labels, H5T_NATIVE_INT32);
    std::vector<uint64_t> bounds(samples + 1);
    for (uint64_t i = 0; i <= samples; ++i) bounds[i] = i;
    if (starts && starts->kind == H5T_INTEGER && starts->dims.size() == 1)
      bounds = read_integers<uint64_t>(*starts, H5T_NATIVE_UINT64);
    if (bounds.size() != samples + 1 || bounds.back() != count)
      throw Hdf5Failure(std::to_string(count) + " labels for " + std::to_string(samples) +
                        " images");
    for (uint64_t i = 0; i < samples; ++i) {
      if (bounds[i] >= bounds[i + 1] || bounds[i + 1] > count)
        throw Hdf5Failure("the label offsets do not fit the labels");
      indices.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(bounds[i]),
                           values.begin() + static_cast<std::ptrdiff_t>(bounds[i + 1]));
    }
  }

  void read_bytes(uint64_t i, std::vector<uint8_t>& out) const {
    if (layout == Layout::kPixels) {
      out.resize(static_cast<size_t>(height) * static_cast<size_t>(width * channels));
      return read_one(*images, i, H5T_NATIVE_UINT8, out.data());
    }
    if (layout == Layout::kOffsets) {
      const hsize_t start = offset[i], count = offset[i + 1] - offset[i];
      if (count > kMaxSampleBytes) throw Hdf5Failure("file larger than 256 MiB");
      out.resize(count);
      if (count == 0) return;
      const Hdf5Handle space(H5Dget_space(images->set), H5Sclose, "no space");
      hdf5_check(H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &count, nullptr),
                 "cannot select");
      const Hdf5Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose, "no space");
      hdf5_check(H5Dread(images->set, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, out.data()),
                 "HDF5 cannot read it");
      return;
    }
    const Hdf5Handle type(H5Tvlen_create(H5T_NATIVE_UINT8), H5Tclose, "no type");
    hvl_t bytes{};
    read_one(*images, i, type, &bytes);
    const auto* begin = static_cast<const uint8_t*>(bytes.p);
    out.assign(begin, begin + bytes.len);
    const hsize_t one = 1;
    const Hdf5Handle memory(H5Screate_simple(1, &one, nullptr), H5Sclose, "no space");
    H5Dvlen_reclaim(type, memory, H5P_DEFAULT, &bytes);  // it would leak otherwise
  }
};

Hdf5Source::Hdf5Source(const fs::path& file) {
  const std::lock_guard lock(hdf5_mutex());
  hdf5_begin();
  try {
    impl_ = std::make_unique<Impl>(file);
  } catch (const Hdf5Failure& e) {
    throw Error(ExitCode::kData, file.string(), e.what(), kLayouts);
  }
}

Hdf5Source::~Hdf5Source() {
  const std::lock_guard lock(hdf5_mutex());
  impl_.reset();
}

uint64_t Hdf5Source::size() const { return impl_->samples; }
const std::vector<std::vector<int32_t>>& Hdf5Source::label_indices() const {
  return impl_->indices;
}
const std::vector<std::string>& Hdf5Source::label_names() const { return impl_->names; }

SampleFault Hdf5Source::read(uint64_t i, std::vector<uint8_t>& out) const {
  try {
    const std::lock_guard lock(hdf5_mutex());
    impl_->read_bytes(i, out);
  } catch (const Hdf5Failure& e) {
    return {e.what()};
  }
  if (impl_->layout != Layout::kPixels) return {};
  cv::Mat pixels(impl_->height, impl_->width, impl_->channels == 3 ? CV_8UC3 : CV_8UC1, out.data());
  if (impl_->channels == 3) {  // OpenCV's order is blue, green, red
    for (size_t k = 0; k < out.size(); k += 3) std::swap(out[k], out[k + 2]);
  }
  std::vector<uint8_t> png;
  if (!cv::imencode(".png", pixels, png)) return {"cannot be written as PNG"};
  out = std::move(png);
  return {};
}

}  // namespace nf::data
