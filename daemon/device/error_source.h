// Xid errors and recovery actions of GPUs, as NVML tells them.
//
// Listening is done on a thread of its own, which sits in NVML's wait; NVML is used from several
// threads at once, as its documentation allows. What goes wrong is tried again after a pause that
// doubles. While anything is watched, NVML stays initialised in this process and may keep the
// devices of all GPUs open, and so be in the way of a reset, a change of MIG mode or a new driver:
// watch only what MPS runs on, and nothing when the driver is to go.
//
// Threading: made on, called from and calling back on one executor. Errors that come while NVML is
// being reopened are not told by NVML.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace mps::device {

struct XidSeen {
  unsigned number = 0;  // 999: NVML does not know it itself
  // In MIG mode and where NVML attributes it; without the privilege NVML tells only what befalls
  // the whole GPU.
  std::optional<unsigned> gpu_instance{};
  std::optional<unsigned> compute_instance{};
  std::string mig_uuid{};                        // of the one MIG device that this is
  std::chrono::system_clock::time_point time{};  // when NVML told us
};

// Each is called with the GPU's UUID, also for what befalls one of its MIG devices.
struct ErrorCallbacks {
  std::function<void(const std::string& gpu, const XidSeen& xid)> on_error;
  // NVML's number of what is to be done about the GPU (nvmlDeviceGpuRecoveryAction_t), where the
  // driver has that: what it was when watching began; each change; after errors, changed or not,
  // what it was once they were told; and what it is when it can be read again, changed or not.
  std::function<void(const std::string& gpu, unsigned action)> on_action;
  // Whether its errors are told: empty, or why not. First when that is known, then when it changes.
  std::function<void(const std::string& gpu, const std::string& why_not)> on_listening;
  // So many errors came faster than they were taken, and are not told.
  std::function<void(std::uint64_t count)> on_lost;
};

class ErrorSource {
 public:
  virtual ~ErrorSource() = default;  // nothing is called after it

  // Exactly these GPUs, by UUID, from now on; a MIG device's errors come with its GPU. Meant to be
  // called with each inventory: it also has actions other than "none" looked at again, and those
  // that could not be read, and says it where NVML does not answer. Nothing watched: NVML is let go
  // of, after a wait's time at most.
  virtual void watch(std::set<std::string> gpus) = 0;
};

struct ErrorSettings {
  std::string library = "libnvidia-ml.so.1";  // a name for dlopen, or a path
  std::chrono::milliseconds wait{1000};       // for an event, again and again
  std::chrono::milliseconds patience{30000};  // with calls of NVML, before it is said
};
std::unique_ptr<ErrorSource> make_nvml_error_source(const boost::asio::any_io_executor& executor,
                                                    ErrorSettings settings,
                                                    ErrorCallbacks callbacks);

}  // namespace mps::device
