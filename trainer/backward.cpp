// See backward.h. Autograd hands each leaf its gradient without a copy (the leaf has none yet); a
// hook moves it to its place while it is still in the cache and lets the memory go.
#include "trainer/backward.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "core/check.h"

namespace nf::train {

struct Backward::Impl {
  FlatLayout layout;
  std::vector<at::Tensor> values;
  std::vector<char> done;
  size_t pending = 0;  // parameters below it are not final yet
  at::Tensor target;   // flat, on the parameters' device
  const std::function<void(size_t)>* on_ready = nullptr;
  at::Tensor staging;  // on the parameters' device, where flat is elsewhere

  void take(size_t i) {
    at::Tensor& grad = values[i].mutable_grad();
    const at::NoGradGuard no_grad;
    layout.view(target, i).copy_(grad);
    grad.reset();
    finished(i);
  }

  // What no gradient is written to: frozen parameters, and the padding behind each.
  void clear_rest() {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < values.size(); ++i) {
      const auto begin = static_cast<int64_t>(layout.offset(i));
      const auto end =
          static_cast<int64_t>(i + 1 < values.size() ? layout.offset(i + 1) : layout.elements());
      const int64_t from = begin + (values[i].requires_grad() ? values[i].numel() : 0);
      if (from < end) target.narrow(0, from, end - from).zero_();
    }
  }

  // Parameter i's gradient is in its place. Gradients come roughly from the last parameter to the
  // first; only an unbroken tail is announced.
  void finished(size_t i) {
    done[i] = 1;
    const size_t before = pending;
    while (pending > 0 && done[pending - 1]) --pending;
    if (pending < before && on_ready && *on_ready)
      (*on_ready)(pending < values.size() ? layout.offset(pending) : layout.elements());
  }
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

Backward::Backward(const std::vector<Param>& params, const FlatLayout& layout)
    : impl_(std::make_unique<Impl>()) {
  Impl& s = *impl_;
  s.layout = layout;
  s.done.resize(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    s.values.push_back(params[i].value);
    if (params[i].frozen) continue;
    torch::autograd::impl::set_post_acc_grad_hooks(
        params[i].value,
        std::make_unique<WhenAdded>([impl = impl_.get(), i] { impl->take(i); }));
  }
}

Backward::~Backward() {
  for (const at::Tensor& v : impl_->values) {
    torch::autograd::impl::set_post_acc_grad_hooks(v, nullptr);
    v.mutable_grad().reset();
  }
}

void Backward::run(const at::Tensor& loss, const at::Tensor& flat,
                   const std::function<void(size_t offset)>& on_ready) {
  Impl& s = *impl_;
  NF_CHECK(static_cast<size_t>(flat.numel()) == s.layout.elements());
  const bool direct = flat.device() == s.values.front().device();
  if (!direct && !s.staging.defined())
    s.staging = at::empty({flat.numel()}, flat.options().device(s.values.front().device()));
  s.target = direct ? flat : s.staging;
  s.clear_rest();
  for (size_t i = 0; i < s.values.size(); ++i) s.done[i] = s.values[i].requires_grad() ? 0 : 1;
  s.pending = s.values.size();
  s.on_ready = direct ? &on_ready : nullptr;
  torch::autograd::backward({loss});
  s.on_ready = nullptr;
  for (size_t i = 0; i < s.values.size(); ++i)
    if (!s.done[i]) s.layout.view(s.target, i).zero_();
  if (!direct) flat.copy_(s.target);
  s.target.reset();
  if (on_ready) on_ready(0);
}

}  // namespace nf::train
