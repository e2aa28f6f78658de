// See update_pass.h; formulas: nfnet_spec.md sections 6 and 7.
#include "trainer/optim/update_pass.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "core/check.h"
#include "core/vector_loop.h"
#include "trainer/optim/kernels.h"
#include "trainer/optim/prefetch.h"

namespace nf::train {
namespace {

constexpr int64_t kChunk = 1 << 15;  // elements a task takes at least

// A parameter in raw memory.
template <class T>
struct Rows {
  T *value, *momentum, *average;
  const T* gradient;
  AgcUnits units;
  size_t first_unit;
};

struct Task {
  size_t tensor;
  int64_t begin, end;  // units
};

template <class T>
std::vector<Rows<T>> rows_of(std::span<const UpdateTensor> tensors) {
  std::vector<Rows<T>> rows;
  size_t next = 0;
  for (const UpdateTensor& t : tensors) {
    for (const at::Tensor* other : {&t.gradient, &t.momentum, &t.average})
      NF_CHECK((other == &t.average && !other->defined()) ||
                   (other->is_contiguous() && other->sizes() == t.value.sizes() &&
                    other->scalar_type() == t.value.scalar_type() && other->is_cpu()),
               "tensors of one parameter differ in shape, type, device or layout");
    NF_CHECK(t.value.is_contiguous() && t.value.is_cpu());
    rows.push_back({t.value.data_ptr<T>(), t.momentum.data_ptr<T>(),
                    t.average.defined() ? t.average.data_ptr<T>() : nullptr,
                    t.gradient.const_data_ptr<T>(), agc_units(t.value.sizes()), next});
    next += static_cast<size_t>(rows.back().units.count);
  }
  return rows;
}

template <class T>
std::vector<Task> tasks_of(const std::vector<Rows<T>>& rows) {
  std::vector<Task> tasks;
  for (size_t i = 0; i < rows.size(); ++i) {
    const AgcUnits& u = rows[i].units;
    const int64_t step = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, u.size));
    for (int64_t begin = 0; begin < u.count; begin += step)
      tasks.push_back({i, begin, std::min(begin + step, u.count)});
  }
  return tasks;
}

std::span<const Task> part_of(std::span<const Task> tasks, int64_t rank, int64_t world) {
  const auto n = static_cast<int64_t>(tasks.size());
  const int64_t begin = rank * n / world, end = (rank + 1) * n / world;
  return tasks.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

struct BlockRule {
  double gradient_scale, factor, lr, weight_decay, momentum, average_weight;
};

// d = factor (scale g) + decay W;  M <- momentum M + d;  W <- W - lr (d + momentum M), or W - lr M
// without nesterov;  E <- E + weight (W - E).
template <bool kNesterov, bool kAverage, class T>
void update_block(T* __restrict w, const T* __restrict g, T* __restrict m, T* __restrict e,
                  int64_t n, const BlockRule& r) {
  const T scale = static_cast<T>(r.gradient_scale), factor = static_cast<T>(r.factor);
  const T decay = static_cast<T>(r.weight_decay), momentum = static_cast<T>(r.momentum);
  const T lr = static_cast<T>(r.lr), weight = static_cast<T>(r.average_weight);
  vector_loop([=]() NF_INLINE {
    for (int64_t begin = 0; begin < n; begin += kPrefetchBlock) {
      const int64_t end = std::min(begin + kPrefetchBlock, n);
      prefetch_block(m, end);  // w and g are in the cache: their norms were taken
      if constexpr (kAverage) prefetch_block(e, end);
      for (int64_t i = begin; i < end; ++i) {
        const T d = factor * (scale * g[i]) + decay * w[i];
        const T moved = momentum * m[i] + d;
        m[i] = moved;
        const T next = w[i] - lr * (kNesterov ? d + momentum * moved : moved);
        w[i] = next;
        if constexpr (kAverage) e[i] += weight * (next - e[i]);
      }
    }
  });
}

template <class T>
void update_block(T* w, const T* g, T* m, T* e, int64_t n, bool nesterov, const BlockRule& r) {
  if (nesterov) {
    e ? update_block<true, true>(w, g, m, e, n, r) : update_block<true, false>(w, g, m, e, n, r);
  } else {
    e ? update_block<false, true>(w, g, m, e, n, r) : update_block<false, false>(w, g, m, e, n, r);
  }
}

// One update: the parameters in raw memory, and a double for the square of the gradient's norm and
// one for the clipping factor of each unit.
template <class T>
class Pass {
 public:
  Pass(std::span<const UpdateTensor> tensors, const UpdateRule& rule, const UpdateShare* share)
      : tensors_(tensors), rule_(rule), rows_(rows_of<T>(tensors)) {
    const size_t units = rows_.back().first_unit + static_cast<size_t>(rows_.back().units.count);
    own_.resize(share ? 0 : 2 * units);
    squares_ = share ? share->squares : std::span(own_).first(units);
    factors_ = share ? share->factors : std::span(own_).last(units);
    NF_CHECK(squares_.size() >= units && factors_.size() >= units, "room for all units");
  }

  std::vector<Task> tasks() const { return tasks_of(rows_); }

  void measure(size_t tensor, int64_t unit) {
    const Rows<T>& r = rows_[tensor];
    squares_[r.first_unit + static_cast<size_t>(unit)] = kernels::sum_of_squares(
        r.gradient + unit * r.units.size, r.units.size, rule_.gradient_scale);
  }

  void update(size_t tensor, int64_t unit) {
    const Rows<T>& r = rows_[tensor];
    const UpdateTensor& t = tensors_[tensor];
    const size_t index = r.first_unit + static_cast<size_t>(unit);
    const int64_t at = unit * r.units.size;
    factors_[index] =
        t.clipped && rule_.agc.clip > 0
            ? clip_factor(squares_[index], kernels::sum_of_squares(r.value + at, r.units.size),
                          rule_.agc)
            : 1.0;
    update_block(r.value + at, r.gradient + at, r.momentum + at,
                 r.average ? r.average + at : nullptr, r.units.size, rule_.nesterov,
                 {rule_.gradient_scale, factors_[index], t.lr, t.weight_decay, rule_.momentum,
                  rule_.average_weight});
  }

  // Once all units are measured.
  void sum_up_gradient(UpdateResult& out) const {
    for (size_t i = 0; i < rows_.size(); ++i) {
      double sum = 0;
      for (int64_t u = 0; u < rows_[i].units.count; ++u)
        sum += squares_[rows_[i].first_unit + static_cast<size_t>(u)];
      if (!std::isfinite(sum) && out.not_finite < 0) out.not_finite = static_cast<ptrdiff_t>(i);
      out.grad_squares += sum;
    }
  }

  // Once all are updated.
  void sum_up_clipping(UpdateResult& out) const {
    for (size_t i = 0; i < rows_.size(); ++i) {
      if (tensors_[i].clipped && rule_.agc.clip > 0) out.units += rows_[i].units.count;
      for (int64_t u = 0; u < rows_[i].units.count; ++u) {
        const size_t at = rows_[i].first_unit + static_cast<size_t>(u);
        out.clipped_grad_squares += factors_[at] * factors_[at] * squares_[at];
        if (factors_[at] != 1.0) ++out.clipped;
      }
    }
  }

 private:
  std::span<const UpdateTensor> tensors_;
  const UpdateRule& rule_;
  std::vector<Rows<T>> rows_;
  std::vector<double> own_;
  std::span<double> squares_, factors_;
};

// Calls body(tensor, unit) for every unit of this rank's tasks, which are all of about one size.
template <class Body>
void for_each_unit(std::span<const Task> tasks, const Body& body) {
  at::parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    for (const Task& t :
         tasks.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)))
      for (int64_t u = t.begin; u < t.end; ++u) body(t.tensor, u);
  });
}

template <class T>
UpdateResult run(std::span<const UpdateTensor> tensors, const UpdateRule& rule,
                 const UpdateShare* share) {
  Pass<T> pass(tensors, rule, share);
  const std::vector<Task> tasks = pass.tasks();
  const std::span<const Task> mine = share ? part_of(tasks, share->rank, share->world) : tasks;
  const auto meet = [&] {
    if (share) share->meet();
  };
  UpdateResult out;
  // A float's square is finite in double, and so is the sum of them.
  const bool finite = rule.finite && std::is_same_v<T, float> && std::abs(rule.gradient_scale) <= 1;
  if (!finite) {
    for_each_unit(mine, [&](size_t tensor, int64_t unit) { pass.measure(tensor, unit); });
    meet();
    pass.sum_up_gradient(out);
    if (out.not_finite >= 0) return out;
  }
  for_each_unit(mine, [&](size_t tensor, int64_t unit) {
    if (finite) pass.measure(tensor, unit);
    pass.update(tensor, unit);
  });
  meet();
  if (finite) pass.sum_up_gradient(out);
  NF_CHECK(out.not_finite < 0, "the gradient was said to be finite");
  pass.sum_up_clipping(out);
  return out;
}

}  // namespace

UpdateResult update_pass(std::span<const UpdateTensor> tensors, const UpdateRule& rule,
                         const UpdateShare* share) {
  if (tensors.empty()) return {};
  if (tensors.front().value.scalar_type() == at::kFloat) return run<float>(tensors, rule, share);
  NF_CHECK(tensors.front().value.scalar_type() == at::kDouble, "float32 or float64 parameters");
  return run<double>(tensors, rule, share);
}

}  // namespace nf::train
