// See accounting.h. Sources: peaks from the makers' data sheets; hours and prices as the study and
// its cost statement give them (2022).
#include "analysis/accounting.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace nf::analysis {
namespace {

constexpr std::array<Device, 5> kDevices = {{{"tpu-v3", 61.5, 2},
                                             {"tpu-v4", 137.5, 2},
                                             {"a100", 312, 1},
                                             {"h100", 989.5, 1},
                                             {"h200", 989.5, 1}}};
constexpr double kV4HoursPerV3Hour = 0.565;

std::string plain(std::string_view name) {
  std::string out;
  for (const char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)))
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* word : {"nvidia", "google", "core", "sxm5", "sxm4", "sxm", "80gb", "40gb"})
    if (const size_t at = out.find(word); at != std::string::npos)
      out.erase(at, std::string_view(word).size());
  return out;
}

}  // namespace

std::span<const Device> known_devices() { return kDevices; }

const Device* find_device(std::string_view name) {
  const std::string wanted = plain(name);
  for (const Device& device : kDevices)
    if (plain(device.name) == wanted) return &device;
  return nullptr;
}

double train_flops_per_image(double macs, bool sam) { return 6 * macs * (sam ? 2 : 1); }

double chip_hours(double device_hours, const Device& device) {
  return device_hours / device.devices_per_chip;
}

double model_flops_utilization(double model_flops, double device_hours, double peak_tflops) {
  return model_flops / (device_hours * 3600 * peak_tflops * 1e12);
}

Conversion convert_hours(const Device& from, const Device& to) {
  if (from.name == to.name) return {1, true};
  if (from.name == "tpu-v3" && to.name == "tpu-v4") return {kV4HoursPerV3Hour, true};
  if (from.name == "tpu-v4" && to.name == "tpu-v3") return {1 / kV4HoursPerV3Hour, true};
  return {from.peak_tflops / to.peak_tflops, false};
}

const std::vector<Price>& shipped_prices() {
  static const std::vector<Price> prices = {{"tpu-v4", 0.97, true, "preemptible", "2022"},
                                            {"tpu-v3", 0.60, true, "preemptible", "2022"},
                                            {"tpu-v4", 3.22, true, "on-demand", "2022"}};
  return prices;
}

std::optional<Price> find_price(const std::vector<Price>& prices, std::string_view device,
                                std::string_view kind) {
  for (const Price& price : prices)
    if (plain(price.device) == plain(device) && price.kind == kind) return price;
  return std::nullopt;
}

double cost_usd(double device_hours, const Device& device, const Price& price) {
  return price.usd_per_hour * (price.per_chip ? chip_hours(device_hours, device) : device_hours);
}

}  // namespace nf::analysis
