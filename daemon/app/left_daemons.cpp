#include "app/left_daemons.h"

#include <unistd.h>

#include "instance/layout.h"

namespace mps::app {

std::map<std::string, instance::FoundDaemon> find_left_daemons(
    const std::filesystem::path& run_dir) {
  std::map<std::string, instance::FoundDaemon> found;
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir, unreadable)) {
    const auto id = entry.path().filename().string();
    const auto holder = instance::Layout(run_dir, id).lock_holder();
    if (holder <= 0) continue;
    auto daemon = instance::identify_daemon(process::Proc(), holder, ::geteuid());
    if (daemon) found.emplace(id, std::move(*daemon));
  }
  return found;
}

}  // namespace mps::app
