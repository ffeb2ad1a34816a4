// `mps-ctl doctor`: looks at the node and says what stands in the way of MPS, why it matters and
// what to do. Reads only; may take as long as NVML's deadline. Threading: blocks its caller, any
// thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "device/device.h"
#include "device/source.h"

namespace mps::ctl {

enum class Severity { ok, note, warning, error };
const char* to_string(Severity severity);

struct Finding {
  Severity severity = Severity::ok;
  std::string check{};    // what was looked at: "programs", "device gpu0"
  std::string message{};  // what was found
  std::string advice{};   // what to do; empty where nothing is to be done
  bool operator==(const Finding&) const = default;
};
using Findings = std::vector<Finding>;

struct DoctorOptions {
  std::filesystem::path run_dir = "/run/mps";
  // Where NVIDIA's programs were found, or why not (the search is the daemon's own).
  std::filesystem::path control_program{};
  std::filesystem::path server_program{};
  std::string programs_error{};
  std::vector<std::filesystem::path> library_path{};  // looked through for libcuda.so.1 first
  // The devices of the settings; none: NVML is asked.
  std::optional<std::vector<device::Device>> devices{};
  std::filesystem::path policy_dir{};  // empty: not looked at
  bool exclusive = false;              // the devices are meant to be in that compute mode
  std::string nvml_library = "libnvidia-ml.so.1";
  std::chrono::milliseconds nvml_timeout = device::NvmlSettings{}.timeout;
  std::string supervisor_error{};         // why it was not reached; empty: it was
  std::optional<pid_t> supervisor_pid{};  // where it is known
  // What the supervisor says of devices that are out of service, a sentence each.
  std::vector<std::string> devices_out{};

  // Other places in tests.
  std::filesystem::path proc = "/proc";
  std::filesystem::path shared_memory = "/dev/shm";
  std::filesystem::path default_pipe_directory = "/tmp/nvidia-mps";
};

Findings run_doctor(const DoctorOptions& options);

// A line for each finding, its advice below it, and a line that counts.
std::string to_text(const Findings& findings);
// An array of {severity, check, message, advice}.
nlohmann::json to_json(const Findings& findings);
// 1 where one of them is an error.
int exit_status(const Findings& findings);

}  // namespace mps::ctl
