// Control daemons that an earlier supervisor of the same run directory left running, found by what
// they are: the program's name, our uid, and the pipe directory in their environment.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "instance/actor.h"
#include "process/proc.h"

namespace mps::app {

// By instance id. Where two claim one pipe directory (a daemon forks before it executes a server),
// the older one counts.
std::map<std::string, instance::FoundDaemon> find_left_daemons(const process::Proc& proc,
                                                               const std::filesystem::path& run_dir,
                                                               uid_t uid);

}  // namespace mps::app
