// What a simulated server and the simulated libcuda say to each other on the socket pair that the
// control daemon hands out. Our own, as the real one cannot be seen without a GPU. The server
// speaks first: k_server_hello; then Hello, Welcome, and a Reply to each Request.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "values.h"
#include "wire.h"
#include "work.h"

namespace mps::sim {

inline constexpr std::string_view k_server_hello{"SIMHELLO\0", 9};
inline constexpr std::size_t k_most_devices = 8;

enum CudaResult : std::int32_t {
  k_success = 0,
  k_invalid_value = 1,
  k_out_of_memory = 2,
  k_not_initialized = 3,
  k_no_device = 100,
  k_invalid_device = 101,
  k_invalid_image = 200,
  k_invalid_context = 201,
  k_invalid_handle = 400,
  k_not_found = 500,
  k_illegal_address = 700,
  k_launch_failed = 719,
  k_connection_failed = 805,
  k_rpc_failure = 806,
  k_server_not_ready = 807,
  k_max_clients_reached = 808,
  k_max_connections_reached = 809,
  k_client_terminated = 810
};

struct Hello {
  double percentage = 100.0;
  PinnedLimits pinned_limits{};
  std::int32_t priority = 0;
  std::uint32_t connections = 2;  // that each of its contexts takes of its device's
};

struct SharedDevice {
  std::array<std::uint8_t, 16> uuid{};
  std::array<char, 64> name{};
  std::uint64_t memory = 0;
  std::uint32_t multiprocessors = 0;
  std::uint32_t is_mig = 0;
};

struct Welcome {
  std::int32_t result = k_success;
  std::uint32_t device_count = 0;
  double percentage = 100.0;
  std::array<SharedDevice, k_most_devices> devices{};
};

enum class Ask : std::uint32_t {
  k_create_context,
  k_destroy_context,
  k_allocate,
  k_free,
  k_memory,
  k_launch,      // answered at once: what becomes of the kernel shows later
  k_synchronize  // answered when the client's kernels have ended
};

struct Request {
  Ask ask = Ask::k_memory;
  std::uint32_t device = 0;
  // Bytes to allocate, an address to free, a context to destroy, nanoseconds that a kernel spins.
  std::uint64_t value = 0;
  Kernel kernel = Kernel::k_nothing;
  std::uint32_t reserved = 0;
};

struct Reply {
  std::int32_t result = k_success;
  std::int32_t reserved = 0;
  std::uint64_t first = 0;   // an address, a context, or free bytes
  std::uint64_t second = 0;  // total bytes
};

}  // namespace mps::sim
