// What NVML says now, all devices in one go, and the one thing that we ask it to change. Blocks as
// NVML does: only for the worker thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "device/nvml_library.h"

namespace mps::device::nvml {

// A GPU that NVML counts but gives no handle or UUID for.
struct Nameless {
  unsigned index = 0;
  std::string error{};
  bool operator==(const Nameless&) const = default;
};

struct Scan {
  std::vector<Device> devices{};
  std::vector<Nameless> nameless{};
  std::string driver_version{};
  bool operator==(const Scan&) const = default;
};

// An Error only where nothing could be asked ("nvmlInit: Driver Not Loaded").
Result<Scan> scan(Library& library, const std::string& name);
Result<void> set_compute_mode(Library& library, const std::string& name, const std::string& uuid,
                              ComputeMode mode);

}  // namespace mps::device::nvml
