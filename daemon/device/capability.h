// What follows from a device's properties. Pure.
#pragma once

#include <optional>
#include <string>

#include "device/device.h"

namespace mps::device {

struct CapabilityFacts {
  bool vgpu_guest = false;
  bool mig_enabled = false;  // a MIG parent; false for a MIG device
  std::optional<unsigned> major{};
  std::optional<unsigned> minor{};
  std::optional<ComputeMode> compute_mode{};
};

// Why MPS cannot run on such a device, for a person; empty: it can. What is unknown is no reason.
std::string why_not_capable(const CapabilityFacts& facts);

// NVML counts a whole GPU's cores, not its SMs. 0 for an architecture that is not known here.
unsigned sm_count_of(unsigned cores, unsigned major, unsigned minor);

}  // namespace mps::device
