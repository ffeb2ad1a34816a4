// Puts what was decided into this process' environment (environment.h).
#pragma once

#include "limits.h"
#include "place.h"

namespace mps::client {

inline constexpr const char* k_pipe_variable = "CUDA_MPS_PIPE_DIRECTORY";
inline constexpr const char* k_percentage_variable = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE";
inline constexpr const char* k_memory_variable = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT";
inline constexpr const char* k_priority_variable = "CUDA_MPS_CLIENT_PRIORITY";
inline constexpr const char* k_devices_variable = "CUDA_VISIBLE_DEVICES";

UserValues user_values();

// 0, or an errno. What could be set is set.
int apply(const Place& place, const Settings& settings);

// CUDA finds nothing there, and goes on without MPS: below a file there can never be a socket.
int apply_no_mps();

// CUDA finds no device.
int apply_no_devices();

}  // namespace mps::client
