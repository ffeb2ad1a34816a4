// What every entry point of the simulated NVML begins with: the library's state, the inventory as
// it stands in the file now, and what the file says about this call. Threading: any.
//
// The ABI is the one that the supervisor declares for itself (device/nvml_abi.h): that this is
// NVML's own is held by running against the real library, not by this one.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "device/nvml_abi.h"
#include "inventory.h"

#define MPS_SIM_ENTRY __attribute__((visibility("default"))) nvml::Return

// A handle stays good for as long as the library does; what it stands for may be gone.
struct mps::device::nvml::DeviceHandle {
  std::string uuid;
};

namespace mps::sim {

namespace nvml = mps::device::nvml;

constexpr nvml::Return k_uninitialized = 1;
constexpr nvml::Return k_invalid_argument = 2;
constexpr nvml::Return k_timeout = 10;
constexpr nvml::Return k_gpu_is_lost = 15;
constexpr nvml::Return k_unknown = 999;

struct Library {
  std::mutex mutex;
  unsigned initialised = 0;
  std::map<std::string, std::unique_ptr<nvml::DeviceHandle>, std::less<>> handles;
};

Library& library();
nvml::Handle handle_of(const std::string& uuid);

// The inventory after any hang is over; what a failure line says about this call.
nvml::Return enter(const char* entry, const std::string& uuid, SimInventory& inventory);

// For calls that need nvmlInit but no device.
template <typename Body>
nvml::Return global_call(const char* entry, Body body) {
  {
    auto& lib = library();
    const std::lock_guard lock(lib.mutex);
    if (lib.initialised == 0) return k_uninitialized;
  }
  SimInventory inventory;
  const auto code = enter(entry, {}, inventory);
  return code != nvml::k_success ? code : body(inventory);
}

template <typename Body>
nvml::Return device_call(const char* entry, nvml::Handle handle, Body body) {
  if (handle == nullptr) return k_invalid_argument;
  SimInventory inventory;
  const auto code = enter(entry, handle->uuid, inventory);
  if (code != nvml::k_success) return code;
  const auto* device = inventory.find(handle->uuid);
  return device == nullptr ? k_gpu_is_lost : body(inventory, *device);
}

}  // namespace mps::sim
