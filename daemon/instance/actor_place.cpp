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
      visible_said_ = false;
      take_place(std::move(*made));
      return {};
    }
    say_visible(visible() + "no private mount namespace can be made for it, which needs " +
                "CAP_SYS_ADMIN and CAP_SYS_CHROOT: " + made.error().message);
  }
  take_place(PipePlace::visible(layout_));
  return layout_.make_lock();
}

void Actor::find_place(pid_t daemon) {
  const auto found = PipePlace::of(layout_, daemon);
  take_place(found ? *found : PipePlace::visible(layout_));
  if (door_->gate() == GateState::direct || place_->is_private()) return;
  if (found) {
    say_visible(visible() + "an earlier supervisor started it so; it ends with its next start");
  } else {
    say_visible("it cannot be told who gets to the daemon in its own directory " +
                layout_.pipe.string() + ": " + found.error().message);
  }
}

std::string Actor::visible() const {
  return "every user of this node gets to the daemon past the gate, in its own directory " +
         layout_.pipe.string() + ": ";
}

void Actor::say_visible(const std::string& message) {
  if (!std::exchange(visible_said_, true)) {
    carry_out(Emit{"pipe_directory_visible", message, {}});
  }
}

}  // namespace mps::instance
