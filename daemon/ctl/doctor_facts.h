// What `mps-ctl doctor` looks at, as plain values; judged by doctor_checks.h.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ctl/doctor.h"
#include "device/device.h"
#include "policy/generation.h"

namespace mps::ctl {

struct ClosedParent {
  std::string path{};
  mode_t mode = 0;  // permission bits
};

struct RunDirFacts {
  std::string path{};
  std::string error{};  // why it cannot be looked at, other than that it does not exist
  bool exists = false;
  bool is_directory = true;
  mode_t mode = 0755;
  uid_t owner = 0;
  std::vector<ClosedParent> closed_parents{};  // those that other users cannot pass through
  bool noexec = false;
  std::optional<std::uint64_t> free_bytes{};
  std::optional<std::uint64_t> free_inodes{};  // none: the file system has no fixed number
};

struct ForeignDaemon {  // a control daemon that is not in our run directory
  pid_t pid = 0;
  std::optional<std::string> pipe_directory{};  // none: the default one
};

struct SharedMemoryFacts {
  bool present = true;
  std::uint64_t size_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::vector<std::string> stale{};  // files of MPS servers whose process is gone
};

struct PolicyFacts {
  std::string error{};  // why the directory cannot be read
  // As a supervisor without a past would take them; none: not looked at.
  std::shared_ptr<const policy::Generation> generation{};
  std::vector<policy::DeviceFacts> devices{};
};

struct DoctorFacts {
  std::string control_program{};
  std::string server_program{};
  std::string programs_error{};
  std::string libcuda_error{};    // empty: it can be loaded
  std::string kernel_driver{};    // version of the kernel module; empty: not loaded
  bool declared_devices = false;  // NVML was not asked
  device::Inventory inventory{};
  RunDirFacts run_dir{};
  std::string default_pipe_directory{};
  bool default_pipe_directory_exists = false;
  bool default_control_socket_exists = false;
  std::vector<ForeignDaemon> foreign_daemons{};
  std::size_t unknown_daemons = 0;  // control daemons, ours or not: we may not see where they run
  PolicyFacts policies{};
  SharedMemoryFacts shared_memory{};
  std::optional<std::uint64_t> open_files{};  // the soft limit
  bool open_files_of_supervisor = false;      // else of this program
  std::string supervisor_error{};
  std::vector<std::string> devices_out{};  // of service, in the supervisor's words
  std::string kernel_release{};
  bool pidfd = true;      // pidfd_open, and waitid on it
  bool unix_diag = true;  // sock_diag answers for unix sockets
};

// Effects, thin: reads files, loads libcuda, asks NVML.
DoctorFacts gather_facts(const DoctorOptions& options);

}  // namespace mps::ctl
