#include "app/newcomers.h"

#include <boost/asio/post.hpp>
#include <cerrno>
#include <csignal>
#include <utility>
#include <variant>

namespace mps::app {

namespace asio = boost::asio;
using std::chrono::steady_clock;

namespace {

bool has_ended(pid_t pid) {
  return ::kill(pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

Newcomers::Newcomers(const asio::any_io_executor& executor, HardLimitsSettings settings,
                     const std::shared_ptr<instance::Actor>& actor, Gate gate, Say say)
    : executor_(executor),
      line_(settings),
      actor_(actor),
      gate_(std::move(gate)),
      say_(std::move(say)),
      alarm_(executor) {}

void Newcomers::close() {
  closed_ = true;
  alarm_.cancel();
}

void Newcomers::comes(std::uint64_t peer, pid_t pid, const share::Grant& grant) {
  carry_out(line_.comes(peer, pid, grant, steady_clock::now()));
}
void Newcomers::not_entered(std::uint64_t peer) {
  carry_out(line_.not_entered(peer, steady_clock::now()));
}
void Newcomers::left(std::uint64_t peer) {
  carry_out(line_.left(peer, steady_clock::now()));
  look_soon();  // its process may have ended
}
void Newcomers::all_left() {
  carry_out(line_.all_left(steady_clock::now()));
}

// ---- what is seen ----

// Not from within what the instance, or the gate, is doing.
void Newcomers::look() {
  if (line_.wanted()) look_soon();
}

void Newcomers::look_soon() {
  if (closed_ || std::exchange(look_soon_, true)) return;
  asio::post(executor_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->closed_) return;
    self->look_soon_ = false;
    const auto actor = self->actor_.lock();
    const auto now = steady_clock::now();
    for (const auto pid : self->line_.on_their_way()) {
      if ((actor && actor->serves(pid)) || has_ended(pid)) {
        self->carry_out(self->line_.arrived(pid, now));
      }
    }
    const auto wanted = self->line_.wanted();
    if (!wanted) return;
    const auto limits = actor ? actor->limits_in_force() : std::nullopt;
    const bool there = limits &&
                       limits->active_thread_percentage == wanted->active_thread_percentage &&
                       limits->pinned_memory_mebibytes == wanted->pinned_memory_mebibytes;
    self->carry_out(self->line_.in_force(there ? wanted : std::nullopt, now));
  });
}

// ---- what is to be done ----

void Newcomers::carry_out(const HardLimits::Actions& actions) {
  if (closed_) return;
  for (const auto& action : actions) {
    std::visit([this](const auto& what) { carry_out(what); }, action);
  }
  set_alarm();
}

void Newcomers::carry_out(const HardLimits::Want& want) {
  instance::NewcomerLimitsWanted wanted;
  if (want.grant) {
    wanted.limits = {want.grant->active_thread_percentage, want.grant->pinned_memory_mebibytes};
  }
  if (const auto actor = actor_.lock()) (void)actor->ask(wanted);
  look();
}

void Newcomers::carry_out(const HardLimits::LetIn& in) {
  gate_.let_in(in.peer);
}

void Newcomers::carry_out(const HardLimits::Refuse& refuse) {
  gate_.refuse(refuse.peer);
}

void Newcomers::carry_out(const HardLimits::Late& late) {
  if (!late_.count("", steady_clock::now())) return;
  say_("hard_limits_unsure",
       "process " + std::to_string(late.pid) +
           " was let in with its own limits, and its server has not said that it has it: should it "
           "come only now, it has those of another client, or the ceiling");
}

void Newcomers::set_alarm() {
  const auto due = line_.next_due();
  if (!due || due == alarm_at_) return;
  alarm_at_ = due;
  alarm_.expires_at(*due);
  alarm_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->closed_) return;
    self->alarm_at_.reset();
    self->carry_out(self->line_.time_passed(steady_clock::now()));
  });
}

}  // namespace mps::app
