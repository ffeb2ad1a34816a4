// One supervisor a run directory: a lock on <run>/supervisor.lock that ends with the process.
#pragma once

#include <filesystem>
#include <variant>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::app {

// Somebody else holds it; `holder` is the pid that it wrote down, 0 where it cannot be read.
struct LockHeld {
  pid_t holder = 0;
};

// The state directory: made if it is missing (its parent is not), ours, and with mode 0700.
Result<void> make_private_directory(const std::filesystem::path& path);

// The run directory is made if it is missing (its parent is not). One that others may write in, or
// that is somebody else's, is an Error: whoever can rename what is in it would rule here.
std::variant<UniqueFd, LockHeld, Error> lock_run_directory(const std::filesystem::path& run_dir);

}  // namespace mps::app
