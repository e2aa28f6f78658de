// See working_weights.h. A leaf keeps its place in the graph when its memory is exchanged, so hooks
// on it stay.
#include "models/nfnet/working_weights.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "core/check.h"
#include "core/finite.h"
#include "core/host_device.h"
#include "core/vector_loop.h"
#include "models/nfnet/elements.h"
#include "models/nfnet/layers.h"

namespace nf::model {
namespace {

// to, float32 on the CPU, <- from of any type that networks compute in; whether all is finite.
bool copy_and_look(const at::Tensor& from, const at::Tensor& to) {
  const at::Tensor dense = from.contiguous();
  float* const y = to.mutable_data_ptr<float>();
  std::atomic<bool> finite = true;
  with_element_type(from, [&](auto* element) {
    using Element = std::remove_pointer_t<decltype(element)>;
    const auto* const x = static_cast<const Element*>(dense.const_data_ptr());
    at::parallel_for(0, to.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
      uint32_t bad = 0;
      vector_loop([=, &bad]() NF_INLINE {
        uint32_t found = 0;
        for (int64_t i = begin; i < end; ++i) {
          const auto v = static_cast<float>(load(x[i]));
          y[i] = v;
          found |= not_finite(v);
        }
        bad = found;
      });
      if (bad != 0) finite = false;
    });
  });
  return finite;
}

}  // namespace

WorkingWeights::WorkingWeights(const Nfnet& net, at::ScalarType compute)
    : net_(net), type_(compute) {
  const auto& parameters = net.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].role == ParamRole::kGain) continue;  // inside its weight
    const at::Tensor& own = parameters[i].tensor;
    Leaf leaf{.tensor = own, .parameter = i};
    const auto cast_later = [&](bool requires_grad) {
      leaf.tensor = at::empty({0}, own.options().dtype(type_).requires_grad(false));
      leaf.tensor.set_requires_grad(requires_grad);
    };
    if (parameters[i].role == ParamRole::kConvWeight) {
      NF_CHECK(i + 2 < parameters.size() && parameters[i + 2].role == ParamRole::kGain,
               "a convolution's tensors are weight, bias, gain");
      leaf.gain = static_cast<ptrdiff_t>(i) + 2;
      cast_later(own.requires_grad() || parameters[i + 2].tensor.requires_grad());
    } else if (i > 0 && parameters[i - 1].role == ParamRole::kConvWeight &&
               type_ != own.scalar_type()) {
      cast_later(own.requires_grad());
    }
    leaves_.push_back(std::move(leaf));
  }
}

void WorkingWeights::refresh() {
  const at::NoGradGuard no_grad;
  for (Leaf& leaf : leaves_) {
    const at::Tensor& own = net_.parameters()[leaf.parameter].tensor;
    if (leaf.gain < 0) {
      if (leaf.tensor.scalar_type() != own.scalar_type())
        leaf.tensor.set_data(own.detach().to(type_));
      continue;
    }
    const ParameterSpec& spec = net_.parameter_specs()[leaf.parameter];
    leaf.tensor.set_data(
        at::empty({0}, leaf.tensor.options().requires_grad(false)));  // frees first
    leaf.tensor.set_data(standardize(own, net_.parameters()[static_cast<size_t>(leaf.gain)].tensor,
                                     net_.spec().flavour, spec.scale, type_));
  }
}

std::vector<at::Tensor> WorkingWeights::tensors() const {
  std::vector<at::Tensor> tensors;
  for (const Leaf& leaf : leaves_) tensors.push_back(leaf.tensor);
  return tensors;
}

bool WorkingWeights::write_gradient(const Leaf& leaf, const at::Tensor& gradient,
                                    const at::Tensor& of_parameter,
                                    const at::Tensor& of_gain) const {
  const at::NoGradGuard no_grad;
  const bool looks = of_parameter.is_cpu() && of_parameter.scalar_type() == at::kFloat;
  if (leaf.gain < 0) {
    if (looks) return copy_and_look(gradient, of_parameter);
    of_parameter.copy_(gradient);
    return false;
  }
  standardize_backward(net_.parameters()[leaf.parameter].tensor,
                       net_.parameters()[static_cast<size_t>(leaf.gain)].tensor, gradient,
                       net_.spec().flavour, net_.parameter_specs()[leaf.parameter].scale,
                       of_parameter, of_gain);
  return looks && copy_and_look(of_gain, of_gain);  // NaN for a row that is not finite
}

}  // namespace nf::model
