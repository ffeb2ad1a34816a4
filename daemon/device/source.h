// Where devices come from: NVML, or the settings where there is none.
//
// NVML is loaded by dlopen and called on one thread of its own, since it can block for as long as
// the driver likes; each call has a deadline, after which the device shows the error and what was
// known stays. NVML is initialised for each call and shut down after it: each answer is of now, and
// we never stand in the way of a GPU reset, a change of MIG mode or a driver upgrade. Threading:
// made on and called from one executor; answers arrive there.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "device/gpu_process.h"

namespace mps::device {

class Source {
 public:
  virtual ~Source() = default;

  // What is there now. Never fails as a whole: errors stand in the inventory and its devices.
  virtual boost::asio::awaitable<Inventory> list() = 0;
  virtual boost::asio::awaitable<Result<void>> set_compute_mode(std::string uuid,
                                                                ComputeMode mode) = 0;
  // Who uses these devices, one answer for each in the same order. An Error where nothing could be
  // asked at all.
  virtual boost::asio::awaitable<Result<std::vector<DeviceProcesses>>> processes(
      std::vector<std::string> uuids) = 0;
};

struct NvmlSettings {
  std::string library = "libnvidia-ml.so.1";  // a name for dlopen, or a path
  // For each call. Without persistence mode the driver takes a second or
  // two to wake each GPU, one after the other.
  std::chrono::milliseconds timeout{30000};
};
std::unique_ptr<Source> make_nvml_source(const boost::asio::any_io_executor& executor,
                                         NvmlSettings settings);
// The devices of the settings' `devices:` list, as they stand.
std::unique_ptr<Source> make_declared_source(std::vector<Device> devices);

}  // namespace mps::device
