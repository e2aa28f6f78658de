// See recompute.h. One autograd node a part. Its backward pass runs the part again with gradients
// on, from the kept input, and differentiates that. The parameters go through the node as inputs,
// so their gradients reach the same accumulators as without it.
#include "models/nfnet/recompute.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace nf::model {
namespace {

// A holder that an autograd context can keep.
struct Recipe final : torch::CustomClassHolder {
  explicit Recipe(Part p) : part(std::move(p)) {}
  Part part;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            at::TensorList parameters, const c10::intrusive_ptr<Recipe>& recipe) {
    torch::autograd::variable_list saved = {x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    return recipe->part(x, {parameters.data(), parameters.size()});
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto capsule = ctx->saved_data["recipe"].toCapsule();
    const auto& recipe = static_cast<const Recipe&>(*capsule);
    torch::autograd::variable_list leaves, wanted;
    for (const at::Tensor& input : ctx->get_saved_variables()) {
      const bool needed = ctx->needs_input_grad(leaves.size());
      leaves.push_back(input.detach().set_requires_grad(needed));
      if (needed) wanted.push_back(leaves.back());
    }
    torch::autograd::variable_list found;
    {
      const at::AutoGradMode on(true);
      const at::Tensor y = recipe.part(leaves[0], std::span(leaves).subspan(1));
      found = torch::autograd::grad({y}, wanted, grads);
    }
    torch::autograd::variable_list out(leaves.size() + 1);  // none for the recipe
    size_t next = 0;
    for (size_t i = 0; i < leaves.size(); ++i)
      if (ctx->needs_input_grad(i)) out[i] = found[next++];
    return out;
  }
};

}  // namespace

at::Tensor recomputed(const at::Tensor& x, const std::vector<at::Tensor>& parameters, Part part) {
  return Recompute::apply(x, at::TensorList(parameters),
                          c10::make_intrusive<Recipe>(std::move(part)));
}

}  // namespace nf::model
