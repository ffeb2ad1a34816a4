#include "policy/policy.h"

#include <algorithm>

#include "yaml/reader.h"

namespace mps::policy {

const char* to_string(Isolation isolation) {
  return isolation == Isolation::shared ? "shared" : "dedicated";
}

const char* to_string(Priority priority) {
  return priority == Priority::normal ? "normal" : "below-normal";
}

bool names(const Policy& policy, const DeviceFacts& device) {
  if (policy.devices.empty()) return true;
  return std::any_of(policy.devices.begin(), policy.devices.end(), [&](const DeviceName& name) {
    switch (name.kind) {
      case DeviceName::Kind::any:
        return true;
      case DeviceName::Kind::uuid:
        return name.uuid == device.uuid;
      case DeviceName::Kind::index:
        return name.index == device.index;
      case DeviceName::Kind::mig_index:
        return name.index == device.index && device.mig_index == name.mig_index;
    }
    return false;
  });
}

std::string place(const Policy& policy, const Mark& mark) {
  return yaml::to_string(policy.file, mark);
}

}  // namespace mps::policy
