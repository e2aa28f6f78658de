// A network's parameters laid into flat arenas: the form in which the gradient sum, the optimizer
// and the checkpoint see them.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "models/nfnet/nfnet.h"
#include "trainer/optim/param_group.h"

namespace nf::train {

// The layout of the network's parameters in their order.
FlatLayout layout_of(const model::Nfnet& net);

// Rebinds the network's parameters to views of `weights`, whose numbers hold from then on, and
// lists them, with the views of `gradients` at the same places where that is defined.
std::vector<Param> bind_params(model::Nfnet& net, const FlatLayout& layout,
                               const at::Tensor& weights, const at::Tensor& gradients = {});

}  // namespace nf::train
