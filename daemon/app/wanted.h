// Which instances there should be, and with which limits: devices and policies in, a list out.
// Pure.
#pragma once

#include <string>
#include <vector>

#include "admission/shares.h"
#include "device/device.h"
#include "instance/snapshot.h"
#include "policy/generation.h"

namespace mps::app {

struct WantedInstance {
  std::string id;      // "gpu0.shared", "gpu0.ns-team-a"
  std::string device;  // UUID
  std::string domain;  // "shared", "ns-team-a"
  instance::Limits limits;
  // Whose they are, or because of whom there is none: "team-a.yaml:9:29 (spec.client)".
  std::string percentage_from;
  std::string memory_from;
  bool operator==(const WantedInstance&) const = default;
};

// What policies are checked against and apply to: devices that MPS can run on. `exclusive`: they
// are meant to be in the exclusive compute mode, whatever they are in now.
std::vector<policy::DeviceFacts> device_facts(const device::Inventory& inventory, bool exclusive);

// `otherwise`: the limits of a shared instance whose device no policy names. A share may have more
// than the policies grant: then that is what its instance must be able to give.
std::vector<WantedInstance> wanted_instances(const device::Inventory& inventory,
                                             const policy::Generation& policies,
                                             const instance::Limits& otherwise,
                                             const admission::Shares& shares = {});

}  // namespace mps::app
