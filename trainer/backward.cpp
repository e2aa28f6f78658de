// See backward.h. Autograd hands each leaf its gradient without a copy (the leaf has none yet); a
// hook turns it into the parameters' gradients at their places while it is still in the cache, and
// lets its memory go.
#include "trainer/backward.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>
#include <vector>

#include "core/check.h"

namespace nf::train {

struct Backward::Impl {
  using Leaf = model::WorkingWeights::Leaf;

  Impl(const model::WorkingWeights& w, const FlatLayout& l)
      : weights(w), layout(l), done(l.size()) {}

  // The leaf's gradient is there.
  void take(const Leaf& leaf) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    at::Tensor gradient = std::exchange(leaf.tensor.mutable_grad(), at::Tensor());
    const at::Tensor own = layout.view(target, leaf.parameter);
    const at::Tensor gain =
        leaf.gain < 0 ? at::Tensor() : layout.view(target, static_cast<size_t>(leaf.gain));
    if (!weights.write_gradient(leaf, gradient, own, gain)) finite = false;
    finish(leaf);
    announce();
  }

  void finish(const Leaf& leaf) {
    done[leaf.parameter] = 1;
    if (leaf.gain >= 0) done[static_cast<size_t>(leaf.gain)] = 1;
  }

  // Gradients come roughly from the last parameter to the first; only an unbroken tail is
  // announced.
  void announce() {
    const size_t before = pending;
    while (pending > 0 && done[pending - 1]) --pending;
    if (pending < before && on_ready && *on_ready)
      (*on_ready)(pending < layout.size() ? layout.offset(pending) : layout.elements());
  }

  size_t end_of(size_t i) const {
    return i + 1 < layout.size() ? layout.offset(i + 1) : layout.elements();
  }
  void clear(size_t begin, size_t end) const {
    if (begin < end)
      target.narrow(0, static_cast<int64_t>(begin), static_cast<int64_t>(end - begin)).zero_();
  }
  // Nothing writes to the padding behind a tensor, and no gradient comes for a frozen one.
  void clear_rest() const {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (size_t i = 0; i < layout.size(); ++i) {
      const size_t length = layout.length(i);
      clear(layout.offset(i) + (done[i] ? 0 : length), end_of(i));
    }
  }

  const model::WorkingWeights& weights;
  const FlatLayout layout;
  std::vector<char> done;  // of the parameters
  size_t pending = 0;      // parameters below it are not final yet
  at::Tensor target;       // flat, on the parameters' device
  bool finite = false;     // what was written so far
  const std::function<void(size_t)>* on_ready = nullptr;
  at::Tensor staging;  // on the parameters' device, where flat is elsewhere
};

namespace {

class WhenAdded final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit WhenAdded(std::function<void()> call) : call_(std::move(call)) {}
  void operator()(const torch::autograd::Variable&) override { call_(); }

 private:
  std::function<void()> call_;
};

}  // namespace

Backward::Backward(const model::WorkingWeights& weights, const FlatLayout& layout)
    : impl_(std::make_unique<Impl>(weights, layout)) {
  for (const auto& leaf : weights.leaves())
    if (leaf.tensor.requires_grad())
      torch::autograd::impl::set_post_acc_grad_hooks(
          leaf.tensor,
          std::make_unique<WhenAdded>([impl = impl_.get(), &leaf] { impl->take(leaf); }));
}

Backward::~Backward() {
  for (const auto& leaf : impl_->weights.leaves()) {
    torch::autograd::impl::set_post_acc_grad_hooks(leaf.tensor, nullptr);
    leaf.tensor.mutable_grad().reset();
  }
}

bool Backward::run(const at::Tensor& loss, const at::Tensor& flat,
                   const std::function<void(size_t offset)>& on_ready) {
  Impl& s = *impl_;
  NF_CHECK(static_cast<size_t>(flat.numel()) == s.layout.elements());
  const at::Device device = s.weights.leaves().front().tensor.device();
  const bool direct = flat.device() == device;
  if (!direct && !s.staging.defined())
    s.staging = at::empty({flat.numel()}, flat.options().device(device));
  s.target = direct ? flat : s.staging;
  for (const auto& leaf : s.weights.leaves()) {
    s.finish(leaf);
    if (!leaf.tensor.requires_grad()) continue;
    s.done[leaf.parameter] = 0;
    if (leaf.gain >= 0) s.done[static_cast<size_t>(leaf.gain)] = 0;
  }
  s.clear_rest();
  s.pending = s.layout.size();
  s.finite = true;
  s.on_ready = direct ? &on_ready : nullptr;
  torch::autograd::backward({loss});
  s.on_ready = nullptr;
  for (size_t i = 0; i < s.layout.size(); ++i)
    if (!s.done[i]) s.clear(s.layout.offset(i), s.end_of(i));
  if (!direct) flat.copy_(s.target);
  s.target.reset();
  if (on_ready) on_ready(0);
  return s.finite;
}

}  // namespace nf::train
