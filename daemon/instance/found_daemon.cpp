#include "instance/found_daemon.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "instance/pipe_place.h"

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

bool is_private(const Layout& layout, pid_t daemon) {
  const auto place = PipePlace::of(layout, daemon);
  return place && (*place)->is_private();
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

std::optional<FoundDaemon> find_daemon(const process::Proc& proc, const Layout& layout,
                                       bool with_gate) {
  const auto holder = layout.lock_holder();
  if (holder <= 0) return std::nullopt;
  auto daemon = identify_daemon(proc, holder, ::geteuid());
  if (daemon && !with_gate && is_private(layout, holder)) {
    daemon->unfit = "only a gate gets to it, and there is none any more";
  }
  return daemon;
}

std::chrono::system_clock::time_point started_at(std::uint64_t start_ticks) {
  timespec since_boot{};
  ::clock_gettime(CLOCK_BOOTTIME, &since_boot);
  const std::chrono::duration<double> up(static_cast<double>(since_boot.tv_sec));
  const std::chrono::duration<double> at(static_cast<double>(start_ticks) /
                                         static_cast<double>(::sysconf(_SC_CLK_TCK)));
  return std::chrono::system_clock::now() -
         std::chrono::duration_cast<std::chrono::system_clock::duration>(up - at);
}

}  // namespace mps::instance
