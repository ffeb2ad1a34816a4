// The way to the daemon, and the relaying of those who are inside. Nothing is allocated here.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "gate/gate.h"

namespace mps::gate {

namespace {

constexpr int k_entered = 64;   // who fails to enter, in one turn
constexpr int k_messages = 16;  // of one end, in one turn
// The kernel's default for the most that one message can have is 208 KiB.
constexpr std::size_t k_relayed = std::size_t{256} * 1024;
std::array<char, k_relayed> relayed;  // NOLINT(*-non-const-global-variables): one thread, no stack

// So that the next message fits, whatever its size: a quarter at most is taken. An end that has
// gone takes all.
bool has_room(int socket) {
  pollfd look{socket, POLLOUT, 0};
  return ::poll(&look, 1, 0) > 0;
}

bool has_gone(int error) {
  return error == EPIPE || error == ECONNRESET || error == ENOTCONN;
}

bool passes(int error) {
  return error == EAGAIN || error == EINTR || error == ENOMEM || error == ENOBUFS ||
         error == ETOOMANYREFS;
}

}  // namespace

// ---- entering ----

bool Gate::can_enter() const {
  return entering_.first != k_none && daemon_directory_;
}

void Gate::next_to_enter() {
  for (int i = 0; i < k_entered && !taking_ && can_enter(); ++i) begin_entering(entering_.first);
}

void Gate::begin_entering(Index index) {
  auto& peer = peers_[index];
  if (system_.has_ended(peer.pidfd.get())) return turn_away(index);
  taking_ = true;
  enter_by_ = system_.now() + bounds_.entering;
  peer.daemon = UniqueFd(system_.socket());
  if (!peer.daemon) return not_entered(index, errno);
  const int yes = 1;
  (void)::setsockopt(peer.daemon.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
  connect_to_daemon(index);
}

// Watched from then on only: a socket that is not connected reports an end.
void Gate::connect_to_daemon(Index index) {
  auto& peer = peers_[index];
  if (!daemon_directory_) return not_entered(index, ECONNREFUSED);
  if (system_.connect(peer.daemon.get(), daemon_directory_.get()) == 0) {
    if (watch(EPOLL_CTL_ADD, peer.daemon.get(), EPOLLIN, What::daemon, index)) return;
    not_entered(index, errno);
  } else if (errno == EAGAIN || errno == EINTR) {
    enter_again_ = true;  // its backlog is full
  } else {
    not_entered(index, errno);
  }
}

void Gate::on_daemon(Index index, unsigned events) {
  const auto step = peers_[index].step;
  if (step == Step::inside) return on_inside(index, false, events);
  const bool has_its_turn = step == Step::entering && taking_ && entering_.first == index;
  if (has_its_turn && peers_[index].daemon) greeted_by_daemon(index);
}

void Gate::greeted_by_daemon(Index index) {
  const auto got = system_.receive(peers_[index].daemon.get(), relayed, received_);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return not_entered(index, got == 0 ? ECONNRESET : errno);
  // Another driver's daemon: what its clients say is to be learnt anew.
  if (std::string_view(relayed.data(), received_.size) != greeting_) {
    return not_entered(index, EPROTO);
  }
  hand_over(index);
}

void Gate::hand_over(Index index) {
  auto& peer = peers_[index];
  if (system_.has_ended(peer.pidfd.get())) return turn_away(index);
  for (const auto& message : opening_) {
    if (system_.send(peer.daemon.get(), message, &peer.spoke, {}) >= 0) continue;
    return errno == ESRCH ? turn_away(index) : not_entered(index, errno);
  }
  remove(entering_, index);
  taking_ = false;
  peer.step = Step::inside;
  watch_ends(index);
  report(Kind::inside, peer.id, peer.who, 0);
}

// It goes on waiting, as one that was asked for and has no verdict.
void Gate::not_entered(Index index, int error) {
  auto& peer = peers_[index];
  peer.daemon.reset();
  remove(entering_, index);
  taking_ = enter_again_ = false;
  peer.step = Step::asked;
  ++peer.container->asked;
  report(Kind::not_entered, peer.id, peer.who, static_cast<std::uint32_t>(error));
}

// ---- inside ----

// Where the other end has no room, an end is not read. Its own end would be reported all the same,
// so that is asked for once only.
void Gate::watch_ends(Index index) {
  auto& peer = peers_[index];
  const auto wanted = [&peer](bool blocked, bool full) {
    if (peer.stalled) return unsigned{EPOLLONESHOT};
    return (blocked ? unsigned{EPOLLONESHOT} : unsigned{EPOLLIN}) | (full ? EPOLLOUT : 0U);
  };
  const bool one = watch_peer(index, wanted(peer.to_daemon_full, peer.to_peer_full));
  const bool other = watch(EPOLL_CTL_MOD, peer.daemon.get(),
                           wanted(peer.to_peer_full, peer.to_daemon_full), What::daemon, index);
  if (one && other) return;
  peer.stalled = true;
  again_later();
}

void Gate::on_inside(Index index, bool of_peer, unsigned events) {
  auto& peer = peers_[index];
  if (peer.stalled) return;
  auto& full = of_peer ? peer.to_peer_full : peer.to_daemon_full;
  const auto& blocked = of_peer ? peer.to_daemon_full : peer.to_peer_full;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0 && full) {
    full = false;
    watch_ends(index);
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !blocked) relay(index, of_peer);
}

void Gate::relay(Index index, bool to_daemon) {
  auto& peer = peers_[index];
  for (int i = 0; i < k_messages; ++i) {
    if (!has_room((to_daemon ? peer.daemon : peer.socket).get())) {
      (to_daemon ? peer.to_daemon_full : peer.to_peer_full) = true;
      return watch_ends(index);
    }
    switch (relay_one(peer, to_daemon)) {
      case Passed::one:
        break;
      case Passed::nothing:
        return;
      case Passed::later:
        return stall(index);
      case Passed::ended:
        report(Kind::left, peer.id, peer.who, 0);
        return drop(index);
    }
  }
}

// A message is taken away only when it was passed on: want of memory loses none.
Gate::Passed Gate::relay_one(Peer& peer, bool to_daemon) {
  const int from = (to_daemon ? peer.socket : peer.daemon).get();
  const auto got = system_.peek(from, relayed, received_);
  if (got < 0) {
    if (errno == ECONNRESET) return Passed::one;  // told once; what it said before comes after this
    if (errno == EAGAIN || errno == EINTR) return Passed::nothing;
    return passes(errno) ? Passed::later : Passed::ended;
  }
  const bool ended = got == 0 && !received_.credentials;
  if (ended || received_.cut) return Passed::ended;
  if (received_.missing) return Passed::later;
  // An admission is its process's own: whoever has got hold of the socket is not let in by it.
  const bool is_own = received_.credentials && received_.credentials->pid == peer.spoke.pid;
  if (to_daemon && !is_own) return Passed::ended;
  const auto passed = pass_on(peer, to_daemon);
  if (passed == Passed::one) system_.discard(from);
  return passed;
}

// To an end that has gone nothing is passed, but what the other one still says is heard to its end.
Gate::Passed Gate::pass_on(Peer& peer, bool to_daemon) {
  const int to = (to_daemon ? peer.daemon : peer.socket).get();
  const std::span<const char> bytes(relayed.data(), received_.size);
  const ucred* credentials = received_.credentials ? &*received_.credentials : nullptr;
  auto sent = system_.send(to, bytes, credentials, received_.fds());
  // The daemon's last words, after its death.
  if (sent < 0 && errno == ESRCH && !to_daemon) {
    sent = system_.send(to, bytes, nullptr, received_.fds());
  }
  if (sent >= 0 || has_gone(errno)) return Passed::one;
  return passes(errno) ? Passed::later : Passed::ended;
}

}  // namespace mps::gate
