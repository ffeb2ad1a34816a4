// Modules, kernels and waiting for them.
#include <cstring>
#include <string_view>

#include "libcuda_state.h"

using namespace mps::sim;  // NOLINT: this file is that namespace's C face

MPS_SIM_EXPORT int cuModuleLoadData(void** module, const void* image) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  std::uint32_t device = 0;
  if (const int wrong = in_context(device); wrong != k_success) return wrong;
  if (module == nullptr || image == nullptr) return k_invalid_value;
  const std::string_view text = static_cast<const char*>(image);
  if (text.find(".version") == std::string_view::npos) return k_invalid_image;
  const Reply reply = it.driver.ask({Ask::k_memory, device, 0});  // a sticky error shows here too
  if (reply.result != k_success) return reply.result;
  *module = new char;  // only its address matters
  it.modules[*module] = entries_of(text);
  return k_success;
}

MPS_SIM_EXPORT int cuModuleUnload(void* module) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  if (it.modules.erase(module) == 0) return k_invalid_handle;
  delete static_cast<char*>(module);
  return k_success;
}

// What it returns is good for as long as the process is, as nobody unloads what he launches.
MPS_SIM_EXPORT int cuModuleGetFunction(void** function, void* module, const char* name) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  const auto found = it.modules.find(module);
  if (found == it.modules.end()) return k_invalid_handle;
  for (std::string& entry : found->second) {
    if (entry != name) continue;
    *function = &entry;
    it.functions[*function] = kernel_named(entry);
    return k_success;
  }
  return k_not_found;
}

MPS_SIM_EXPORT int cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned,
                                  unsigned, unsigned, void*, void** parameters, void**) {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  std::uint32_t device = 0;
  if (const int wrong = in_context(device); wrong != k_success) return wrong;
  const auto found = it.functions.find(function);
  if (found == it.functions.end()) return k_invalid_handle;
  Request request{Ask::k_launch, device, 0, found->second};
  if (request.kernel == Kernel::k_spin) {
    if (parameters == nullptr) return k_invalid_value;
    std::memcpy(&request.value, parameters[0], sizeof request.value);
  }
  return it.driver.ask(request).result;
}

namespace {

int synchronize() {
  State& it = state();
  const std::lock_guard lock(it.mutex);
  std::uint32_t device = 0;
  if (const int wrong = in_context(device); wrong != k_success) return wrong;
  return it.driver.ask({Ask::k_synchronize, device, 0}).result;
}

}  // namespace

MPS_SIM_EXPORT int cuCtxSynchronize() {
  return synchronize();
}

MPS_SIM_EXPORT int cuStreamSynchronize(void*) {
  return synchronize();
}
