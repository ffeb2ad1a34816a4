// The devices that the simulated driver has: those of the steering (`devices`, `sm_count`,
// `memory_mib`, `device_name`), as CUDA_VISIBLE_DEVICES shows them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "steering.h"

namespace mps::sim {

struct Device {
  std::array<std::uint8_t, 16> uuid{};
  bool is_mig = false;
  std::string name;
  unsigned multiprocessors = 0;
  std::uint64_t memory = 0;  // bytes
};

// An ordinal or a UUID that begins as one of ours shows that device; a UUID that is none of
// ours shows a device with that UUID, so that settings may name any. The first other entry ends
// the list, as with the real one.
std::vector<Device> visible_devices(const Steering& steering);

}  // namespace mps::sim
