// Whether a program that has a device's nodes can use it without MPS and without being noticed.
// Pure.
#pragma once

#include "device/device.h"
#include "instance/snapshot.h"

namespace mps::app {

// `device`: as NVML says it now; none: not known. `audited`: NVML says who uses it.
//
// closed: the server has the device for itself, which is only so for a whole GPU in an exclusive
// mode, while that server runs; two servers (a namespace's own) do not go with that mode.
instance::Bypass bypass_of(const instance::Snapshot& instance, const device::Device* device,
                           bool audited);

}  // namespace mps::app
