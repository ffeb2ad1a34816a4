#include "device/known_devices.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace mps::device {

namespace {

const Device* find(const std::vector<Device>& devices, std::string_view uuid) {
  const auto found = std::ranges::find(devices, uuid, &Device::uuid);
  return found == devices.end() ? nullptr : &*found;
}

bool has_place(const std::vector<Device>& devices, unsigned index,
               std::optional<unsigned> mig_index) {
  return std::ranges::any_of(devices, [index, mig_index](const Device& device) {
    return device.index == index && device.mig_index == mig_index;
  });
}

// After a failed call, what was known before stands in for what is unknown now.
void fill_unknown(Device& now, const Device& before) {
  const auto fill = [](auto& value, const auto& known) {
    if (value == std::remove_reference_t<decltype(value)>{}) value = known;
  };
  fill(now.name, before.name);
  fill(now.pci_bus_id, before.pci_bus_id);
  fill(now.memory_mebibytes, before.memory_mebibytes);
  fill(now.reserved_memory_mebibytes, before.reserved_memory_mebibytes);
  fill(now.sm_count, before.sm_count);
  fill(now.compute_capability_major, before.compute_capability_major);
  fill(now.compute_capability_minor, before.compute_capability_minor);
  fill(now.compute_mode, before.compute_mode);
  // Where it is known now, an empty value is an answer and no gap.
  if (!now.capability_known) {
    fill(now.mig_enabled, before.mig_enabled);
    fill(now.not_capable, before.not_capable);
  }
}

// One update: first the devices that are known keep their places, then newcomers get theirs.
class Placement {
 public:
  Placement(const nvml::Scan& scan, const std::vector<Device>& before)
      : scan_(scan), before_(before) {}

  std::vector<Device> run() {
    for (const auto& device : scan_.devices) {
      if (const auto* known = find(before_, device.uuid)) keep_place(device, *known);
    }
    for (const auto kind : {Kind::gpu, Kind::mig}) {
      for (const auto& device : scan_.devices) {
        if (device.kind == kind && find(placed_, device.uuid) == nullptr) place(device);
      }
    }
    add_gone();
    std::ranges::sort(placed_, {}, [](const Device& device) {
      return std::tuple(device.index, device.mig_index, std::string_view(device.uuid));
    });
    return std::move(placed_);
  }

 private:
  void keep_place(Device device, const Device& known) {
    if (find(placed_, device.uuid) != nullptr) return;
    if (device.kind == Kind::gpu) index_of_gpu_[device.index] = known.index;
    device.index = known.index;
    device.mig_index = known.mig_index;
    if (!device.error.empty()) fill_unknown(device, known);
    placed_.push_back(std::move(device));
  }

  void place(Device device) {
    const auto reported = device.index;
    if (device.kind == Kind::mig) {
      const auto parent = index_of_gpu_.find(device.index);
      if (parent != index_of_gpu_.end()) device.index = parent->second;
    }
    if (has_place(placed_, device.index, device.mig_index)) {
      auto& free = device.mig_index ? *device.mig_index : device.index;
      for (free = 0; has_place(placed_, device.index, device.mig_index);) ++free;
    }
    if (device.kind == Kind::gpu) index_of_gpu_[reported] = device.index;
    placed_.push_back(std::move(device));
  }

  void add_gone() {
    const auto living = placed_;
    for (auto device : before_) {
      if (find(living, device.uuid) != nullptr) continue;
      if (has_place(living, device.index, device.mig_index)) continue;
      device.error = why_gone(device, living);
      placed_.push_back(std::move(device));
    }
  }

  [[nodiscard]] std::string why_gone(const Device& device,
                                     const std::vector<Device>& living) const {
    for (const auto& nameless : scan_.nameless) {
      if (nameless.index == device.index) return nameless.error;
    }
    // A parent that could not be asked did not tell of its MIG devices either.
    for (const auto& parent : living) {
      if (device.kind == Kind::mig && parent.kind == Kind::gpu && parent.index == device.index &&
          !parent.error.empty()) {
        return parent.error;
      }
    }
    return "NVML no longer reports it";
  }

  const nvml::Scan& scan_;
  const std::vector<Device>& before_;
  std::vector<Device> placed_;
  std::map<unsigned, unsigned> index_of_gpu_;  // NVML's index now -> ours
};

}  // namespace

Inventory KnownDevices::update(const nvml::Scan& scan) {
  devices_ = Placement(scan, devices_).run();
  driver_version_ = scan.driver_version;
  Inventory inventory{devices_, driver_version_, {}};
  for (const auto& nameless : scan.nameless) {
    const bool shown = std::ranges::any_of(devices_, [&nameless](const Device& device) {
      return device.index == nameless.index && device.error == nameless.error;
    });
    if (shown || !inventory.error.empty()) continue;
    inventory.error = "NVML: GPU " + std::to_string(nameless.index) + ": " + nameless.error;
  }
  return inventory;
}

Inventory KnownDevices::unanswered(const std::string& error) const {
  Inventory inventory{devices_, driver_version_, devices_.empty() ? error : std::string()};
  for (auto& device : inventory.devices) device.error = error;
  return inventory;
}

Inventory KnownDevices::failed(const std::string& error) const {
  auto inventory = unanswered(error);
  inventory.error = "NVML: " + error;
  return inventory;
}

}  // namespace mps::device
