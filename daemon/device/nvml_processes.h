// The processes with a compute context on some devices, as NVML says now. Blocks as NVML does: only
// for the worker thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "device/gpu_process.h"
#include "device/nvml_library.h"

namespace mps::device::nvml {

// An Error only where nothing could be asked ("nvmlInit: Driver Not Loaded").
Result<std::vector<DeviceProcesses>> processes(Library& library, const std::string& name,
                                               const std::vector<std::string>& uuids);

}  // namespace mps::device::nvml
