#include "device/device.h"

#include <algorithm>
#include <array>

namespace mps::device {

namespace {

constexpr std::array k_compute_modes{ComputeMode::default_mode, ComputeMode::exclusive_thread,
                                     ComputeMode::prohibited, ComputeMode::exclusive_process};

}  // namespace

const char* to_string(ComputeMode mode) {
  switch (mode) {
    case ComputeMode::default_mode:
      return "default";
    case ComputeMode::exclusive_thread:
      return "exclusive-thread";
    case ComputeMode::prohibited:
      return "prohibited";
    case ComputeMode::exclusive_process:
      return "exclusive-process";
  }
  return "unknown";
}

std::optional<ComputeMode> parse_compute_mode(std::string_view text) {
  for (const auto mode : k_compute_modes) {
    if (text == to_string(mode)) return mode;
  }
  return std::nullopt;
}

std::string Device::short_name() const {
  auto result = "gpu" + std::to_string(index);
  if (mig_index) result += "-mig" + std::to_string(*mig_index);
  return result;
}

std::string gpu_of(const Inventory& inventory, std::string_view uuid) {
  const auto& all = inventory.devices;
  const auto known = std::ranges::find(all, uuid, &Device::uuid);
  if (known == all.end() || !known->mig_index) return known == all.end() ? "" : known->uuid;
  const auto gpu = std::ranges::find_if(
      all, [known](const Device& one) { return !one.mig_index && one.index == known->index; });
  return gpu == all.end() ? "" : gpu->uuid;
}

}  // namespace mps::device
