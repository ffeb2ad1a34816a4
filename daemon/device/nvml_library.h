// NVML as loaded by dlopen: its entry points, and a session of it. Every call may block for as long
// as the driver likes: only for the worker thread.
#pragma once

#include <array>
#include <string>
#include <utility>

#include "base/result.h"
#include "device/nvml_abi.h"

namespace mps::device::nvml {

// An entry point under its documented name; null where this library lacks it. The name without its
// version suffix is what messages say.
template <typename Signature>
struct Entry {
  const char* symbol;
  Signature call = nullptr;
};

class Library {
 public:
  // Loads it, if it is not loaded yet. It is never unloaded: a thread may be stuck in it.
  Result<void> load(const std::string& file);

  // "nvmlDeviceGetMemoryInfo: Unknown Error"
  [[nodiscard]] std::string describe(const char* symbol, Return code) const;

  // k_function_not_found where the library lacks the entry point.
  template <typename Signature, typename... Arguments>
  Return call(const Entry<Signature>& entry, Arguments... arguments) const {
    return entry.call == nullptr ? k_function_not_found : entry.call(arguments...);
  }

  Entry<InitFunction> init{"nvmlInit_v2"};
  Entry<ShutdownFunction> shutdown{"nvmlShutdown"};
  Entry<ErrorStringFunction> error_string{"nvmlErrorString"};
  Entry<TextFunction> driver_version{"nvmlSystemGetDriverVersion"};
  Entry<CountFunction> count{"nvmlDeviceGetCount_v2"};
  Entry<HandleByIndexFunction> by_index{"nvmlDeviceGetHandleByIndex_v2"};
  Entry<HandleByUuidFunction> by_uuid{"nvmlDeviceGetHandleByUUID"};
  Entry<DeviceTextFunction> uuid{"nvmlDeviceGetUUID"};
  Entry<DeviceTextFunction> name{"nvmlDeviceGetName"};
  Entry<MemoryV2Function> memory_v2{"nvmlDeviceGetMemoryInfo_v2"};
  Entry<MemoryFunction> memory{"nvmlDeviceGetMemoryInfo"};
  Entry<TwoIntsFunction> compute_capability{"nvmlDeviceGetCudaComputeCapability"};
  Entry<NumberFunction> cores{"nvmlDeviceGetNumGpuCores"};
  Entry<AttributesFunction> attributes{"nvmlDeviceGetAttributes_v2"};
  Entry<NumberFunction> compute_mode{"nvmlDeviceGetComputeMode"};
  Entry<SetNumberFunction> set_compute_mode{"nvmlDeviceSetComputeMode"};
  Entry<TwoNumbersFunction> mig_mode{"nvmlDeviceGetMigMode"};
  Entry<NumberFunction> mig_count{"nvmlDeviceGetMaxMigDeviceCount"};
  Entry<ChildFunction> mig_by_index{"nvmlDeviceGetMigDeviceHandleByIndex"};
  Entry<NumberFunction> virtualization{"nvmlDeviceGetVirtualizationMode"};
  Entry<PciFunction> pci{"nvmlDeviceGetPciInfo_v3"};
  // The newest first.
  std::array<Entry<ProcessesFunction>, 3> processes{{{"nvmlDeviceGetComputeRunningProcesses_v3"},
                                                     {"nvmlDeviceGetComputeRunningProcesses_v2"},
                                                     {"nvmlDeviceGetComputeRunningProcesses"}}};
  std::array<Entry<ProcessesFunction>, 3> mps_processes{
      {{"nvmlDeviceGetMPSComputeRunningProcesses_v3"},
       {"nvmlDeviceGetMPSComputeRunningProcesses_v2"},
       {"nvmlDeviceGetMPSComputeRunningProcesses"}}};
  Entry<NumberFunction> gpu_instance{"nvmlDeviceGetGpuInstanceId"};
  Entry<NumberFunction> compute_instance{"nvmlDeviceGetComputeInstanceId"};
  Entry<EventSetFunction> event_set_create{"nvmlEventSetCreate"};
  Entry<EventSetFreeFunction> event_set_free{"nvmlEventSetFree"};
  Entry<EventTypesFunction> event_types{"nvmlDeviceGetSupportedEventTypes"};
  Entry<RegisterEventsFunction> register_events{"nvmlDeviceRegisterEvents"};
  Entry<EventWaitFunction> event_wait{"nvmlEventSetWait_v2"};
  Entry<FieldsFunction> fields{"nvmlDeviceGetFieldValues"};

 private:
  Result<void> bind();
  void* handle_ = nullptr;
};

// From nvmlInit to nvmlShutdown.
class Session {
 public:
  // Loads the library first where that is still to be done.
  static Result<Session> open(Library& library, const std::string& name);
  Session(Session&& other) noexcept : library_(std::exchange(other.library_, nullptr)) {}
  Session& operator=(Session&&) = delete;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() {
    if (library_ != nullptr) library_->call(library_->shutdown);
  }

 private:
  explicit Session(Library& library) : library_(&library) {}
  Library* library_;
};

}  // namespace mps::device::nvml
