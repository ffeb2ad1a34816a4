// What the entry points of the simulated libcuda.so.1 share. One per process; its mutex is held
// over every call that changes it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"

#define MPS_SIM_EXPORT extern "C" __attribute__((visibility("default")))

namespace mps::sim {

struct State {
  std::mutex mutex;
  bool tried = false;
  CudaResult result = k_not_initialized;
  Driver driver;
  std::map<void*, std::uint32_t> contexts;  // the device of each
  void* current = nullptr;
  std::map<void*, std::vector<std::string>> modules;  // the entries of each
  std::map<void*, Kernel> functions;
};

State& state();
const Device* device_at(int ordinal);
int ready();
// The device of the current context, or what is wrong.
int in_context(std::uint32_t& device);

}  // namespace mps::sim
