// See update_pass.h; formulas: nfnet_spec.md sections 6 and 7.
#include "trainer/optim/update_pass.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/vector_loop.h"
#include "trainer/optim/kernels.h"

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

// This rank's tasks; they are all of about one size.
template <class Body>
void for_each_task(std::span<const Task> tasks, const Body& body) {
  at::parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(tasks[static_cast<size_t>(t)]);
  });
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
    for (int64_t i = 0; i < n; ++i) {
      const T d = factor * (scale * g[i]) + decay * w[i];
      const T moved = momentum * m[i] + d;
      m[i] = moved;
      const T next = w[i] - lr * (kNesterov ? d + momentum * moved : moved);
      w[i] = next;
      if constexpr (kAverage) e[i] += weight * (next - e[i]);
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

template <class T>
UpdateResult run(std::span<const UpdateTensor> tensors, const UpdateRule& rule,
                 const UpdateShare* share) {
  const std::vector<Rows<T>> rows = rows_of<T>(tensors);
  const std::vector<Task> tasks = tasks_of(rows);
  const size_t units = rows.back().first_unit + static_cast<size_t>(rows.back().units.count);
  std::vector<double> own(share ? 0 : 2 * units);
  const std::span<double> squares = share ? share->squares : std::span(own).first(units),
                          factors = share ? share->factors : std::span(own).last(units);
  NF_CHECK(squares.size() >= units && factors.size() >= units, "room for all units");
  const std::span<const Task> mine = share ? part_of(tasks, share->rank, share->world) : tasks;
  for_each_task(mine, [&](const Task& t) {
    const Rows<T>& r = rows[t.tensor];
    for (int64_t u = t.begin; u < t.end; ++u)
      squares[r.first_unit + static_cast<size_t>(u)] =
          kernels::sum_of_squares(r.gradient + u * r.units.size, r.units.size, rule.gradient_scale);
  });
  if (share) share->meet();
  UpdateResult out;
  for (size_t i = 0; i < rows.size(); ++i) {
    double sum = 0;
    for (int64_t u = 0; u < rows[i].units.count; ++u)
      sum += squares[rows[i].first_unit + static_cast<size_t>(u)];
    if (!std::isfinite(sum) && out.not_finite < 0) out.not_finite = static_cast<ptrdiff_t>(i);
    out.grad_squares += sum;
  }
  if (out.not_finite >= 0) return out;

  for_each_task(mine, [&](const Task& task) {
    const Rows<T>& r = rows[task.tensor];
    const UpdateTensor& t = tensors[task.tensor];
    const bool clips = t.clipped && rule.agc.clip > 0;
    for (int64_t u = task.begin; u < task.end; ++u) {
      const int64_t at = u * r.units.size;
      double& factor = factors[r.first_unit + static_cast<size_t>(u)];
      factor = clips ? clip_factor(squares[r.first_unit + static_cast<size_t>(u)],
                                   kernels::sum_of_squares(r.value + at, r.units.size), rule.agc)
                     : 1.0;
      update_block(
          r.value + at, r.gradient + at, r.momentum + at, r.average ? r.average + at : nullptr,
          r.units.size, rule.nesterov,
          {rule.gradient_scale, factor, t.lr, t.weight_decay, rule.momentum, rule.average_weight});
    }
  });
  if (share) share->meet();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (tensors[i].clipped && rule.agc.clip > 0) out.units += rows[i].units.count;
    for (int64_t u = 0; u < rows[i].units.count; ++u) {
      const size_t at = rows[i].first_unit + static_cast<size_t>(u);
      out.clipped_grad_squares += factors[at] * factors[at] * squares[at];
      if (factors[at] != 1.0) ++out.clipped;
    }
  }
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
