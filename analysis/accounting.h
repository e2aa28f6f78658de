// Compute and money: FLOPs of a run, peaks of devices, conversions between them, prices. A TPU
// "core-hour" is half a chip-hour; results.csv counts devices, and a TPU's device is the core.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nf::analysis {

struct Device {
  std::string_view name;  // lower case, "tpu-v4"
  double peak_tflops;     // dense bfloat16, of one device
  int devices_per_chip;   // 2 for TPU v3 and v4, else 1
};
std::span<const Device> known_devices();
// By name, whatever the case; "TPU-v4 core", "tpu_v4" and "H100 SXM" are found too.
const Device* find_device(std::string_view name);

// 6 x MACs: two a multiply-add, one forward pass and twice that backward. SAM doubles it.
double train_flops_per_image(double macs, bool sam = false);
double chip_hours(double device_hours, const Device& device);
// Model FLOPs over what the devices could have done in that time.
double model_flops_utilization(double model_flops, double device_hours, double peak_tflops);

// Hours on `to` for one hour on `from`; measured where the published study allows it (TPU v3 to v4:
// 0.565 +- 0.01, where the ratio of peaks, 0.447, would be wrong), else the ratio of peaks.
struct Conversion {
  double hours_per_hour;
  bool measured;
};
Conversion convert_hours(const Device& from, const Device& to);

struct Price {
  std::string device;
  double usd_per_hour = 0;
  bool per_chip = false;  // unit: chip, or device
  std::string kind;       // "on-demand" or "preemptible"
  std::string date;
};
const std::vector<Price>& shipped_prices();
std::optional<Price> find_price(const std::vector<Price>& prices, std::string_view device,
                                std::string_view kind = "preemptible");
double cost_usd(double device_hours, const Device& device, const Price& price);

}  // namespace nf::analysis
