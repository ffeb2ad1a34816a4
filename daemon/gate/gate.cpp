// The gate's turns, and its lines.
#include "gate/gate.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace mps::gate {

namespace {

constexpr int k_events = 64;  // of one turn
constexpr std::chrono::milliseconds k_connect_again{5};
constexpr std::chrono::milliseconds k_again{100};

}  // namespace

Gate::Gate(System& system, UniqueFd control, const Bounds& bounds)
    : system_(system), bounds_(bounds), control_(std::move(control)), reports_(bounds.reports) {}

Gate::~Gate() = default;

Result<void> Gate::start() {
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return Error::from_errno("epoll_create1", errno);
  if (::fcntl(control_.get(), F_SETFL, O_NONBLOCK) != 0) return Error::from_errno("fcntl", errno);
  reserve_.reset(::fcntl(epoll_.get(), F_DUPFD_CLOEXEC, 0));
  if (!watch(EPOLL_CTL_ADD, control_.get(), EPOLLIN, What::control, 0)) {
    return Error::from_errno("epoll_ctl", errno);
  }
  return {};
}

// Slots are used again: an event of the peer before, in the same turn, is none of the next one's.
std::uint32_t Gate::round_of(std::uint64_t id) {
  return static_cast<std::uint32_t>(id >> 32U) & 0xffffffU;
}

bool Gate::watch(int operation, int descriptor, unsigned events, What what, Index index) {
  const bool of_peer = what == What::peer || what == What::daemon;
  const std::uint64_t round = of_peer ? round_of(peers_[index].id) : 0;
  const auto data = (static_cast<std::uint64_t>(what) << 56U) | (round << 32U) | index;
  return system_.watch(epoll_.get(), operation, descriptor, events, data) == 0;
}

// ---- turns ----

int Gate::wait_time(std::chrono::milliseconds limit) const {
  auto wait = limit;
  const auto now = system_.now();
  const auto until = [&](System::TimePoint then) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(then - now);
    wait = std::clamp(left, std::chrono::milliseconds{0}, wait);
  };
  const bool busy = to_greet_.first != nullptr || more_to_say_ || (can_enter() && !taking_);
  if (busy || (ending_ && peer_count_ == 0)) return 0;
  if (taking_) until(enter_by_);
  if (enter_again_) wait = std::min(wait, k_connect_again);
  if (stalled_) until(again_at_);
  if (refused_.times > 0 && supervisor_ && !mute_) until(refusals_at_);
  return static_cast<int>(wait.count());
}

bool Gate::turn(std::chrono::milliseconds limit) {
  std::array<epoll_event, k_events> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), k_events, wait_time(limit));
  for (int i = 0; i < count; ++i) {
    const auto& event = events.at(static_cast<std::size_t>(i));
    on_event(event.data.u64, event.events);
  }
  deadlines();
  greet_waiting();
  next_to_enter();
  speak();
  received_.clear();  // what a peer sent beside its message is not kept
  return !(ending_ && peer_count_ == 0);
}

void Gate::deadlines() {
  if (stalled_ && system_.now() >= again_at_) try_again();
  if (!taking_) return;
  const auto first = entering_.first;
  if (system_.now() >= enter_by_) {
    not_entered(first, ETIMEDOUT);
  } else if (std::exchange(enter_again_, false)) {
    connect_to_daemon(first);
  }
}

void Gate::on_event(std::uint64_t data, unsigned events) {
  const auto index = static_cast<Index>(data);
  const auto what = static_cast<What>(data >> 56U);
  if ((what == What::peer || what == What::daemon) &&
      (static_cast<std::uint32_t>(data >> 32U) & 0xffffffU) != round_of(peers_[index].id)) {
    return;
  }
  switch (what) {
    case What::control:
      return accept_supervisor();
    case What::supervisor:
      return on_supervisor(index, events);
    case What::listener:
      return on_listener(index, events);
    case What::peer:
      return on_peer(index, events);
    case What::daemon:
      return on_daemon(index, events);
  }
}

// ---- on trouble: again in a moment ----

void Gate::again_later() {
  if (!std::exchange(stalled_, true)) again_at_ = system_.now() + k_again;
}

// Who is inside stays in the set, since to get back into it memory is needed.
void Gate::stall(Index index) {
  auto& peer = peers_[index];
  peer.stalled = true;
  again_later();
  if (peer.step == Step::inside) return watch_ends(index);
  if (!std::exchange(peer.watched, false)) return;
  watch(EPOLL_CTL_DEL, peer.socket.get(), 0, What::peer, index);
}

void Gate::try_again() {
  stalled_ = mute_ = false;
  if (!watch(EPOLL_CTL_MOD, control_.get(), EPOLLIN, What::control, 0)) again_later();
  listen_again();
  for (Index i = 0; i < peers_.size(); ++i) {
    if (peers_[i].step != Step::free && std::exchange(peers_[i].stalled, false)) look_again(i);
  }
}

void Gate::look_again(Index index) {
  switch (peers_[index].step) {
    case Step::parked:
      if (!greet(index)) stall(index);
      return;
    case Step::speaking:
      return listen_to(index);
    case Step::inside:
      return watch_ends(index);
    default:
      if (!watch_peer(index, EPOLLIN | EPOLLRDHUP)) stall(index);
  }
}

// ---- lines and slots ----

void Gate::append(Line& line, Index index) {
  auto& peer = peers_[index];
  peer.previous = line.last;
  peer.next = k_none;
  (line.last == k_none ? line.first : peers_[line.last].next) = index;
  line.last = index;
}

void Gate::remove(Line& line, Index index) {
  auto& peer = peers_[index];
  (peer.previous == k_none ? line.first : peers_[peer.previous].next) = peer.next;
  (peer.next == k_none ? line.last : peers_[peer.next].previous) = peer.previous;
  peer.next = peer.previous = k_none;
}

void Gate::link(Ring& ring, Link Container::*which, Container& container) {
  auto& link = container.*which;
  if (link.linked) return;
  link = {nullptr, ring.last, true};
  (ring.last == nullptr ? ring.first : (ring.last->*which).next) = &container;
  ring.last = &container;
}

void Gate::unlink(Ring& ring, Link Container::*which, Container& container) {
  auto& link = container.*which;
  if (!link.linked) return;
  (link.previous == nullptr ? ring.first : (link.previous->*which).next) = link.next;
  (link.next == nullptr ? ring.last : (link.next->*which).previous) = link.previous;
  link = {};
}

Gate::Line* Gate::line_of(Peer& peer) {
  switch (peer.step) {
    case Step::parked:
      return &peer.container->parked;
    case Step::queued:
      return &peer.container->queued;
    case Step::entering:
      return &entering_;
    default:
      return nullptr;
  }
}

Gate::Index Gate::find(std::uint64_t id) const {
  const auto index = static_cast<Index>(id);
  return index < peers_.size() && peers_[index].id == id && peers_[index].step != Step::free
             ? index
             : k_none;
}

}  // namespace mps::gate
