// The entry points of the simulated libcuda.so.1, with the types of the public driver API.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <mutex>

#include "libcuda_state.h"

namespace {

using namespace mps::sim;  // NOLINT: this file is that namespace's C face

constexpr int k_driver_version_535 = 12020;
constexpr int k_driver_version_550 = 12040;
constexpr int k_driver_version_580 = 13000;
constexpr int k_driver_version_590 = 13010;
constexpr int k_multiprocessor_count = 16;  // CU_DEVICE_ATTRIBUTE_…
constexpr int k_compute_capability_major = 75;
constexpr int k_compute_capability_minor = 76;

int driver_version(long branch) {
  if (branch < 550) return k_driver_version_535;
  if (branch < 580) return k_driver_version_550;
  return branch < 590 ? k_driver_version_580 : k_driver_version_590;
}

Steering own_steering() {
  Dl_info info{};
  const bool known = ::dladdr(reinterpret_cast<void*>(&own_steering), &info) != 0;
  return Steering::load(known && info.dli_fname != nullptr ? info.dli_fname : own_program());
}

}  // namespace

namespace mps::sim {

State& state() {
  static State the_state;
  return the_state;
}

const Device* device_at(int ordinal) {
  const auto& devices = state().driver.devices();
  const auto index = static_cast<std::size_t>(ordinal);
  return ordinal >= 0 && index < devices.size() ? &devices[index] : nullptr;
}

int ready() {
  return state().tried ? state().result : k_not_initialized;
}

int in_context(std::uint32_t& device) {
  if (ready() != k_success) return ready();
  const auto found = state().contexts.find(state().current);
  if (found == state().contexts.end()) return k_invalid_context;
  device = found->second;
  return k_success;
}

}  // namespace mps::sim

MPS_SIM_EXPORT int cuInit(unsigned flags) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  if (flags != 0) return k_invalid_value;
  if (!it.tried) {
    it.tried = true;
    it.result = it.driver.initialize(own_steering());
  }
  return it.result;
}

MPS_SIM_EXPORT int cuDriverGetVersion(int* version) {
  if (version == nullptr) return k_invalid_value;
  *version = driver_version(own_steering().number("version", 550));
  return k_success;
}

MPS_SIM_EXPORT int cuDeviceGetCount(int* count) {
  if (ready() != k_success) return ready();
  *count = static_cast<int>(state().driver.devices().size());
  return k_success;
}

MPS_SIM_EXPORT int cuDeviceGet(int* device, int ordinal) {
  if (ready() != k_success) return ready();
  if (device_at(ordinal) == nullptr) return k_invalid_device;
  *device = ordinal;
  return k_success;
}

MPS_SIM_EXPORT int cuDeviceGetName(char* name, int length, int device) {
  const Device* found = device_at(device);
  if (ready() != k_success) return ready();
  if (found == nullptr) return k_invalid_device;
  if (length <= 0) return k_invalid_value;
  (void)std::snprintf(name, static_cast<std::size_t>(length), "%s", found->name.c_str());
  return k_success;
}

MPS_SIM_EXPORT int cuDeviceGetUuid(void* uuid, int device) {
  const Device* found = device_at(device);
  if (ready() != k_success) return ready();
  if (found == nullptr) return k_invalid_device;
  std::memcpy(uuid, found->uuid.data(), found->uuid.size());
  return k_success;
}

MPS_SIM_EXPORT int cuDeviceGetUuid_v2(void* uuid, int device) {
  return cuDeviceGetUuid(uuid, device);
}

MPS_SIM_EXPORT int cuDeviceTotalMem_v2(std::size_t* bytes, int device) {
  const Device* found = device_at(device);
  if (ready() != k_success) return ready();
  if (found == nullptr) return k_invalid_device;
  *bytes = found->memory;
  return k_success;
}

MPS_SIM_EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const Device* found = device_at(device);
  if (ready() != k_success) return ready();
  if (found == nullptr) return k_invalid_device;
  switch (attribute) {
    case k_multiprocessor_count:
      *value = static_cast<int>(found->multiprocessors);
      break;
    case k_compute_capability_major:
      *value = 9;
      break;
    case k_compute_capability_minor:
      *value = 0;
      break;
    default:
      return k_invalid_value;
  }
  return k_success;
}

MPS_SIM_EXPORT int cuDeviceGetPCIBusId(char* text, int length, int device) {
  const Device* found = device_at(device);
  if (ready() != k_success) return ready();
  if (found == nullptr) return k_invalid_device;
  if (length <= 0) return k_invalid_value;
  // As the simulated NVML numbers its GPUs where its file says nothing.
  (void)std::snprintf(text, static_cast<std::size_t>(length), "0000:%02X:00.0",
                      static_cast<unsigned>(device + 0x1B) & 0xFFU);
  return k_success;
}

MPS_SIM_EXPORT int cuCtxCreate_v2(void** context, unsigned, int device) {
  if (ready() != k_success) return ready();
  if (device_at(device) == nullptr) return k_invalid_device;
  State& it = state();
  const std::lock_guard lock(it.mutex);
  const auto index = static_cast<std::uint32_t>(device);
  const Reply reply = it.driver.ask({Ask::k_create_context, index, 0});
  if (reply.result != k_success) return reply.result;
  *context = new char;  // only its address matters
  it.contexts[*context] = index;
  it.current = *context;
  return k_success;
}

MPS_SIM_EXPORT int cuCtxDestroy_v2(void* context) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  const auto found = it.contexts.find(context);
  if (found == it.contexts.end()) return k_invalid_context;
  const Reply reply = it.driver.ask({Ask::k_destroy_context, found->second, 0});
  delete static_cast<char*>(context);
  it.contexts.erase(found);
  if (it.current == context) it.current = nullptr;
  return reply.result;
}

MPS_SIM_EXPORT int cuCtxGetCurrent(void** context) {
  if (ready() != k_success) return ready();
  const std::lock_guard lock(state().mutex);
  *context = state().current;
  return k_success;
}

MPS_SIM_EXPORT int cuCtxSetCurrent(void* context) {
  if (ready() != k_success) return ready();
  State& it = state();
  const std::lock_guard lock(it.mutex);
  if (context != nullptr && !it.contexts.contains(context)) return k_invalid_context;
  it.current = context;
  return k_success;
}

MPS_SIM_EXPORT int cuMemGetInfo_v2(std::size_t* free_bytes, std::size_t* total_bytes) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  std::uint32_t device = 0;
  if (const int wrong = in_context(device); wrong != k_success) return wrong;
  const Reply reply = it.driver.ask({Ask::k_memory, device, 0});
  if (reply.result != k_success) return reply.result;
  *free_bytes = reply.first;
  *total_bytes = reply.second;
  return k_success;
}

MPS_SIM_EXPORT int cuMemAlloc_v2(std::uint64_t* address, std::size_t size) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  std::uint32_t device = 0;
  if (const int wrong = in_context(device); wrong != k_success) return wrong;
  const Reply reply = it.driver.ask({Ask::k_allocate, device, size});
  if (reply.result == k_success) *address = reply.first;
  return reply.result;
}

MPS_SIM_EXPORT int cuMemFree_v2(std::uint64_t address) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  std::uint32_t device = 0;
  if (const int wrong = in_context(device); wrong != k_success) return wrong;
  return it.driver.ask({Ask::k_free, device, address}).result;
}
