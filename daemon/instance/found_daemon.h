// A control daemon that an earlier supervisor left running, as /proc shows it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "process/proc.h"

namespace mps::instance {

struct FoundDaemon {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;
  std::string device;          // CUDA_VISIBLE_DEVICES it was started with; empty: cannot be read
  std::vector<pid_t> servers;  // its children
  std::string unfit{};         // why it cannot serve on; empty: it can
};

// The daemon with this pid, if it is one: NVIDIA's program (-f or -d), of this uid, and alive.
std::optional<FoundDaemon> identify_daemon(const process::Proc& proc, pid_t pid, uid_t uid);

std::vector<pid_t> servers_of(const process::Proc& proc, pid_t daemon);

}  // namespace mps::instance
