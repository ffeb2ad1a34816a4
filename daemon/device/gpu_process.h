// Who uses a device, as NVML says it. Pure values.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mps::device {

struct GpuProcess {
  // 0: NVML does not tell. In a pid namespace other than the node's it may also be that of
  // somebody else there, or nothing is listed at all.
  pid_t pid = 0;
  std::optional<std::uint64_t> memory_mebibytes{};  // all of its own; none: not told
  bool mps_client = false;  // not told by drivers without that list, nor of an MPS server
  bool operator==(const GpuProcess&) const = default;
};

struct DeviceProcesses {
  std::string uuid{};
  std::vector<GpuProcess> processes{};  // by pid
  std::string error{};                  // why they are not known; empty: they are
  bool operator==(const DeviceProcesses&) const = default;
};

}  // namespace mps::device
