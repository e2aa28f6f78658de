// The arithmetic of fused_update.h for one block of threads; formulas: agc.cpp, kernels.cpp,
// ema.cpp (nfnet_spec.md sections 6, 7). Squares are summed in float64 in an order that depends on
// the unit alone, elements are updated in float32 with factors that were rounded to it once.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "trainer/optim/cuda/fused_update.h"

namespace nf::train {

constexpr int kUpdatePack = 4;

// Whether the unit's elements can be moved 16 bytes at a time.
NF_HOST_DEVICE bool in_packs(const UpdateUnit& unit) {
  return unit.begin % kUpdatePack == 0 && unit.size % kUpdatePack == 0;
}

// One thread's share of the sum of squares of x[0..size).
template <int kThreads>
NF_HOST_DEVICE double share_of_squares(const float* x, int64_t size, bool packs, int t) {
  double sum = 0;
  if (packs) {
    for (int64_t i = int64_t{t} * kUpdatePack; i < size; i += kThreads * kUpdatePack) {
      const Pack<float, kUpdatePack> p = load_pack<kUpdatePack>(x + i);
      for (int k = 0; k < kUpdatePack; ++k)
        sum += static_cast<double>(p.at[k]) * static_cast<double>(p.at[k]);
    }
  } else {
    for (int64_t i = t; i < size; i += kThreads)
      sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return sum;
}

// Norms and AGC factor of one unit; scratch: kReduceScratch doubles.
template <class Block>
NF_HOST_DEVICE void measure_unit(const Block& block, double* scratch, const UpdateArenas& arenas,
                                 const UpdateRates& rates, const UpdateUnit& unit,
                                 UpdateUnitState* state) {
  typename Block::template PerThread<double> part;
  const bool packs = in_packs(unit), clipped = unit.clipped && rates.clip > 0;
  double grad = 0, weight = 0;
  if (!unit.frozen) {
    block.each([&](int t) {
      part[t] = share_of_squares<Block::kThreads>(arenas.grad + unit.begin, unit.size, packs, t);
    });
    grad = rates.gradient_scale * rates.gradient_scale * block_sum(block, part, scratch);
    if (clipped) {
      block.each([&](int t) {
        part[t] =
            share_of_squares<Block::kThreads>(arenas.weight + unit.begin, unit.size, packs, t);
      });
      weight = block_sum(block, part, scratch);
    }
  }
  block.each([&](int t) {
    if (t != 0) return;
    UpdateUnitState out = {grad, 1.0, false};
    if (clipped && !unit.frozen) {
      const double norm = sqrt(grad), limit = rates.clip * fmax(sqrt(weight), rates.clip_eps);
      out.over = norm > limit;
      if (out.over) out.factor = limit / fmax(norm, 1e-6);
    }
    *state = out;
  });
}

// The totals of all units, by one block.
template <class Block>
NF_HOST_DEVICE void total_units(const Block& block, double* scratch, const UpdateUnit* units,
                                const UpdateUnitState* states, int64_t count,
                                const UpdateRates& rates, UpdateTotals* totals) {
  typename Block::template PerThread<double> squares, after, clippable, over, bad;
  constexpr double kNone = 1e18;
  block.each([&](int t) {
    squares[t] = after[t] = clippable[t] = over[t] = 0;
    bad[t] = kNone;
    for (int64_t u = t; u < count; u += Block::kThreads) {
      if (units[u].frozen) continue;
      const UpdateUnitState s = states[u];
      squares[t] += s.grad_squares;
      after[t] += s.factor * s.factor * s.grad_squares;
      clippable[t] += units[u].clipped && rates.clip > 0 ? 1 : 0;
      over[t] += s.over ? 1 : 0;
      const double parameter = static_cast<double>(units[u].parameter);
      // A finite float's square is finite in float64, so this is a gradient's infinity or NaN.
      if (!(s.grad_squares <= 1.7976931348623157e308) && parameter < bad[t]) bad[t] = parameter;
    }
  });
  UpdateTotals out;
  out.grad_squares = block_sum(block, squares, scratch);
  out.clipped_grad_squares = block_sum(block, after, scratch);
  out.units = static_cast<int64_t>(block_sum(block, clippable, scratch));
  out.clipped = static_cast<int64_t>(block_sum(block, over, scratch));
  const double first =
      block_reduce(block, bad, scratch, [](double a, double b) { return a < b ? a : b; });
  out.first_not_finite = first < kNone ? static_cast<int64_t>(first) : -1;
  block.each([&](int t) {
    if (t == 0) *totals = out;
  });
}

struct UpdateScalars {
  float scale, factor, decay, momentum, lr, average_weight;
  bool nesterov, frozen;
};

NF_HOST_DEVICE UpdateScalars scalars_of(const UpdateUnit& unit, const UpdateUnitState& state,
                                        const UpdateRates& rates) {
  return {static_cast<float>(rates.gradient_scale),
          static_cast<float>(state.factor),
          static_cast<float>(unit.weight_decay),
          static_cast<float>(rates.momentum),
          static_cast<float>(rates.lr * unit.lr_scale),
          static_cast<float>(rates.average_weight),
          rates.nesterov,
          unit.frozen};
}

// d = factor (scale g) + decay w;  m <- momentum m + d;  w <- w - lr (d + momentum m), or w - lr m.
NF_HOST_DEVICE void update_element(const UpdateScalars& s, float g, float& m, float& w) {
  const float d = s.factor * (s.scale * g) + s.decay * w;
  m = s.momentum * m + d;
  w -= s.lr * (s.nesterov ? d + s.momentum * m : m);
}

// One thread's pack of the unit: elements [at, at + kCount) of the arenas.
template <int kCount>
NF_HOST_DEVICE void update_pack(const UpdateArenas& arenas, const UpdateScalars& s, int64_t at) {
  Pack<float, kCount> w = load_pack<kCount>(arenas.weight + at);
  if (!s.frozen) {
    const Pack<float, kCount> g = load_pack<kCount>(arenas.grad + at);
    Pack<float, kCount> m = load_pack<kCount>(arenas.momentum + at);
    for (int k = 0; k < kCount; ++k) update_element(s, g.at[k], m.at[k], w.at[k]);
    store_pack(arenas.momentum + at, m);
    store_pack(arenas.weight + at, w);
  }
  if (!arenas.average) return;
  Pack<float, kCount> e = load_pack<kCount>(arenas.average + at);
  for (int k = 0; k < kCount; ++k) e.at[k] += s.average_weight * (w.at[k] - e.at[k]);
  store_pack(arenas.average + at, e);
}

template <class Block>
NF_HOST_DEVICE void update_unit(const Block& block, const UpdateArenas& arenas,
                                const UpdateRates& rates, const UpdateUnit& unit,
                                const UpdateUnitState& state, const UpdateTotals& totals) {
  if (totals.first_not_finite >= 0) return;
  const UpdateScalars s = scalars_of(unit, state, rates);
  block.each([&](int t) {
    if (in_packs(unit)) {
      for (int64_t i = int64_t{t} * kUpdatePack; i < unit.size; i += Block::kThreads * kUpdatePack)
        update_pack<kUpdatePack>(arenas, s, unit.begin + i);
    } else {
      for (int64_t i = t; i < unit.size; i += Block::kThreads)
        update_pack<1>(arenas, s, unit.begin + i);
    }
  });
}

}  // namespace nf::train
