// recomputed_block of block.h: one autograd node a block. Its backward pass runs the block's
// forward pass again with gradients on, from the kept input, and differentiates that. The
// parameters go through the node as inputs, so their gradients reach the same accumulators as
// without it.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/check.h"
#include "models/nfnet/block.h"

namespace nf::model {
namespace {

// What the backward pass needs beside tensors. The network outlives its graphs, but a graph must
// not depend on that: copies.
struct Recipe final : torch::CustomClassHolder {
  Recipe(BlockSpec b, NfnetSpec s) : block(std::move(b)), spec(std::move(s)) {}
  BlockSpec block;
  NfnetSpec spec;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            at::TensorList parameters, const at::Tensor& keep,
                            const c10::intrusive_ptr<Recipe>& recipe) {
    torch::autograd::variable_list saved = {x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    if (keep.defined()) saved.push_back(keep);
    ctx->save_for_backward(saved);
    ctx->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    return block_forward(x, recipe->block, block_parameters(recipe->block, span_of(parameters)),
                         recipe->spec, keep);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto capsule = ctx->saved_data["recipe"].toCapsule();
    const auto& recipe = static_cast<const Recipe&>(*capsule);
    const torch::autograd::variable_list saved = ctx->get_saved_variables();
    const size_t inputs = 1 + block_tensors(recipe.block);
    const at::Tensor keep = saved.size() > inputs ? saved[inputs] : at::Tensor();

    torch::autograd::variable_list leaves, wanted;
    for (size_t i = 0; i < inputs; ++i) {
      leaves.push_back(saved[i].detach().set_requires_grad(ctx->needs_input_grad(i)));
      if (ctx->needs_input_grad(i)) wanted.push_back(leaves.back());
    }
    torch::autograd::variable_list found;
    {
      const at::AutoGradMode on(true);
      const at::Tensor y =
          block_forward(leaves[0], recipe.block,
                        block_parameters(recipe.block, std::span(leaves).subspan(1, inputs - 1)),
                        recipe.spec, keep);
      found = torch::autograd::grad({y}, wanted, grads);
    }
    torch::autograd::variable_list out(inputs + 2);  // none for keep and recipe
    size_t next = 0;
    for (size_t i = 0; i < inputs; ++i)
      if (ctx->needs_input_grad(i)) out[i] = found[next++];
    return out;
  }

 private:
  static std::span<const at::Tensor> span_of(at::TensorList list) {
    return {list.data(), list.size()};
  }
};

}  // namespace

at::Tensor recomputed_block(const at::Tensor& x, const BlockSpec& block,
                            const std::vector<at::Tensor>& tensors, const NfnetSpec& spec,
                            const at::Tensor& keep) {
  return Recompute::apply(x, at::TensorList(tensors), keep,
                          c10::make_intrusive<Recipe>(block, spec));
}

}  // namespace nf::model
