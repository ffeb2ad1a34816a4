// Where NVIDIA's programs are, and the environment that a control daemon and its front-ends get.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mps::app {

// "NAME=value", as execve takes it.
using Environment = std::vector<std::string>;

Environment current_environment();

struct Programs {
  std::filesystem::path control;  // nvidia-cuda-mps-control: the daemon, and its front-end
  std::filesystem::path server;   // nvidia-cuda-mps-server: the daemon starts it by PATH
};

// Where drivers, their containers and their operators put programs.
std::span<const std::string_view> usual_program_folders();

// Looks in `mps_path`, then beside the other program (a server of another version than its daemon
// is of no use), then in the environment's PATH, then in `usual`. The Error says where it looked
// and what to do. Touches the file system, starts nothing.
Result<Programs> find_programs(const std::vector<std::filesystem::path>& mps_path,
                               const Environment& environment,
                               std::span<const std::string_view> usual = usual_program_folders());

// One of our own, beside this program or in ../libexec/mps-supervisor. The Error says where it
// looked.
Result<std::filesystem::path> find_own_program(std::string_view name);

// One of our libraries: the same places, and ../lib, where a build tree has it.
Result<std::filesystem::path> find_own_library(std::string_view name);

struct DaemonPlace {
  Programs programs;
  std::vector<std::filesystem::path> library_path;  // before what LD_LIBRARY_PATH has already
  std::filesystem::path pipe_directory;
  std::filesystem::path log_directory;
  std::string device;  // UUID of the one device that the daemon shall see
};

// The environment for that daemon. Nothing of the caller's that speaks to MPS, CUDA's choice of
// devices or systemd gets through: a CUDA_MPS_ACTIVE_THREAD_PERCENTAGE left in our own environment
// would become everybody's default, and a NOTIFY_SOCKET would let a daemon speak for us. Pure.
Environment daemon_environment(const Environment& inherited, const DaemonPlace& place);

}  // namespace mps::app
