// Which instances there should be, and with which limits: devices and policies in, a list out.
// Pure.
#pragma once

#include <cstddef>
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

// What CUDA_VISIBLE_DEVICES of that device's clients has to be; empty: whatever it is. A client
// sees one device, as number 0: with another number, meant for the node's numbering, it would see
// none, and a MIG device goes by its UUID alone. `known`: all devices of the node.
std::string visible_devices(const policy::DeviceFacts& device, std::size_t known);

// `otherwise`: the limits of a shared instance whose device no policy names. A share may have more
// than the policies grant: then that is what its instance must be able to give.
std::vector<WantedInstance> wanted_instances(const device::Inventory& inventory,
                                             const policy::Generation& policies,
                                             const instance::Limits& otherwise,
                                             const admission::Shares& shares = {});

}  // namespace mps::app
