// The integer exchange; see bucket_exchange.h.
#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/error.h"
#include "trainer/comm/bucket_exchange.h"

namespace nf::train {
namespace {

class Fixed64Exchange final : public BucketExchange {
 public:
  explicit Fixed64Exchange(const ExchangeParts& parts)
      : parts_(parts), own_(parts_.plans[static_cast<size_t>(parts_.comm.rank())]) {
    for (size_t i = 0; i < own_.buffers; ++i)
      buffers_.push_back(parts_.ops.allocate(parts_.elements));
  }
  float* buffer(size_t index) override { return buffers_[index].get(); }
  bool exchange(size_t begin, size_t end) override;
  const float* finish() override { return buffers_.front().get(); }

 private:
  const ExchangeParts parts_;
  const FoldPlan& own_;
  std::vector<std::shared_ptr<float[]>> buffers_;
};

// Numbers below 2^exponent in magnitude become integers below 2^(62 - log2 V), so that V of them
// cannot overflow.
bool Fixed64Exchange::exchange(size_t begin, size_t end) {
  constexpr int64_t kNotFinite = std::numeric_limits<int64_t>::max();
  int64_t exponent = -200;
  for (const auto& b : buffers_)
    for (size_t i = begin; i < end; ++i) {
      const float x = b[static_cast<std::ptrdiff_t>(i)];
      if (!std::isfinite(x)) exponent = kNotFinite;
      if (x == 0.0f || exponent == kNotFinite) continue;
      exponent = std::max<int64_t>(exponent, std::ilogb(x) + 1);
    }
  parts_.comm.all_reduce_max({&exponent, 1});
  float* const out = buffers_.front().get();
  if (exponent == kNotFinite) {  // the step's finite check stops the run, on all ranks alike
    std::fill(out + begin, out + end, std::numeric_limits<float>::quiet_NaN());
    return false;
  }
  const int headroom = 62 - static_cast<int>(std::ceil(std::log2(double(parts_.leaves))));
  const int shift = headroom - static_cast<int>(exponent);
  std::vector<int64_t> sum(end - begin, 0);
  for (const auto& b : buffers_)
    for (size_t i = begin; i < end; ++i)
      sum[i - begin] +=
          std::llround(std::ldexp(static_cast<double>(b[static_cast<std::ptrdiff_t>(i)]), shift));
  parts_.comm.all_reduce_sum(sum);
  for (size_t i = begin; i < end; ++i)
    out[i] = static_cast<float>(std::ldexp(static_cast<double>(sum[i - begin]), -shift));
  return false;  // a sum may be beyond float's range
}

}  // namespace

std::unique_ptr<BucketExchange> make_fixed64_exchange(const ExchangeParts& parts) {
  return std::make_unique<Fixed64Exchange>(parts);
}

}  // namespace nf::train
