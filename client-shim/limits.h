// What of CUDA's variables has to be set for a program that was granted this much, given what its
// user has set: a limit is only ever lowered. Pure.
//
// CUDA reads them at cuInit (docs/mps-behaviour.md): CUDA_MPS_PIPE_DIRECTORY, the client's
// CUDA_MPS_ACTIVE_THREAD_PERCENTAGE and CUDA_MPS_PINNED_DEVICE_MEM_LIMIT, which can only lower what
// the server has, CUDA_MPS_CLIENT_PRIORITY and CUDA_VISIBLE_DEVICES. A server serves one device, so
// the limit's ordinal is 0 whatever the node calls that device.
#pragma once

#include "message.h"

namespace mps::client {

inline constexpr size_t k_path_limit = 108;  // a unix socket's address, with its ending NUL

// Each is null where the user has set nothing.
struct UserValues {
  const char* percentage = nullptr;
  const char* memory = nullptr;
  const char* priority = nullptr;
  const char* visible_devices = nullptr;
};

struct Setting {
  bool set = false;
  Text<128> value;
};

struct Settings {
  Setting percentage, memory, priority, visible_devices;
  bool other_device = false;  // the user wants a device (CUDA_VISIBLE_DEVICES) that is not this one
};

Settings settings_for(const Grant& grant, const UserValues& user);

}  // namespace mps::client
