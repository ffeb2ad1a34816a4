// The entry points. Each reads the inventory anew, so that hardware changes under its user; see
// inventory.cpp for the file and README.md for examples.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "calls.h"

namespace {

using namespace mps::sim;  // NOLINT: this file is that namespace's C face
constexpr unsigned long long k_mebibyte = 1024ULL * 1024;

nvml::Return copy_text(const std::string& text, char* buffer, unsigned size) {
  if (buffer == nullptr) return k_invalid_argument;
  if (text.size() >= size) return nvml::k_insufficient_size;
  std::memcpy(buffer, text.c_str(), text.size() + 1);
  return nvml::k_success;
}

constexpr std::array<std::pair<nvml::Return, const char*>, 14> k_error_texts{{
    {0, "Success"},
    {1, "Uninitialized"},
    {2, "Invalid Argument"},
    {3, "Not Supported"},
    {4, "Insufficient Permissions"},
    {6, "Not Found"},
    {7, "Insufficient Size"},
    {9, "Driver Not Loaded"},
    {10, "Timeout"},
    {13, "Function Not Found"},
    {15, "GPU is lost"},
    {16, "GPU requires restart"},
    {18, "Driver/library version mismatch"},
    {25, "Argument version mismatch"},
}};

unsigned cores_of(const SimDevice& device) {
  const bool small = device.major == 7 || (device.major == 8 && device.minor == 0) ||
                     (device.major == 6 && device.minor == 0);
  return device.sms * (small ? 64 : 128);
}

// On a MIG device its own; on a GPU those of its MIG devices too, as a privileged caller sees them.
bool is_on(const SimInventory& inventory, const mps::sim::SimProcess& process,
           const SimDevice& device) {
  if (process.uuid == device.uuid) return true;
  const auto* place = inventory.find(process.uuid);
  return place != nullptr && place->parent == device.uuid;
}

nvml::ProcessInfo info_of(const SimInventory& inventory, const mps::sim::SimProcess& process) {
  nvml::ProcessInfo info{process.pid, nvml::k_memory_not_available, nvml::k_no_instance,
                         nvml::k_no_instance};
  if (process.memory_mebibytes) info.used_memory = *process.memory_mebibytes * k_mebibyte;
  const auto* place = inventory.find(process.uuid);
  if (place != nullptr && place->parent) {
    info.gpu_instance = place->place + 1;
    info.compute_instance = 0;
  }
  return info;
}

nvml::Return list_processes(const char* entry, bool mps, std::optional<unsigned> entry_size,
                            nvml::Handle handle, unsigned* count, void* entries) {
  return device_call(entry, handle, [=](const SimInventory& inventory, const SimDevice& device) {
    std::vector<nvml::ProcessInfo> found;
    for (const auto& process : inventory.processes) {
      if (process.mps == mps && is_on(inventory, process, device)) {
        found.push_back(info_of(inventory, process));
      }
    }
    const bool fit = found.size() <= *count;
    *count = static_cast<unsigned>(found.size());
    if (!fit) return nvml::k_insufficient_size;
    const std::size_t size = entry_size.value_or(inventory.process_size);
    auto* to = static_cast<unsigned char*>(entries);
    for (const auto& info : found) {
      std::memset(to, 0, size);
      std::memcpy(to, &info, std::min(size, sizeof info));
      to += size;
    }
    return nvml::k_success;
  });
}

}  // namespace

extern "C" {

MPS_SIM_ENTRY nvmlInit_v2() {
  SimInventory inventory;
  const auto code = enter("nvmlInit_v2", {}, inventory);
  if (code != nvml::k_success) return code;
  auto& lib = library();
  const std::lock_guard lock(lib.mutex);
  ++lib.initialised;
  return nvml::k_success;
}

MPS_SIM_ENTRY nvmlShutdown() {
  return global_call("nvmlShutdown", [](const SimInventory&) {
    auto& lib = library();
    const std::lock_guard lock(lib.mutex);
    --lib.initialised;
    return nvml::k_success;
  });
}

__attribute__((visibility("default"))) const char* nvmlErrorString(nvml::Return code) {
  const auto found =
      std::ranges::find(k_error_texts, code, &std::pair<nvml::Return, const char*>::first);
  return found == k_error_texts.end() ? "Unknown Error" : found->second;
}

MPS_SIM_ENTRY nvmlSystemGetDriverVersion(char* text, unsigned size) {
  return global_call("nvmlSystemGetDriverVersion", [=](const SimInventory& inventory) {
    return copy_text(inventory.driver, text, size);
  });
}

MPS_SIM_ENTRY nvmlDeviceGetCount_v2(unsigned* count) {
  return global_call("nvmlDeviceGetCount_v2", [=](const SimInventory& inventory) {
    *count = static_cast<unsigned>(inventory.gpus().size());
    return nvml::k_success;
  });
}

MPS_SIM_ENTRY nvmlDeviceGetHandleByIndex_v2(unsigned index, nvml::Handle* handle) {
  std::string uuid;
  const auto code =
      global_call("nvmlDeviceGetHandleByIndex_v2", [&uuid, index](const SimInventory& inventory) {
        const auto gpus = inventory.gpus();
        if (index >= gpus.size()) return k_invalid_argument;
        uuid = gpus[index]->uuid;
        return nvml::k_success;
      });
  if (code != nvml::k_success) return code;
  // A second look, for a failure that is meant for this device only.
  SimInventory inventory;
  const auto own = enter("nvmlDeviceGetHandleByIndex_v2", uuid, inventory);
  if (own == nvml::k_success) *handle = handle_of(uuid);
  return own;
}

MPS_SIM_ENTRY nvmlDeviceGetHandleByUUID(const char* uuid, nvml::Handle* handle) {
  return global_call("nvmlDeviceGetHandleByUUID", [=](const SimInventory& inventory) {
    const auto* device = inventory.find(uuid);
    if (device == nullptr) return nvml::k_not_found;
    *handle = handle_of(device->uuid);
    return nvml::k_success;
  });
}

MPS_SIM_ENTRY nvmlDeviceGetUUID(nvml::Handle handle, char* text, unsigned size) {
  return device_call("nvmlDeviceGetUUID", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       return copy_text(device.uuid, text, size);
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetName(nvml::Handle handle, char* text, unsigned size) {
  return device_call("nvmlDeviceGetName", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       return copy_text(device.name, text, size);
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetMemoryInfo(nvml::Handle handle, nvml::Memory* memory) {
  return device_call("nvmlDeviceGetMemoryInfo", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       memory->total = device.memory_mebibytes * k_mebibyte;
                       memory->used = device.reserved_mebibytes * k_mebibyte;
                       memory->free = memory->total - memory->used;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetMemoryInfo_v2(nvml::Handle handle, nvml::MemoryV2* memory) {
  if (memory == nullptr || memory->version != nvml::k_memory_v2) {
    return nvml::k_argument_version_mismatch;
  }
  return device_call("nvmlDeviceGetMemoryInfo_v2", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       memory->total = device.memory_mebibytes * k_mebibyte;
                       memory->reserved = device.reserved_mebibytes * k_mebibyte;
                       memory->used = 0;
                       memory->free = memory->total - memory->reserved;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetCudaComputeCapability(nvml::Handle handle, int* major, int* minor) {
  return device_call("nvmlDeviceGetCudaComputeCapability", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       *major = device.major;
                       *minor = device.minor;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetNumGpuCores(nvml::Handle handle, unsigned* cores) {
  return device_call("nvmlDeviceGetNumGpuCores", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (device.parent) return nvml::k_not_supported;
                       *cores = cores_of(device);
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetAttributes_v2(nvml::Handle handle, nvml::Attributes* attributes) {
  return device_call("nvmlDeviceGetAttributes_v2", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (!device.parent) return nvml::k_not_supported;
                       *attributes = {};
                       attributes->multiprocessor_count = device.sms;
                       attributes->memory_size_mebibytes = device.memory_mebibytes;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetComputeMode(nvml::Handle handle, unsigned* mode) {
  return device_call("nvmlDeviceGetComputeMode", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (device.parent) return nvml::k_not_supported;
                       *mode = device.mode;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceSetComputeMode(nvml::Handle handle, unsigned mode) {
  return device_call(
      "nvmlDeviceSetComputeMode", handle, [=](const SimInventory&, const SimDevice& device) {
        if (device.parent) return nvml::k_not_supported;
        if (mode >= nvml::k_compute_mode_count) return k_invalid_argument;
        return mps::sim::store_compute_mode(device.uuid, mode) ? nvml::k_success : k_unknown;
      });
}

MPS_SIM_ENTRY nvmlDeviceGetMigMode(nvml::Handle handle, unsigned* current, unsigned* pending) {
  return device_call("nvmlDeviceGetMigMode", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       // MIG came with compute capability 8.0.
                       if (device.parent || device.major < 8) return nvml::k_not_supported;
                       *current = *pending = device.mig_enabled ? nvml::k_mig_enabled : 0;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetMaxMigDeviceCount(nvml::Handle handle, unsigned* count) {
  return device_call("nvmlDeviceGetMaxMigDeviceCount", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (device.parent) return nvml::k_not_supported;
                       *count = device.mig_enabled ? 7 : 0;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetMigDeviceHandleByIndex(nvml::Handle handle, unsigned index,
                                                  nvml::Handle* child) {
  return device_call("nvmlDeviceGetMigDeviceHandleByIndex", handle,
                     [=](const SimInventory& inventory, const SimDevice& device) {
                       const auto* found = inventory.mig_at(device.uuid, index);
                       if (found == nullptr) return nvml::k_not_found;
                       *child = handle_of(found->uuid);
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetVirtualizationMode(nvml::Handle handle, unsigned* mode) {
  return device_call("nvmlDeviceGetVirtualizationMode", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (device.parent) return nvml::k_not_supported;
                       *mode = device.vgpu_guest ? nvml::k_virtualization_vgpu_guest : 0;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetPciInfo_v3(nvml::Handle handle, nvml::PciInfo* pci) {
  return device_call("nvmlDeviceGetPciInfo_v3", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (device.parent) return nvml::k_not_supported;
                       *pci = {};
                       std::snprintf(pci->bus_id, sizeof(pci->bus_id), "%s", device.pci.c_str());
                       return nvml::k_success;
                     });
}

#define MPS_SIM_PROCESSES(name, mps, size)                                               \
  MPS_SIM_ENTRY name(nvml::Handle handle, unsigned* count, nvml::ProcessInfo* entries) { \
    return list_processes(#name, mps, size, handle, count, entries);                     \
  }
MPS_SIM_PROCESSES(nvmlDeviceGetComputeRunningProcesses, false, 16U)
MPS_SIM_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, false, std::nullopt)
MPS_SIM_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, false, std::nullopt)
MPS_SIM_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, true, 16U)
MPS_SIM_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, true, std::nullopt)
MPS_SIM_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, true, std::nullopt)
#undef MPS_SIM_PROCESSES

MPS_SIM_ENTRY nvmlDeviceGetGpuInstanceId(nvml::Handle handle, unsigned* id) {
  return device_call("nvmlDeviceGetGpuInstanceId", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (!device.parent) return nvml::k_not_supported;
                       *id = device.place + 1;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceGetComputeInstanceId(nvml::Handle handle, unsigned* id) {
  return device_call("nvmlDeviceGetComputeInstanceId", handle,
                     [=](const SimInventory&, const SimDevice& device) {
                       if (!device.parent) return nvml::k_not_supported;
                       *id = 0;
                       return nvml::k_success;
                     });
}

}  // extern "C"
