// How fused operations reach their kernels: through PyTorch's dispatcher. Each operation's file
// declares its operators (namespace nfscale) and registers the CPU's kernels; the CUDA plug-in adds
// its own when it is loaded (models/nfnet/cuda/register.cpp). Where a device has none, the
// operation is composed of PyTorch's.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace nf::model {

// The operator "nfscale::name". Look it up once: static const auto op = find_operator<...>(...).
template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Whether the operator has a kernel of ours for tensors like x: on the CPU for float32, float64 and
// bfloat16, on a GPU, once the plug-in is loaded, for float32 and bfloat16.
inline bool has_kernel(const c10::OperatorHandle& op, const at::Tensor& x) {
  if (x.is_cpu()) return true;
  return x.is_cuda() && x.scalar_type() != at::kDouble &&
         op.hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

}  // namespace nf::model
