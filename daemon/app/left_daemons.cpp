#include "app/left_daemons.h"

#include "instance/layout.h"

namespace mps::app {

std::map<std::string, instance::FoundDaemon> find_left_daemons(const std::filesystem::path& run_dir,
                                                               bool with_gates) {
  std::map<std::string, instance::FoundDaemon> found;
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir, unreadable)) {
    const auto id = entry.path().filename().string();
    const instance::Layout layout(run_dir, id);
    auto daemon = instance::find_daemon(process::Proc(), layout, with_gates);
    if (daemon) found.emplace(id, std::move(*daemon));
  }
  return found;
}

}  // namespace mps::app
