// What is behind the simulated libcuda.so.1: a process's way to its devices, through MPS where the
// control daemon answers the probe, else alone and without limits. Not thread-safe by itself.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "client_link.h"
#include "device_model.h"
#include "memory_book.h"
#include "steering.h"

namespace mps::sim {

class Driver {
 public:
  // Blocks as long as a listener or a daemon that does not answer.
  CudaResult initialize(const Steering& steering);
  [[nodiscard]] const std::vector<Device>& devices() const { return devices_; }
  [[nodiscard]] bool uses_mps() const { return static_cast<bool>(server_); }
  // Blocks where it is to wait for a kernel that does not end.
  Reply ask(const Request& request);

 private:
  static bool probe(const std::string& control);
  CudaResult join(const std::string& control);
  CudaResult greet_server();
  Reply ask_own(const Request& request);
  UniqueFd server_;
  std::vector<Device> devices_;
  // Without MPS:
  std::unique_ptr<MemoryBook> own_memory_;
  Work own_work_;
  CudaResult own_sticky_ = k_success;
};

}  // namespace mps::sim
