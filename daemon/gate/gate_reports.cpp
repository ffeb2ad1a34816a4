// What the supervisor is told: first what is here, then what happens, and whom it is asked about.
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "gate/gate.h"

namespace mps::gate {

namespace {

constexpr int k_said = 256;  // messages in one turn
constexpr std::chrono::milliseconds k_refusals_apart{100};

}  // namespace

void Gate::report(Kind kind, std::uint64_t peer, const ucred& who, std::uint32_t code) {
  if (!supervisor_) return;
  if (report_count_ == reports_.size()) return lose_supervisor();  // it does not read
  reports_[(first_report_ + report_count_++) % reports_.size()] = {kind, peer, who, code};
}

void Gate::report_refusal(const Peer& peer, Refusal why) {
  const auto& share = listeners_[peer.listener].share;
  refused_.who = peer.who;
  refused_.why = why;
  refused_.share_size = std::min(share.size(), refused_.share.size());
  std::copy_n(share.begin(), refused_.share_size, refused_.share.begin());
  ++refused_.times;
}

bool Gate::say(const Message& message, int descriptor) {
  Buffer buffer;
  const std::span<const int> beside(&descriptor, descriptor < 0 ? 0U : 1U);
  const auto sent = system_.send(supervisor_.get(), encode(message, buffer), nullptr, beside);
  if (sent >= 0) return true;
  // If it has gone, what it said last is still to be heard.
  mute_ = true;
  const bool told = errno == EAGAIN && watch(EPOLL_CTL_MOD, supervisor_.get(), EPOLLIN | EPOLLOUT,
                                             What::supervisor, which_supervisor_);
  if (!told) again_later();
  return false;
}

// What can be said now; the rest when there is room.
void Gate::speak() {
  more_to_say_ = false;
  for (int i = 0; supervisor_ && !mute_; ++i) {
    if (i == k_said) {
      more_to_say_ = true;
      return;
    }
    if (!say_next()) return;
  }
}

// False: there is nothing, or no room.
bool Gate::say_next() {
  if (!listed_) return say_listed();
  if (report_count_ > 0) return say_report();
  if (refused_.times > 0 && system_.now() >= refusals_at_) return say_refusals();
  return ask_one();
}

bool Gate::say_report() {
  const auto& next = reports_[first_report_];
  Message message;
  message.kind = next.kind;
  message.peer = next.peer;
  message.pid = next.who.pid;
  message.uid = next.who.uid;
  message.gid = next.who.gid;
  message.code = next.code;
  if (!say(message, -1)) return false;
  first_report_ = (first_report_ + 1) % reports_.size();
  --report_count_;
  return true;
}

bool Gate::say_refusals() {
  Message message;
  message.kind = Kind::refused;
  message.peer = refused_.times;
  message.pid = refused_.who.pid;
  message.uid = refused_.who.uid;
  message.gid = refused_.who.gid;
  message.code = static_cast<std::uint32_t>(refused_.why);
  message.share = {refused_.share.data(), refused_.share_size};
  if (!say(message, -1)) return false;
  refused_.times = 0;
  refusals_at_ = system_.now() + k_refusals_apart;
  return true;
}

// The next of what a new supervisor is told first.
bool Gate::say_listed() {
  Message message;
  while (listed_listeners_ < listeners_.size() && !listeners_[listed_listeners_].open)
    ++listed_listeners_;
  while (listed_peers_ < peers_.size() && peers_[listed_peers_].step != Step::inside)
    ++listed_peers_;
  if (listed_listeners_ < listeners_.size()) {
    const auto& listener = listeners_[listed_listeners_];
    message.kind = Kind::listening;
    message.share = listener.share;
    if (!say(message, listener.socket.get())) return false;
    ++listed_listeners_;
    return true;
  }
  if (listed_peers_ < peers_.size()) {
    if (!say_of(Kind::is_inside, peers_[listed_peers_])) return false;
    ++listed_peers_;
    return true;
  }
  message.kind = Kind::listed;
  listed_ = say(message, -1);
  return listed_;
}

// With what is known of it, and its pidfd.
bool Gate::say_of(Kind kind, const Peer& peer) {
  Message message;
  message.kind = kind;
  message.share = listeners_[peer.listener].share;
  message.peer = peer.id;
  message.pid = peer.who.pid;
  message.uid = peer.spoke.uid;
  message.gid = peer.spoke.gid;
  return say(message, peer.pidfd.get());
}

// The next container's first. False: there is nobody to be asked for, or no room.
bool Gate::ask_one() {
  while (to_ask_.first != nullptr) {
    auto& container = *to_ask_.first;
    const auto index = container.queued.first;
    if (index == k_none || container.asked >= bounds_.asked_of_container) {
      unlink(to_ask_, &Container::to_ask, container);
      continue;
    }
    if (!say_of(Kind::ask, peers_[index])) return false;
    unlink(to_ask_, &Container::to_ask, container);
    link(to_ask_, &Container::to_ask, container);  // now the last
    remove(container.queued, index);
    peers_[index].step = Step::asked;
    ++container.asked;
    return true;
  }
  return false;
}

}  // namespace mps::gate
