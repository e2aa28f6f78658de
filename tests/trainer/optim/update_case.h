// A small model's arenas for tests of the fused update, and the same update in float64, written
// from nfnet_spec.md sections 6 and 7 alone.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/golden_values.h"
#include "trainer/optim/cuda/fused_update.h"

namespace nf::test {

// Units of all kinds: clipped and not, odd sizes, one element, none, frozen.
struct UpdateCase {
  std::vector<train::UpdateUnit> units;
  train::UpdateRates rates = {.gradient_scale = 0.25,
                              .lr = 0.3,
                              .momentum = 0.9,
                              .average_weight = 0.01,
                              .clip = 0.01,
                              .clip_eps = 1e-3,
                              .nesterov = true};
  std::vector<float> weight, grad, momentum, average;
  bool with_average = true;

  int64_t add(int64_t count, int64_t size, bool clipped, double decay, double lr_scale = 1,
              bool frozen = false) {
    const int32_t parameter = units.empty() ? 0 : units.back().parameter + 1;
    const auto begin = static_cast<int64_t>(weight.size());
    for (int64_t u = 0; u < count; ++u)
      units.push_back({begin + u * size, size, parameter, clipped, frozen, decay, lr_scale});
    weight.resize(static_cast<size_t>((begin + count * size + 15) / 16 * 16));
    return begin;
  }

  void fill() {
    const size_t n = weight.size();
    for (auto* x : {&grad, &momentum, &average}) x->resize(n);
    const uint64_t seeds[] = {fnv1a64("w"), fnv1a64("g"), fnv1a64("m"), fnv1a64("e")};
    for (size_t number = 0; number < units.size(); ++number) {
      const train::UpdateUnit& u = units[number];
      // Gradients around the limit: some units are clipped, others are not.
      const double size = number % 2 == 0 ? 0.08 : 0.002;
      for (int64_t k = u.begin; k < u.begin + u.size; ++k) {
        const auto i = static_cast<size_t>(k);
        weight[i] = static_cast<float>(0.1 * v_seeded(seeds[0], i));
        grad[i] = static_cast<float>(size * v_seeded(seeds[1], i));
        momentum[i] = static_cast<float>(0.01 * v_seeded(seeds[2], i));
        average[i] = static_cast<float>(weight[i] + 0.01 * v_seeded(seeds[3], i));
      }
    }
  }
};

inline UpdateCase update_case() {
  UpdateCase c;
  c.add(16, 27, true, 2e-5);      // rows of an odd length
  c.add(12, 144, true, 2e-5);     // rows that move in packs
  c.add(1, 37, true, 0);          // a bias
  c.add(1, 1, true, 0);           // a skip gain
  c.add(1, 0, true, 0);           // nothing
  c.add(5, 1537, true, 1e-3);     // longer than a block
  c.add(3, 64, false, 1e-2, 10);  // a classifier
  c.add(4, 36, true, 1e-3, 1, true);
  c.fill();
  return c;
}

struct ExactUpdate {
  std::vector<double> weight, momentum, average;
  double squares = 0, clipped_squares = 0;
  int64_t units = 0, clipped = 0;
};

inline ExactUpdate exact_update(const UpdateCase& c) {
  ExactUpdate out;
  out.weight.assign(c.weight.begin(), c.weight.end());
  out.momentum.assign(c.momentum.begin(), c.momentum.end());
  out.average.assign(c.average.begin(), c.average.end());
  for (const train::UpdateUnit& u : c.units) {
    double g2 = 0, w2 = 0, factor = 1;
    for (int64_t k = u.begin; k < u.begin + u.size; ++k) {
      const auto i = static_cast<size_t>(k);
      g2 += std::pow(c.rates.gradient_scale * static_cast<double>(c.grad[i]), 2);
      w2 += static_cast<double>(c.weight[i]) * c.weight[i];
    }
    if (u.clipped && c.rates.clip > 0 && !u.frozen) {
      const double limit = c.rates.clip * std::max(std::sqrt(w2), c.rates.clip_eps);
      ++out.units;
      if (std::sqrt(g2) > limit) {
        factor = limit / std::max(std::sqrt(g2), 1e-6);
        ++out.clipped;
      }
    }
    if (!u.frozen) {
      out.squares += g2;
      out.clipped_squares += factor * factor * g2;
    }
    for (int64_t k = u.begin; k < u.begin + u.size; ++k) {
      const auto i = static_cast<size_t>(k);
      double &w = out.weight[i], &m = out.momentum[i], &e = out.average[i];
      if (!u.frozen) {
        const double d = factor * c.rates.gradient_scale * c.grad[i] + u.weight_decay * w;
        m = c.rates.momentum * m + d;
        w -= c.rates.lr * u.lr_scale * (c.rates.nesterov ? d + c.rates.momentum * m : m);
      }
      if (c.with_average) e += c.rates.average_weight * (w - e);
    }
  }
  return out;
}

inline void expect_near(const std::vector<float>& found, const std::vector<double>& exact,
                        double tolerance, const char* what) {
  ASSERT_EQ(found.size(), exact.size());
  for (size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(static_cast<double>(found[i]), exact[i], tolerance) << what << " " << i;
}

// What every implementation must do with update_case(): numbers, totals, and nothing at all when a
// gradient is not finite. run: applies one update to the case in place.
template <class Run>
void check_fused_update(const Run& run) {
  for (const bool nesterov : {true, false})
    for (const bool average : {true, false})
      for (const double clip : {0.01, 0.0}) {
        UpdateCase c = update_case();
        c.rates.nesterov = nesterov;
        c.rates.clip = clip;
        c.with_average = average;
        const ExactUpdate exact = exact_update(c);
        if (clip > 0) {
          ASSERT_GT(exact.clipped, 5) << "the case must clip some units";
          ASSERT_LT(exact.clipped, exact.units - 5) << "and leave others";
        }
        const std::vector<float> grad = c.grad;
        const train::UpdateTotals totals = run(c);
        EXPECT_EQ(totals.first_not_finite, -1);
        EXPECT_EQ(totals.units, exact.units);
        EXPECT_EQ(totals.clipped, exact.clipped);
        EXPECT_NEAR(totals.grad_squares, exact.squares, 1e-12 * exact.squares);
        EXPECT_NEAR(totals.clipped_grad_squares, exact.clipped_squares,
                    1e-12 * exact.clipped_squares);
        expect_near(c.weight, exact.weight, 6e-8, "weight");
        expect_near(c.momentum, exact.momentum, 3e-9, "momentum");
        expect_near(c.average, exact.average, 6e-8, "average");
        EXPECT_EQ(c.grad, grad);
      }
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    UpdateCase c = update_case();
    for (const size_t u : {size_t{31}, size_t{17}})  // of parameters 5 and 1
      c.grad[static_cast<size_t>(c.units[u].begin)] = bad;
    const UpdateCase before = c;
    const train::UpdateTotals totals = run(c);
    EXPECT_EQ(totals.first_not_finite, 1);
    EXPECT_EQ(c.weight, before.weight);
    EXPECT_EQ(c.momentum, before.momentum);
    EXPECT_EQ(c.average, before.average);
  }
  UpdateCase frozen = update_case();  // a frozen parameter's gradient is nobody's concern
  frozen.grad[static_cast<size_t>(frozen.units.back().begin)] = NAN;
  EXPECT_EQ(run(frozen).first_not_finite, -1);
  UpdateCase none;
  EXPECT_EQ(run(none).units, 0);
}

}  // namespace nf::test
