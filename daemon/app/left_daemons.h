// Control daemons that an earlier supervisor of the same run directory left running.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "instance/found_daemon.h"

namespace mps::app {

// By instance id. The daemon of an instance is who holds the lock in its pipe directory: the lock
// file is ours alone, so a process that only looks like a daemon (uid 0 in a container can choose
// its name, arguments and environment) is never taken for one.
// Without gates one whose directory is private is unfit: no share's socket can be a link of its
// own.
std::map<std::string, instance::FoundDaemon> find_left_daemons(const std::filesystem::path& run_dir,
                                                               bool with_gates);

}  // namespace mps::app
