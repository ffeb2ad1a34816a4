#include "app/left_daemons.h"

#include <algorithm>

namespace mps::app {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view k_control = "nvidia-cuda-mps-control";
constexpr std::string_view k_server = "nvidia-cuda-mps-server";
constexpr std::size_t k_comm_length = 15;  // the kernel keeps no more of a name

std::string program_name(const std::vector<std::string>& command) {
  return command.empty() ? "" : fs::path(command.front()).filename().string();
}

// A daemon has -f or -d; a front-end has neither.
bool is_daemon(const std::vector<std::string>& command) {
  return program_name(command) == k_control &&
         std::any_of(command.begin() + 1, command.end(), [](const std::string& argument) {
           return argument == "-f" || argument == "-d";
         });
}

// "gpu0.shared" for "<run>/gpu0.shared/pipe"; empty for any other directory.
std::string instance_of(const fs::path& run_dir, const fs::path& pipe_directory) {
  if (pipe_directory.filename() != "pipe") return {};
  const auto root = pipe_directory.parent_path();
  return root.parent_path() == run_dir ? root.filename().string() : std::string();
}

std::vector<pid_t> servers_of(const process::Proc& proc, pid_t daemon) {
  std::vector<pid_t> servers;
  for (const auto child : proc.children(daemon)) {
    if (program_name(proc.command_line(child)) == k_server) servers.push_back(child);
  }
  return servers;
}

}  // namespace

std::map<std::string, instance::FoundDaemon> find_left_daemons(const process::Proc& proc,
                                                               const fs::path& run_dir, uid_t uid) {
  std::map<std::string, instance::FoundDaemon> found;
  for (const auto pid : proc.pids()) {
    const auto stat = proc.stat(pid);
    if (!stat || stat->state == 'Z' || stat->name != k_control.substr(0, k_comm_length)) continue;
    if (proc.uid(pid) != uid || !is_daemon(proc.command_line(pid))) continue;
    const auto pipe_directory = proc.environment(pid, "CUDA_MPS_PIPE_DIRECTORY");
    const auto id = pipe_directory ? instance_of(run_dir, *pipe_directory) : std::string();
    if (id.empty()) continue;
    const auto known = found.find(id);
    if (known != found.end() && known->second.start_ticks <= stat->start_time) continue;
    found[id] = {pid, stat->start_time, servers_of(proc, pid)};
  }
  return found;
}

}  // namespace mps::app
