// See mix.h.
#include "data_pipeline/mix.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/rng.h"

namespace nf::data {
namespace {

// Numbers under which seeds are derived for Stream::kMix; fixed, they are part of a run's bits.
constexpr uint64_t kDraws = 0, kPartnerImage = 1, kPartnerOrder = 2;

// A square of the area that is to stay, its centre anywhere, cut at the borders.
Box draw_box(int64_t side, PositionRng& rng) {
  const auto centre_x = static_cast<int64_t>(rng.below(static_cast<uint64_t>(side)));
  const auto centre_y = static_cast<int64_t>(rng.below(static_cast<uint64_t>(side)));
  const double lambda = rng.uniform();
  const auto length = static_cast<int64_t>(std::sqrt(1 - lambda) * static_cast<double>(side));
  const auto clip = [side](int64_t v) { return std::clamp<int64_t>(v, 0, side); };
  const int64_t x = clip(centre_x - length / 2), y = clip(centre_y - length / 2);
  return {x, y, clip(centre_x + length / 2) - x, clip(centre_y + length / 2) - y};
}

}  // namespace

double MixDraw::ratio(int64_t side) const {
  if (!cutmix) return static_cast<double>(share) / 65536;
  return static_cast<double>(box.width * box.height) / static_cast<double>(side * side);
}

MixDraw draw_mix(const MixOptions& options, int64_t side, uint64_t seed, uint64_t position) {
  NF_CHECK(options.on() && side > 0, "draw_mix: nothing to draw");
  PositionRng rng(derive_key(seed, kDraws, Stream::kMix), Stream::kMix, position);
  MixDraw draw;
  draw.cutmix = options.cutmix && (options.mixup_alpha <= 0 || position % 2 == 1);
  if (draw.cutmix) {
    draw.box = draw_box(side, rng);
  } else {
    const double share = rng.beta(options.mixup_alpha, options.mixup_alpha);
    draw.share = static_cast<uint32_t>(std::lrint(share * 65536));
  }
  return draw;
}

void mix_images(const MixDraw& draw, int64_t side, uint8_t* first, const uint8_t* second) {
  const auto row = static_cast<size_t>(side) * 3;
  if (!draw.cutmix) {
    const uint32_t a = draw.share, b = 65536 - draw.share;
    const size_t count = static_cast<size_t>(side) * row;
    for (size_t i = 0; i < count; ++i)
      first[i] = static_cast<uint8_t>((a * first[i] + b * second[i] + 32768) >> 16);
    return;
  }
  const auto left = static_cast<size_t>(draw.box.x) * 3;
  const auto right = static_cast<size_t>(draw.box.x + draw.box.width) * 3;
  for (int64_t y = 0; y < side; ++y, first += row, second += row) {
    const bool inside = y >= draw.box.y && y < draw.box.y + draw.box.height;
    std::copy(second, second + (inside ? left : row), first);
    if (inside) std::copy(second + right, second + row, first + right);
  }
}

SamplerOptions partner_order(const SamplerOptions& order, uint64_t seed) {
  SamplerOptions partners = order;
  partners.seed = derive_key(seed, kPartnerOrder, Stream::kMix);
  partners.repeat = 1;
  return partners;
}

uint64_t partner_seed(uint64_t seed) { return derive_key(seed, kPartnerImage, Stream::kMix); }

}  // namespace nf::data
