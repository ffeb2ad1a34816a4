// The devices that the simulated driver has: those of the steering (`devices`, `sm_count`,
// `memory_mib`, `device_name`), as CUDA_VISIBLE_DEVICES shows them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
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

std::string uuid_text(const Device& device);  // "GPU-51300000-0000-4000-8000-000000000000"
// "0x51-0x0-...", as the server's log shows it: four words in hexadecimal.
std::string uuid_words(const Device& device);
// Also of a shorter one, as tests like to write it: filled up with zeros. nullopt: none at all.
std::optional<Device> device_of_uuid(const std::string& uuid);

// An ordinal or a UUID that begins as one of ours shows that device; a UUID that is none of
// ours shows a device with that UUID, so that settings may name any. The first other entry ends
// the list, as with the real one.
std::vector<Device> visible_devices(const Steering& steering);

}  // namespace mps::sim
