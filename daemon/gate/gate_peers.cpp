// From the connection to the complete opening. Every way out of here that is not a refusal of
// somebody who has spoken holds the peer.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "gate/gate.h"

namespace mps::gate {

namespace {

constexpr int k_accepts = 64;          // of one listener, in one turn
constexpr std::size_t k_buffer = 512;  // more than a message of an opening can have
constexpr int k_drained = 16;          // messages taken from a peer that is refused
constexpr unsigned k_end = EPOLLHUP | EPOLLERR;

bool has_left(int error) {
  return error == ECONNRESET || error == EPIPE || error == ENOTCONN;
}

bool has_hung_up(const UniqueFd& socket) {
  pollfd look{socket.get(), 0, 0};
  return ::poll(&look, 1, 0) > 0;
}

}  // namespace

// ---- accepting ----

void Gate::on_listener(Index index, unsigned events) {
  if (!listeners_[index].open) return;
  if ((events & k_end) != 0) return close_listener(index);  // somebody has shut it down
  if (accepting_) {
    accept_peers(index);
    return;
  }
  watch(EPOLL_CTL_MOD, listeners_[index].socket.get(), 0, What::listener, index);
}

// False: nobody waits there, or nobody can be accepted now.
bool Gate::accept_peers(Index listener) {
  for (int i = 0; i < k_accepts && accepting_; ++i) {
    if (peer_count_ >= bounds_.peers || !have_slot()) {
      stop_accepting();
      break;
    }
    UniqueFd socket(system_.accept(listeners_[listener].socket.get()));
    if (socket) {
      take_in(std::move(socket), listener);
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      stop_accepting();  // no descriptors or memory: in the backlog they wait, which is safe
    }
  }
  return accepting_;
}

// Who waits in a backlog that is closed goes on without MPS: so nobody is left there, as far as
// there are descriptors.
void Gate::empty_backlog(Index listener) {
  const bool accepting = std::exchange(accepting_, true);
  while (listeners_[listener].open && accept_peers(listener)) {
  }
  accepting_ = accepting_ && accepting;
}

// Were we killed between accept() and the greeting, it would run without MPS. So nothing is done
// between them but what has to be done before the peer speaks.
void Gate::take_in(UniqueFd socket, Index listener) {
  // Passed on by the listener, unless the peer connected before that was told to (Linux 6.16).
  const int passes = 1;
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &passes, sizeof(passes));
  bool greeted = exact_pidfds_ && may_greet(greeted_) && say_greeting(socket.get());
  const auto index = take_slot();
  auto& peer = peers_[index];
  socklen_t size = sizeof(peer.who);
  (void)::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer.who, &size);
  peer.socket = std::move(socket);
  peer.listener = listener;
  greeted = greeted || (may_greet(greeted_) && open_pidfd(peer) && say_greeting(peer.socket.get()));
  peer.container = &container_of(peer.who.pid);
  ++listeners_[listener].peers;
  ++peer.container->peers;
  if (greeted) {
    now_speaks(index);
    if (!watch_peer(index, EPOLLIN | EPOLLRDHUP)) stall(index);
    return;
  }
  peer.step = Step::parked;
  append(peer.container->parked, index);
  if (!greet(index)) stall(index);
}

// `greeted`: of its container; or of all, where no container can have more.
bool Gate::may_greet(std::uint32_t greeted) const {
  return !greeting_.empty() && greeted < bounds_.greeted_of_container;
}

bool Gate::say_greeting(int socket) {
  return system_.send(socket, greeting_, nullptr, {}) >= 0;
}

void Gate::now_speaks(Index index) {
  auto& peer = peers_[index];
  peer.step = Step::speaking;
  peer.counted = true;
  ++peer.container->greeted;
  ++greeted_;
}

void Gate::no_more_greeted(Peer& peer, Container& container) {
  if (!std::exchange(peer.counted, false)) return;
  --container.greeted;
  --greeted_;
}

// Before a connection is accepted: afterwards there is no way back.
bool Gate::have_slot() try {
  if (free_ != k_none) return true;
  peers_.emplace_back();
  free_ = static_cast<Index>(peers_.size() - 1);
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

Gate::Index Gate::take_slot() {
  const auto index = free_;
  free_ = peers_[index].next;
  peers_[index] = Peer{};
  peers_[index].id = (++rounds_ << 32U) | index;
  ++peer_count_;
  return index;
}

Gate::Container& Gate::container_of(pid_t pid) try {
  auto cgroup = system_.cgroup_of(pid);
  const auto known = containers_.find(cgroup);
  if (known != containers_.end()) return *known->second;
  if (containers_.size() >= bounds_.containers) return overflow_;
  auto fresh = std::make_unique<Container>();
  fresh->cgroup = cgroup;
  return *containers_.emplace(std::move(cgroup), std::move(fresh)).first->second;
} catch (const std::bad_alloc&) {
  return overflow_;
}

// Without the kernel's own handle (before 6.5) the pid may be another's by now. That one is found
// out by what it says after its pidfd was opened; what was said before counts for nothing.
bool Gate::open_pidfd(Peer& peer) {
  if (peer.pidfd || peer.early) return true;
  bool exact = false;
  peer.pidfd = UniqueFd(system_.pidfd_of(peer.socket.get(), peer.who, exact));
  if (!peer.pidfd) {
    peer.early = errno == ESRCH || errno == EINVAL || errno == ENODATA;  // it ended
    return peer.early;
  }
  char byte = 0;
  peer.early = !exact && ::recv(peer.socket.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
  exact_pidfds_ = exact;
  return true;
}

void Gate::stop_accepting() {
  accepting_ = false;
  again_later();
  for (Index i = 0; i < listeners_.size(); ++i) {
    if (listeners_[i].open) watch(EPOLL_CTL_MOD, listeners_[i].socket.get(), 0, What::listener, i);
  }
}

// Not before it is known how to greet: were we killed until then, they would run without MPS, and
// in the backlog they wait.
void Gate::listen_again() {
  if (accepting_ || greeting_.empty()) return;
  if (peer_count_ >= bounds_.peers) return again_later();
  accepting_ = true;
  for (Index i = 0; i < listeners_.size(); ++i) {
    if (!listeners_[i].open) continue;
    accepting_ =
        watch(EPOLL_CTL_MOD, listeners_[i].socket.get(), EPOLLIN, What::listener, i) && accepting_;
  }
  if (!accepting_) again_later();
}

bool Gate::watch_peer(Index index, unsigned events) {
  auto& peer = peers_[index];
  const int operation = peer.watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  const bool done = watch(operation, peer.socket.get(), events, What::peer, index);
  peer.watched = peer.watched || done;
  return done;
}

// ---- greeting ----

void Gate::greet_parked() {
  for (Index i = 0; i < peers_.size(); ++i) {
    if (peers_[i].step == Step::parked && !greet(i)) stall(i);
  }
}

// Some of each container whose turn it is; the rest in the next turns.
void Gate::greet_waiting() {
  for (int i = 0; i < k_accepts && to_greet_.first != nullptr; ++i) {
    auto& container = *to_greet_.first;
    unlink(to_greet_, &Container::to_greet, container);
    const auto index = container.parked.first;
    if (index == k_none || !may_greet(container.greeted)) continue;
    if (peers_[index].stalled) continue;               // that is tried again by itself
    link(to_greet_, &Container::to_greet, container);  // before it can be the last to leave
    if (!greet(index)) stall(index);
  }
}

// Who has left may hold what is short.
bool Gate::dropped_if_away(Index index) {
  if (!has_hung_up(peers_[index].socket)) return false;
  drop(index);
  return true;
}

// False: something is short; again in a moment. Who has to wait for its turn is no trouble.
bool Gate::greet(Index index) {
  auto& peer = peers_[index];
  if (!open_pidfd(peer)) return dropped_if_away(index);
  if (!may_greet(peer.container->greeted)) {
    return watch_peer(index, 0);  // whether it leaves is noticed
  }
  if (!watch_peer(index, EPOLLIN | EPOLLRDHUP)) return false;
  if (!say_greeting(peer.socket.get())) {
    if (!has_left(errno)) return false;
    drop(index);
    return true;
  }
  remove(peer.container->parked, index);
  now_speaks(index);
  return true;
}

// ---- the opening ----

void Gate::on_peer(Index index, unsigned events) {
  switch (peers_[index].step) {
    case Step::free:
      return;
    case Step::parked:
      if ((events & k_end) != 0) drop(index);
      return;
    case Step::speaking:
      return listen_to(index);
    case Step::inside:
      return on_inside(index, true, events);
    default:
      return on_waiting(index, events);
  }
}

// A client says nothing more before it is answered.
void Gate::on_waiting(Index index, unsigned events) {
  if ((events & (EPOLLRDHUP | k_end)) == 0) {
    report_refusal(peers_[index], Refusal::unknown_opening);
  }
  turn_away(index);
}

void Gate::listen_to(Index index) {
  while (peers_[index].step == Step::speaking && take_opening(index)) continue;
}

// One message. False: there is none, or it has left.
bool Gate::take_opening(Index index) {
  auto& peer = peers_[index];
  if (!open_pidfd(peer)) {
    if (!dropped_if_away(index)) stall(index);
    return false;
  }
  std::array<char, k_buffer> buffer{};
  const auto got = system_.receive(peer.socket.get(), buffer, received_);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    if (!watch_peer(index, EPOLLIN | EPOLLRDHUP)) stall(index);
    return false;
  }
  if (got < 0 && !has_left(errno)) {
    stall(index);
    return false;
  }
  const bool ended = got == 0 && !received_.credentials;
  if (got < 0 || ended) {
    drop(index);
    return false;
  }
  judge(index, {buffer.data(), received_.size});
  return true;
}

void Gate::judge(Index index, std::string_view said) {
  auto& peer = peers_[index];
  const auto& beside = received_;
  if (beside.cut || beside.missing || beside.descriptor_count > 0) {
    return refuse(index, Refusal::had_descriptors);
  }
  if (peer.early || !beside.credentials || beside.credentials->pid != peer.who.pid) {
    return refuse(index, Refusal::wrong_process);
  }
  if (peer.said >= opening_.size() || said != opening_[peer.said]) {
    return refuse(index, Refusal::unknown_opening);
  }
  if (peer.said == 0) peer.spoke = *beside.credentials;
  if (++peer.said == opening_.size()) queue(index);
}

void Gate::queue(Index index) {
  auto& peer = peers_[index];
  if (system_.has_ended(peer.pidfd.get())) return refuse(index, Refusal::ended);
  if (!listeners_[peer.listener].open) return drop(index);
  auto& container = *peer.container;
  peer.step = Step::queued;
  no_more_greeted(peer, container);
  append(container.queued, index);
  link(to_ask_, &Container::to_ask, container);
  if (container.parked.first != k_none) link(to_greet_, &Container::to_greet, container);
  // Taken out of the set when something was short: whether it leaves is to be noticed again.
  if (!peer.watched && !watch_peer(index, EPOLLIN | EPOLLRDHUP)) stall(index);
}

void Gate::back_to_line(Index index) {
  auto& peer = peers_[index];
  auto& container = *peer.container;
  if (peer.step == Step::asked) --container.asked;
  if (peer.step == Step::entering) {
    if (entering_.first == index) taking_ = enter_again_ = false;
    remove(entering_, index);
    peer.daemon.reset();
  }
  peer.step = Step::queued;
  append(container.queued, index);
  link(to_ask_, &Container::to_ask, container);
}

// It has had the greeting and has said something: closed now, cuInit returns 805 (measured).
void Gate::refuse(Index index, Refusal why) {
  report_refusal(peers_[index], why);
  drop(index);
}

// Who has said all and is not inside.
void Gate::turn_away(Index index) {
  const auto& peer = peers_[index];
  const bool asked = peer.step == Step::asked || peer.step == Step::entering;
  if (!asked && peer.step != Step::queued) return;
  if (asked) report(Kind::gone, peer.id, peer.who, 0);
  drop(index);
}

// What it said last is taken, so that it reads an end and not a reset.
void Gate::drop(Index index) {
  auto& peer = peers_[index];
  if (peer.step == Step::free) return;
  std::array<char, 16> rest{};
  for (int i = 0; i < k_drained; ++i) {
    if (::recv(peer.socket.get(), rest.data(), rest.size(), MSG_DONTWAIT) <= 0) break;
  }
  if (auto* line = line_of(peer); line != nullptr) {
    if (line == &entering_ && entering_.first == index) taking_ = enter_again_ = false;
    remove(*line, index);
  }
  --listeners_[peer.listener].peers;
  peer.socket.reset();
  peer.daemon.reset();
  peer.pidfd.reset();
  leave_container(peer);
  peer.step = Step::free;
  peer.next = free_;
  free_ = index;
  --peer_count_;
}

void Gate::leave_container(Peer& peer) {
  auto& container = *std::exchange(peer.container, nullptr);
  no_more_greeted(peer, container);
  if (peer.step == Step::asked) --container.asked;
  if (container.queued.first != k_none) link(to_ask_, &Container::to_ask, container);
  if (container.parked.first != k_none) link(to_greet_, &Container::to_greet, container);
  if (--container.peers > 0) return;
  unlink(to_ask_, &Container::to_ask, container);
  unlink(to_greet_, &Container::to_greet, container);
  if (&container != &overflow_) containers_.erase(containers_.find(container.cgroup));
}

}  // namespace mps::gate
