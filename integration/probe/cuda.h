// CUDA's driver library, by name: the simulated one, or the real one on a machine with a GPU.
#pragma once

#include <dlfcn.h>

#include <string>

namespace mps::probe {

constexpr int k_missing = -1;  // this libcuda has no such function

class Cuda {
 public:
  Cuda() : library_(::dlopen("libcuda.so.1", RTLD_NOW)) {}
  [[nodiscard]] bool is_loaded() const { return library_ != nullptr; }

  template <typename... Arguments>
  int call(const char* name, Arguments... arguments) const {
    using Function = int (*)(Arguments...);
    const auto function = reinterpret_cast<Function>(::dlsym(library_, name));
    return function == nullptr ? k_missing : function(arguments...);
  }

  // "CUDA_ERROR_ILLEGAL_ADDRESS"; empty where the library doesn't know it.
  [[nodiscard]] std::string name_of(int result) const {
    const char* name = nullptr;
    return call("cuGetErrorName", result, &name) == 0 && name != nullptr ? name : "";
  }

 private:
  void* library_;  // never closed: the real one does not like it
};

}  // namespace mps::probe
