// The gate's supervisor: its coming, its words, and its going.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "gate/gate.h"

namespace mps::gate {

namespace {

constexpr int k_heard = 64;               // messages of the supervisor, in one turn
constexpr std::size_t k_texts_limit = 9;  // a greeting, and the messages of an opening

bool would_block(int error) {
  return error == EAGAIN || error == EINTR;
}

bool has_option(int socket, int option, int wanted) {
  int value = 0;
  socklen_t size = sizeof(value);
  return ::getsockopt(socket, SOL_SOCKET, option, &value, &size) == 0 && value == wanted;
}

bool is_listener(int socket) {
  return has_option(socket, SO_DOMAIN, AF_UNIX) && has_option(socket, SO_TYPE, SOCK_SEQPACKET) &&
         has_option(socket, SO_ACCEPTCONN, 1);
}

// Only who may pass through the directory of the socket gets here; that it is our own user is asked
// besides.
bool is_ours(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == ::geteuid() || peer.uid == 0);
}

}  // namespace

// ---- coming and going ----

// A new one takes the place of the one before, which is mostly dead by then.
void Gate::accept_supervisor() {
  UniqueFd socket(system_.accept(control_.get()));
  if (!socket && (errno == EMFILE || errno == ENFILE) && reserve_) {
    reserve_.reset();
    socket.reset(system_.accept(control_.get()));
  }
  if (!socket) {
    if (would_block(errno) || errno == ECONNABORTED) return;
    watch(EPOLL_CTL_MOD, control_.get(), 0, What::control, 0);
    return again_later();
  }
  if (!is_ours(socket.get())) return;
  lose_supervisor();
  const auto which = ++which_supervisor_;
  if (!watch(EPOLL_CTL_ADD, socket.get(), EPOLLIN, What::supervisor, which)) return;
  supervisor_ = std::move(socket);
  Message welcome;
  welcome.kind = Kind::welcome;
  welcome.code = k_protocol;
  welcome.pid = ::getpid();
  if (!say(welcome, -1)) lose_supervisor();
}

// Whoever has not gone through yet is asked for again: what the old supervisor said may not be in
// anybody's books.
void Gate::lose_supervisor() {
  supervisor_.reset();
  if (!reserve_) reserve_.reset(::fcntl(epoll_.get(), F_DUPFD_CLOEXEC, 0));
  first_report_ = report_count_ = 0;
  listed_ = mute_ = false;
  listed_listeners_ = listed_peers_ = 0;
  for (Index i = 0; i < peers_.size(); ++i) {
    if (peers_[i].step == Step::asked || peers_[i].step == Step::entering) back_to_line(i);
  }
}

// ---- its words ----

void Gate::on_supervisor(Index which, unsigned events) {
  if (which != which_supervisor_ || !supervisor_) return;
  if ((events & EPOLLOUT) != 0) {
    mute_ = false;
    watch(EPOLL_CTL_MOD, supervisor_.get(), EPOLLIN, What::supervisor, which);
  }
  if ((events & EPOLLIN) != 0) {
    for (int i = 0; i < k_heard && supervisor_; ++i) {
      if (!hear()) break;
    }
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    lose_supervisor();
  }
}

// One message. False: there is none.
bool Gate::hear() {
  Buffer buffer;
  const auto got = system_.receive(supervisor_.get(), buffer, received_);
  if (got < 0 && would_block(errno)) return false;
  // It left without having read all; its last words come after this.
  if (got < 0 && errno == ECONNRESET) return true;
  const bool whole = got > 0 && !received_.cut && !received_.missing;
  // One that speaks another language is no supervisor of ours.
  if (!whole || !understand({buffer.data(), static_cast<std::size_t>(got)})) lose_supervisor();
  return true;
}

// False: not to be understood, or no memory for it. Then it is let go, and comes again.
bool Gate::understand(std::span<const char> bytes) try {
  const auto message = decode(bytes);
  UniqueFd beside;
  if (received_.descriptor_count == 1) {
    beside.reset(received_.descriptors[0]);
    received_.descriptor_count = 0;
  }
  return message && (ending_ || obey(*message, std::move(beside)));
} catch (const std::bad_alloc&) {
  return false;
}

bool Gate::obey(const Message& message, UniqueFd beside) {
  switch (message.kind) {
    case Kind::setup:
      return set_up(message.bytes);
    case Kind::daemon:
      if (!beside) return false;
      daemon_directory_ = std::move(beside);
      return true;
    case Kind::no_daemon:
      daemon_directory_.reset();
      // Whether they may enter the next one is asked anew.
      while (entering_.first != k_none) not_entered(entering_.first, ECONNREFUSED);
      return true;
    case Kind::listen:
      return beside && !message.share.empty() && add_listener(message.share, std::move(beside));
    case Kind::unlisten:
      remove_listener(message.share);
      return true;
    case Kind::let_in:
    case Kind::refuse:
      verdict(message.peer, message.kind == Kind::let_in);
      return true;
    case Kind::end:
      begin_end();
      return true;
    default:
      return false;
  }
}

bool Gate::set_up(std::string_view packed) {
  auto texts = unpack(packed);
  if (!texts || texts->size() < 2 || texts->size() > k_texts_limit) return false;
  if (std::any_of(texts->begin(), texts->end(), [](const auto& text) { return text.empty(); })) {
    return false;
  }
  auto greeting = std::move(texts->front());
  texts->erase(texts->begin());
  if (greeting == greeting_ && *texts == opening_) return true;
  greeting_ = std::move(greeting);
  opening_ = std::move(*texts);
  for (Index i = 0; i < peers_.size(); ++i) outdate(i);
  greet_parked();
  listen_again();
  return true;
}

// It had another driver's greeting, and what it said was for that one.
void Gate::outdate(Index index) {
  auto& peer = peers_[index];
  if (peer.step == Step::speaking) peer.said = k_outdated;
  if (peer.step != Step::queued && peer.step != Step::asked && peer.step != Step::entering) return;
  report_refusal(peer, Refusal::unknown_opening);
  turn_away(index);
}

// The same share again is the same socket, from a new supervisor that was given ours: ours stays.
bool Gate::add_listener(std::string_view share, UniqueFd socket) {
  if (!is_listener(socket.get())) return false;
  Index place = k_none;
  for (Index i = 0; i < listeners_.size(); ++i) {
    if (listeners_[i].open && listeners_[i].share == share) return true;
    if (!listeners_[i].open && listeners_[i].peers == 0 && place == k_none) place = i;
  }
  if (place == k_none) {
    if (listeners_.size() >= bounds_.listeners) return true;  // they wait in its backlog
    place = static_cast<Index>(listeners_.size());
    listeners_.emplace_back();
  }
  listeners_[place].share = share;
  const int passes = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &passes, sizeof(passes));
  ::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
  const unsigned events = accepting_ ? EPOLLIN : 0U;
  if (!watch(EPOLL_CTL_ADD, socket.get(), events, What::listener, place)) return false;
  listeners_[place].socket = std::move(socket);
  listeners_[place].open = true;
  return true;
}

// Out of the set in so many words: the supervisor has the same socket, so closing ours is not its
// end.
void Gate::close_listener(Index index) {
  auto& listener = listeners_[index];
  if (!std::exchange(listener.open, false)) return;
  watch(EPOLL_CTL_DEL, listener.socket.get(), 0, What::listener, index);
  listener.socket.reset();
}

// Who has not said all yet is refused when it has.
void Gate::remove_listener(std::string_view share) {
  for (Index i = 0; i < listeners_.size(); ++i) {
    if (!listeners_[i].open || listeners_[i].share != share) continue;
    empty_backlog(i);
    close_listener(i);
    for (Index peer = 0; peer < peers_.size(); ++peer) {
      if (peers_[peer].listener == i && peers_[peer].step != Step::inside) turn_away(peer);
    }
  }
}

// Who has not spoken can't be closed: it stays for as long as there is one.
void Gate::begin_end() {
  ending_ = true;
  for (Index i = 0; i < listeners_.size(); ++i) {
    empty_backlog(i);
    close_listener(i);
  }
  for (Index i = 0; i < peers_.size(); ++i) {
    turn_away(i);
    if (peers_[i].step == Step::inside) drop(i);
  }
}

void Gate::verdict(std::uint64_t id, bool let_in) {
  const auto index = find(id);
  if (index == k_none) return;
  auto& peer = peers_[index];
  // It was let in, and has waited for the daemon for too long.
  if (!let_in && peer.step == Step::entering) return drop(index);
  if (peer.step != Step::asked) return;
  if (!let_in) return drop(index);
  --peer.container->asked;
  if (peer.container->queued.first != k_none) link(to_ask_, &Container::to_ask, *peer.container);
  peer.step = Step::entering;
  append(entering_, index);
}

}  // namespace mps::gate
