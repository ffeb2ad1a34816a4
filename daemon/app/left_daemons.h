// Control daemons that an earlier supervisor of the same run directory left running.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "instance/found_daemon.h"

namespace mps::app {

// By instance id; see find_daemon().
std::map<std::string, instance::FoundDaemon> find_left_daemons(const std::filesystem::path& run_dir,
                                                               bool with_gates);

}  // namespace mps::app
