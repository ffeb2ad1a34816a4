// The actor's share of where the daemon's own directory is: private behind a gate, where that can
// be had.
#include <utility>

#include "instance/actor.h"

namespace mps::instance {

void Actor::take_place(std::shared_ptr<const PipePlace> place) {
  place_ = std::move(place);
  door_->daemon_is_at(place_);
}

Result<void> Actor::prepare_place() {
  if (door_->gate() != GateState::direct) {
    auto made = PipePlace::make_private(layout_);
    if (made) {
      take_place(std::move(*made));
      return {};
    }
    say_visible("no private mount namespace can be made for it: " + made.error().message +
                "; it needs CAP_SYS_ADMIN and CAP_SYS_CHROOT");
  }
  take_place(PipePlace::visible(layout_));
  return layout_.make_lock();
}

void Actor::find_place(pid_t daemon) {
  auto found = PipePlace::of(layout_, daemon);
  if (found) {
    take_place(std::move(*found));
  } else {
    // As what it was where there are no rights to look; commands tell whether it is.
    take_place(PipePlace::visible(layout_));
  }
  if (door_->gate() == GateState::direct || place_->is_private()) return;
  say_visible(
      found ? "the daemon was started so by an earlier supervisor, and a restart of it ends that"
            : "that of the daemon that was found cannot be looked for: " + found.error().message);
}

void Actor::say_visible(const std::string& why) {
  if (std::exchange(visible_said_, true)) return;
  carry_out(Emit{"pipe_directory_visible",
                 "the daemon's own directory " + layout_.pipe.string() +
                     " is open to every user of this node, who gets to the daemon past the gate "
                     "there: " +
                     why,
                 {}});
}

}  // namespace mps::instance
