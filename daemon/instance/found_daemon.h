// A control daemon that an earlier supervisor left running, as /proc shows it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "instance/layout.h"
#include "process/proc.h"

namespace mps::instance {

struct FoundDaemon {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;
  std::string device;          // CUDA_VISIBLE_DEVICES it was started with; empty: cannot be read
  std::vector<pid_t> servers;  // its children
  std::string unfit{};         // why it cannot serve on; empty: it can

  [[nodiscard]] bool can_serve(const std::string& wanted_device) const {
    return unfit.empty() && (device.empty() || device == wanted_device);
  }
};

// The daemon with this pid, if it is one: NVIDIA's program (-f or -d), of this uid, and alive.
std::optional<FoundDaemon> identify_daemon(const process::Proc& proc, pid_t pid, uid_t uid);

// That of an instance is who holds the lock in its pipe directory: the lock file is ours alone, so
// a process that only looks like a daemon (uid 0 in a container can choose its name, arguments and
// environment) is never taken for one. Without a gate one whose directory is private is unfit: no
// share's socket can be a link of its own.
std::optional<FoundDaemon> find_daemon(const process::Proc& proc, const Layout& layout,
                                       bool with_gate);

// When a process with this start_ticks was started.
std::chrono::system_clock::time_point started_at(std::uint64_t start_ticks);

std::vector<pid_t> servers_of(const process::Proc& proc, pid_t daemon);

}  // namespace mps::instance
