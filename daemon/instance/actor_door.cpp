// The actor's share of the door: opened when the daemon's greeting is known, closed at once, and
// tried again where either fails.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <utility>

#include "instance/actor.h"

namespace mps::instance {

namespace asio = boost::asio;

namespace {
constexpr std::chrono::seconds k_door_again{1};
}  // namespace

bool Actor::door_is_open() const {
  return !closed_ && (machine_.state() == State::ready || machine_.state() == State::faulted);
}

void Actor::door_failed(const std::string& message) {
  if (!std::exchange(door_trouble_, true)) carry_out(Emit{"door_failed", message, {}});
}

void Actor::carry_out(const OpenDoor&) {
  co_spawn(executor_, open_door(shared_from_this(), ++door_turn_), asio::detached);
}

asio::awaitable<void> Actor::open_door(Self self, std::uint64_t turn) {
  if (self->door_->gate() == GateState::direct) {
    // Who has come to the closed door can only be answered with it, and once the door is open
    // nobody thinks of them.
    // (A lambda made within the call is destroyed twice by gcc 12.)
    const std::function<bool()> wanted = [self, turn] {
      return turn == self->door_turn_ && self->door_is_open();
    };
    co_await learn_greeting(self, wanted);
  }
  while (turn == self->door_turn_ && self->door_is_open() && !self->mend_door()) {
    asio::steady_timer pause(self->executor_, k_door_again);
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

// As the daemon gives it now; where none is known, until it gives one or that is wanted no longer.
asio::awaitable<void> Actor::learn_greeting(Self self, std::function<bool()> wanted) {
  const auto control = self->place_->control();
  auto now = co_await ask_greeting(control);
  if (now) self->door_->greeting(std::move(*now));
  AwaitedGreeting greeting;
  greeting.control = control;
  greeting.wanted = [self, wanted = std::move(wanted)] {
    return self->door_->wants_greeting() && wanted();
  };
  greeting.said = [self](std::string bytes) { self->door_->greeting(std::move(bytes)); };
  greeting.failed = [self](const Error& error) {
    self->door_failed("newcomers wait, and are not answered yet: " + error.message +
                      "; it is asked again until it gives one");
  };
  co_await await_greeting(std::move(greeting));
}

bool Actor::mend_door() {
  const bool was_open = door_stands_;
  const auto opened = door_->open(place_->control());
  door_stands_ = opened.has_value();
  if (!opened) {
    door_failed("the share cannot be opened: " + opened.error().message);
    return false;
  }
  door_trouble_ = false;
  if (was_open && *opened) {
    carry_out(Emit{"door_mended",
                   "somebody had taken the share's socket away; until now programs that came "
                   "through it ran without MPS and its limits",
                   {}});
  }
  return true;
}

void Actor::carry_out(const CloseDoor&) {
  ++door_turn_;
  door_stands_ = false;
  std::error_code unreadable;
  // Without the directory nobody can have it mounted; why it is missing is said elsewhere.
  if (!std::filesystem::is_directory(layout_.open_pipe, unreadable)) return;
  const auto closed = door_->close();
  if (closed) {
    door_trouble_ = false;
    // A daemon that was adopted and drained at once has never had its door opened by us: without
    // its greeting newcomers would wait instead of being refused.
    if (!door_->wants_greeting()) return;
    const std::function<bool()> drains = [self = shared_from_this(), turn = door_turn_] {
      return turn == self->door_turn_ && !self->closed_ &&
             self->machine_.state() == State::draining;
    };
    co_spawn(executor_, learn_greeting(shared_from_this(), drains), asio::detached);
    return;
  }
  door_failed("newcomers cannot be refused: " + closed.error().message +
              "; until the daemon serves again they run without MPS and its limits");
  co_spawn(executor_, close_door_again(shared_from_this(), door_turn_), asio::detached);
}

asio::awaitable<void> Actor::close_door_again(Self self, std::uint64_t turn) {
  while (turn == self->door_turn_ && !self->closed_) {
    asio::steady_timer pause(self->executor_, k_door_again);
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    // Meanwhile the actor may have been closed, and the share be somebody else's.
    if (turn != self->door_turn_ || self->closed_ || self->door_->close()) co_return;
  }
}

}  // namespace mps::instance
