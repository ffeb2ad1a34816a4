// What the audit has found, as the metrics show it. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mps::api {

struct AuditCount {
  std::string device;  // UUID
  std::string kind;    // as the event: "client_without_slot", …
  std::uint64_t standing = 0;
  std::uint64_t found = 0;  // since the supervisor's start
};

struct AuditedDevice {
  std::string device;
  bool known = false;  // NVML says who uses it
};

struct AuditStatus {
  std::vector<AuditCount> counts;
  std::vector<AuditedDevice> devices;
};

}  // namespace mps::api
