// A part of a network whose inner results are not kept for the backward pass but computed again
// there.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <span>
#include <vector>

namespace nf::model {

// A pure function of an input and parameters (each used as given, nothing drawn, nothing changed).
using Part = std::function<at::Tensor(const at::Tensor& x, std::span<const at::Tensor> parameters)>;

// part(x, parameters), of which only x is kept. Equal bits in the result and in every gradient; the
// price is the part's forward pass once more. What `part` captures lives as long as the graph.
at::Tensor recomputed(const at::Tensor& x, const std::vector<at::Tensor>& parameters, Part part);

}  // namespace nf::model
