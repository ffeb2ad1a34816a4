#include "driver.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

namespace mps::sim {
namespace {

// CUDA takes 1 to 32; under MPS its default is 2.
std::uint32_t connections_of(const std::string& text) {
  const long value = std::strtol(text.c_str(), nullptr, 10);
  return value >= 1 && value <= 32 ? static_cast<std::uint32_t>(value) : 2;
}

}  // namespace

CudaResult Driver::initialize(const Steering& steering) {
  const std::string control = pipe_directory() + "/control";
  if (probe(control)) {
    const CudaResult joined = join(control);
    if (joined != k_success) return joined;
  } else {
    devices_ = visible_devices(steering);
    own_memory_ = std::make_unique<MemoryBook>(devices_);
  }
  return devices_.empty() ? k_no_device : k_success;
}

// Whatever goes wrong here makes the program run without MPS.
bool Driver::probe(const std::string& control) {
  const UniqueFd socket = connect_to(control);
  if (!socket) return false;
  const auto greeting = receive(socket.get(), k_greeting.size());
  return greeting && greeting->bytes == k_greeting;
}

// Whatever goes wrong here makes cuInit fail.
CudaResult Driver::join(const std::string& control) {
  const UniqueFd socket = connect_to(control);
  if (!socket || !receive(socket.get(), k_greeting.size()) ||
      !send_as_self(socket.get(), k_credentials) || !send_value(socket.get(), Peer::k_client)) {
    return k_connection_failed;
  }
  auto answer = receive(socket.get(), k_descriptor.size());
  if (!answer || answer->bytes != k_descriptor || !answer->descriptor) return k_connection_failed;
  server_ = std::move(answer->descriptor);
  const CudaResult result = greet_server();
  // The daemon serves nobody else before it has this.
  if (!send_value(socket.get(), static_cast<std::int32_t>(result))) return k_connection_failed;
  return result;
}

CudaResult Driver::greet_server() {
  const auto greeting = receive(server_.get(), k_server_hello.size());
  if (!greeting || greeting->bytes != k_server_hello) return k_rpc_failure;
  Hello hello;
  hello.percentage = lower_percentage(100.0, environment("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", ""));
  hello.pinned_limits =
      read_limit_list(environment("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", ""), PinnedLimits{});
  hello.connections = connections_of(environment("CUDA_DEVICE_MAX_CONNECTIONS", ""));
  if (!send_as_self(server_.get(), {reinterpret_cast<const char*>(&hello), sizeof hello})) {
    return k_rpc_failure;
  }
  const auto welcome = receive_value<Welcome>(server_.get());
  if (!welcome) return k_rpc_failure;
  const auto count = std::min<std::size_t>(welcome->device_count, k_most_devices);
  for (std::size_t index = 0; index < count; ++index) {
    const SharedDevice& shared = welcome->devices[index];
    devices_.push_back({shared.uuid, shared.is_mig != 0, shared.name.data(), shared.multiprocessors,
                        shared.memory});
  }
  return static_cast<CudaResult>(welcome->result);
}

Reply Driver::ask_own(const Request& request) {
  const auto now = std::chrono::steady_clock::now();
  if (request.ask == Ask::k_launch && own_sticky_ == k_success) {
    if (request.kernel == Kernel::k_hang) own_work_.hang();
    if (request.kernel == Kernel::k_spin) {
      own_work_.spin(std::chrono::nanoseconds(request.value), now);
    }
    if (!is_fault(request.kernel)) return {};
    own_sticky_ = request.kernel == Kernel::k_trap ? k_launch_failed : k_illegal_address;
    return {};
  }
  if (own_sticky_ != k_success) return {own_sticky_, 0, 0, 0};
  if (request.ask == Ask::k_synchronize && own_work_.is_busy(now)) {
    const auto end = own_work_.end();
    while (!end) std::this_thread::sleep_for(std::chrono::hours(1));
    std::this_thread::sleep_until(*end);
  }
  return own_memory_->handle(0, PinnedLimits{}, request);
}

Reply Driver::ask(const Request& request) {
  if (own_memory_) return ask_own(request);
  const auto reply =
      send_value(server_.get(), request) ? receive_value<Reply>(server_.get()) : std::nullopt;
  return reply.value_or(Reply{k_rpc_failure, 0, 0, 0});
}

}  // namespace mps::sim
