#include "app/left_daemons.h"

#include <unistd.h>

#include "instance/layout.h"
#include "instance/pipe_place.h"

namespace mps::app {

namespace {

bool is_private(const instance::Layout& layout, pid_t daemon) {
  const auto place = instance::PipePlace::of(layout, daemon);
  return place && (*place)->is_private();
}

}  // namespace

std::map<std::string, instance::FoundDaemon> find_left_daemons(const std::filesystem::path& run_dir,
                                                               bool with_gates) {
  std::map<std::string, instance::FoundDaemon> found;
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir, unreadable)) {
    const auto id = entry.path().filename().string();
    const instance::Layout layout(run_dir, id);
    const auto holder = layout.lock_holder();
    if (holder <= 0) continue;
    auto daemon = instance::identify_daemon(process::Proc(), holder, ::geteuid());
    if (!daemon) continue;
    if (!with_gates && is_private(layout, holder)) {
      daemon->unfit = "only a gate gets to it, and there is none any more";
    }
    found.emplace(id, std::move(*daemon));
  }
  return found;
}

}  // namespace mps::app
