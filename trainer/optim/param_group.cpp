// See param_group.h.
#include "trainer/optim/param_group.h"

#include "core/check.h"

namespace nf::train {

FlatLayout::FlatLayout(const std::vector<std::vector<int64_t>>& shapes) : shapes_(shapes) {
  offsets_.reserve(shapes_.size());
  for (const auto& shape : shapes_) {
    size_t count = 1;
    for (const int64_t extent : shape) {
      NF_CHECK(extent >= 0, "negative extent in a shape");
      count *= static_cast<size_t>(extent);
    }
    offsets_.push_back(elements_);
    elements_ += (count + kAlignment - 1) / kAlignment * kAlignment;
  }
}

size_t FlatLayout::offset(size_t i) const {
  NF_CHECK(i < offsets_.size());
  return offsets_[i];
}

const std::vector<int64_t>& FlatLayout::shape(size_t i) const {
  NF_CHECK(i < shapes_.size());
  return shapes_[i];
}

size_t FlatLayout::length(size_t i) const {
  size_t length = 1;
  for (const int64_t extent : shape(i)) length *= static_cast<size_t>(extent);
  return length;
}

at::Tensor FlatLayout::make_arena(at::TensorOptions options) const {
  return at::zeros({static_cast<int64_t>(elements_)}, options);
}

at::Tensor FlatLayout::view(const at::Tensor& arena, size_t i) const {
  NF_CHECK(
      arena.dim() == 1 && arena.is_contiguous() && arena.numel() >= static_cast<int64_t>(elements_),
      "the arena is not a flat buffer of this layout");
  // One operation; narrow and view are four, and a step asks hundreds of times.
  std::vector<int64_t> strides(shape(i).size());
  int64_t stride = 1;
  for (size_t d = strides.size(); d-- > 0; stride *= shape(i)[d]) strides[d] = stride;
  return arena.as_strided(shape(i), strides,
                          arena.storage_offset() + static_cast<int64_t>(offset(i)));
}

std::vector<at::Tensor> FlatLayout::views(const at::Tensor& arena) const {
  std::vector<at::Tensor> out;
  out.reserve(size());
  for (size_t i = 0; i < size(); ++i) out.push_back(view(arena, i));
  return out;
}

FlatLayout layout_of(const std::vector<Param>& params) {
  std::vector<std::vector<int64_t>> shapes;
  shapes.reserve(params.size());
  for (const Param& p : params) shapes.push_back(p.value.sizes().vec());
  return FlatLayout(shapes);
}

}  // namespace nf::train
