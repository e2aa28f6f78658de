// See image_feed.h. Pixels travel from page-locked memory, so neither host nor device waits for
// them; the tensors' allocators keep that memory until the copy is done.
#include "trainer/image_feed.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "models/nfnet/to_device.h"
#include "trainer/normalize.h"

namespace nf::train {

ImageFeed::ImageFeed(data::Loader& loader, at::Device device) : loader_(loader), device_(device) {
  if (!device.is_cpu())
    stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

ImageFeed::Ahead ImageFeed::take(data::MicroBatch&& batch) {
  Ahead out{.batch = std::move(batch), .pixels = {}, .copied = {}};
  if (!stream_) return out;
  const c10::StreamGuard guard(*stream_);
  out.pixels = model::to_device(pixels_of(out.batch), device_);
  out.copied.emplace(device_.type());
  out.copied->record(*stream_);
  return out;
}

std::optional<ImageFeed::Item> ImageFeed::next() {
  if (!ahead_) {
    std::optional<data::MicroBatch> batch = loader_.next();
    if (!batch) return std::nullopt;
    ahead_ = take(std::move(*batch));
  }
  Ahead now = std::move(*std::exchange(ahead_, std::nullopt));
  if (!stream_) {
    at::Tensor images = normalized_images(now.batch, device_);
    return Item{std::move(now.batch), std::move(images)};
  }
  const c10::Stream compute = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  now.copied->block(compute);
  now.pixels.record_stream(compute);
  return Item{std::move(now.batch), normalized_pixels(now.pixels, image_layout(device_))};
}

void ImageFeed::fetch_ahead() {
  if (ahead_) return;
  try {
    if (std::optional<data::MicroBatch> batch = loader_.next()) ahead_ = take(std::move(*batch));
  } catch (const std::exception&) {  // the loader tries again, and throws again, in next()
    ahead_.reset();
  }
}

void ImageFeed::seek(uint64_t k) {
  ahead_.reset();
  loader_.seek(k);
}

}  // namespace nf::train
