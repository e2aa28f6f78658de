// The launches behind fused_update.h.
#pragma once

#include <cuda_runtime_api.h>

#include "trainer/optim/cuda/fused_update.h"

namespace nf::train::cuda {

cudaError_t fused_update(const FusedUpdate& update, cudaStream_t stream);

}  // namespace nf::train::cuda
