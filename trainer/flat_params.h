// A network's parameters laid into one flat arena: the form in which the gradient sum, the
// optimizer and the checkpoint see them.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "models/nfnet/nfnet.h"
#include "trainer/optim/param_group.h"

namespace nf::train {

// The layout of the network's parameters in their order.
FlatLayout layout_of(const model::Nfnet& net);

// Rebinds the network's parameters to views of `weights`, whose numbers hold from then on, and
// lists them, without gradients: those come as one flat buffer of the same layout.
std::vector<Param> bind_params(model::Nfnet& net, const FlatLayout& layout,
                               const at::Tensor& weights);

}  // namespace nf::train
