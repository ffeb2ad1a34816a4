#include "instance/found_daemon.h"

#include <algorithm>
#include <filesystem>

namespace mps::instance {

namespace {

constexpr std::string_view k_control = "nvidia-cuda-mps-control";
constexpr std::string_view k_server = "nvidia-cuda-mps-server";

std::string program_name(const std::vector<std::string>& command) {
  return command.empty() ? "" : std::filesystem::path(command.front()).filename().string();
}

// A daemon has -f or -d; a front-end has neither.
bool is_daemon(const std::vector<std::string>& command) {
  return program_name(command) == k_control &&
         std::any_of(command.begin() + 1, command.end(), [](const std::string& argument) {
           return argument == "-f" || argument == "-d";
         });
}

}  // namespace

std::vector<pid_t> servers_of(const process::Proc& proc, pid_t daemon) {
  std::vector<pid_t> servers;
  for (const auto child : proc.children(daemon)) {
    if (program_name(proc.command_line(child)) == k_server) servers.push_back(child);
  }
  return servers;
}

std::optional<FoundDaemon> identify_daemon(const process::Proc& proc, pid_t pid, uid_t uid) {
  const auto stat = proc.stat(pid);
  if (!stat || stat->state == 'Z' || stat->state == 'X') return std::nullopt;
  if (proc.uid(pid) != uid || !is_daemon(proc.command_line(pid))) return std::nullopt;
  return FoundDaemon{pid, stat->start_time,
                     proc.environment(pid, "CUDA_VISIBLE_DEVICES").value_or(""),
                     servers_of(proc, pid)};
}

}  // namespace mps::instance
