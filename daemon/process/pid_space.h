// Whether the pids that this process sees are those of the node: of the first pid namespace, which
// the kernel gives a fixed number (PROC_PID_INIT_INO). In another one processes are hidden from us,
// and a pid that a driver or a host's file names is somebody else's, or nobody's.
//
// Threading: stateless, any thread.
#pragma once

#include <filesystem>

namespace mps::process {

// False also where it cannot be told.
bool in_node_pid_namespace(const std::filesystem::path& proc = "/proc");

}  // namespace mps::process
