// See named_tensors.h.
#include "trainer/checkpoint/named_tensors.h"

#include <array>
#include <utility>

#include "core/check.h"

namespace nf::train {
namespace {

constexpr std::array<std::pair<Dtype, at::ScalarType>, 10> kTypes = {{
    {Dtype::kF64, at::kDouble},
    {Dtype::kF32, at::kFloat},
    {Dtype::kF16, at::kHalf},
    {Dtype::kBF16, at::kBFloat16},
    {Dtype::kI64, at::kLong},
    {Dtype::kI32, at::kInt},
    {Dtype::kI16, at::kShort},
    {Dtype::kI8, at::kChar},
    {Dtype::kU8, at::kByte},
    {Dtype::kBool, at::kBool},
}};

Dtype dtype_of(const NamedTensor& t) {
  for (const auto& [dtype, type] : kTypes)
    if (type == t.tensor.scalar_type()) return dtype;
  NF_CHECK(false, t.name + " has a type that safetensors files cannot hold");
  return Dtype::kF32;
}

at::ScalarType scalar_type_of(Dtype dtype) {
  for (const auto& [d, type] : kTypes)
    if (d == dtype) return type;
  NF_CHECK(false);
  return at::kFloat;
}

}  // namespace

FileDigest write_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors,
                         const Metadata& metadata) {
  std::vector<TensorBytes> out;
  out.reserve(tensors.size());
  for (const NamedTensor& t : tensors) {
    NF_CHECK(t.tensor.defined() && t.tensor.is_cpu() && t.tensor.is_contiguous(),
             t.name + " must be a contiguous CPU tensor");
    out.push_back({t.name,
                   dtype_of(t),
                   t.tensor.sizes().vec(),
                   {static_cast<const std::byte*>(t.tensor.const_data_ptr()), t.tensor.nbytes()}});
  }
  return write_tensor_file(file, out, metadata);
}

LoadedTensors read_tensors(const std::filesystem::path& file) {
  LoadedTensors out;
  TensorFileContents contents = read_tensor_file(file, [&](const TensorInfo& info) {
    const at::Tensor tensor = at::empty(info.shape, at::TensorOptions(scalar_type_of(info.dtype)));
    out.tensors.push_back({info.name, tensor});
    return std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes());
  });
  out.metadata = std::move(contents.info.metadata);
  out.digest = contents.digest;
  return out;
}

}  // namespace nf::train
