// Listeners, newcomers, deadlines. What is talked about is in hall_talk.cpp.
#include "admission/hall.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <vector>

#include "base/text.h"

namespace mps::admission {

namespace {

constexpr int k_accepts = 8;     // of one listener, in one turn
constexpr int k_events = 64;     // in one turn
constexpr int k_heard = 32;      // requests, in one turn
constexpr int k_unread = 16384;  // bytes of answers that a peer has not read; the kernel doubles it
constexpr std::uint64_t k_timer = 0;
constexpr unsigned k_end = EPOLLHUP | EPOLLERR;

Fault too_many(std::string_view whose) {
  return {Trouble::too_many_connections,
          std::string(whose) + " has too many connections to the agent; close some and try again"};
}

Fault out_of_resources(int error) {
  return {Trouble::out_of_resources,
          Error::from_errno("the agent cannot take this connection; try again", error).message};
}

}  // namespace

Hall::Hall(gate::System& system, Desk& desk, Limits limits)
    : system_(system),
      desk_(desk),
      limits_(limits),
      crowd_(limits.crowd),
      self_(std::make_shared<Hall*>(this)) {}

Hall::~Hall() = default;

Result<void> Hall::start() {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return Error::from_errno("epoll_create1", errno);
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!timer_) return Error::from_errno("timerfd_create", errno);
  if (!watch(EPOLL_CTL_ADD, timer_.get(), EPOLLIN, k_timer)) {
    return Error::from_errno("epoll_ctl", errno);
  }
  return {};
}

Result<void> Hall::add_listener(const std::string& instance, const std::string& share,
                                UniqueFd socket, ServedDevice device) {
  const auto name = instance + "/" + share;
  for (const auto& [id, listener] : listeners_) {
    if (listener.instance == instance && listener.share == share) {
      return Error{name + " is listened for already"};
    }
  }
  // Connections have it from their listener: so there is no moment at which one has not.
  const int passes = 1;
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &passes, sizeof(passes));
  const auto id = ++latest_;
  if (!watch(EPOLL_CTL_ADD, socket.get(), accepting_ ? EPOLLIN : 0U, id)) {
    return Error::from_errno("cannot listen for " + name, errno);
  }
  listeners_.emplace(id, Listener{instance, share, std::move(socket), std::move(device)});
  return {};
}

void Hall::set_device(const std::string& instance, const ServedDevice& device) {
  for (auto& [id, listener] : listeners_) {
    if (listener.instance == instance) listener.device = device;
  }
}

void Hall::remove_listener(const std::string& instance, const std::string& share) {
  const auto found = std::find_if(listeners_.begin(), listeners_.end(), [&](const auto& entry) {
    return entry.second.instance == instance && entry.second.share == share;
  });
  if (found == listeners_.end()) return;
  std::vector<ConnectionId> its;
  for (const auto& [id, connection] : connections_) {
    if (connection.listener == found->first) its.push_back(id);
  }
  const auto name = printable(instance) + "/" + printable(share);
  for (const auto id : its) fail(id, {Trouble::closed, name + " is served here no longer"});
  // Somebody else may hold the same socket: closing it would not take it out of the set.
  (void)watch(EPOLL_CTL_DEL, found->second.socket.get(), 0, found->first);
  listeners_.erase(found);
}

void Hall::close() {
  while (!listeners_.empty()) {
    const auto& [id, listener] = *listeners_.begin();
    remove_listener(std::string(listener.instance), std::string(listener.share));
  }
  self_ = std::make_shared<Hall*>(this);
}

// ---- one turn ----

void Hall::turn() {
  std::array<epoll_event, k_events> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), k_events, 0);
  for (int i = 0; i < count; ++i) {
    const auto& event = events.at(static_cast<std::size_t>(i));
    const auto id = event.data.u64;
    if (id == k_timer) {
      std::uint64_t times = 0;
      (void)!::read(timer_.get(), &times, sizeof(times));
      armed_.reset();
    } else if (listeners_.contains(id)) {
      on_listener(id, event.events);
    } else {
      on_connection(id, event.events);
    }
  }
  expire();
  accept_again();
  for (int i = 0; i < k_heard; ++i) {
    const auto id = crowd_.next();
    if (!id) break;
    listen_to(*id);
  }
  arm_timer();
}

bool Hall::watch(int operation, int descriptor, unsigned events, std::uint64_t id) {
  return system_.watch(epoll_.get(), operation, descriptor, events, id) == 0;
}

void Hall::set_deadline(ConnectionId id, Connection& connection,
                        std::optional<TimePoint> deadline) {
  if (connection.deadline) deadlines_.erase({*connection.deadline, id});
  connection.deadline = deadline;
  if (deadline) deadlines_.emplace(*deadline, id);
}

void Hall::expire() {
  const auto now = system_.now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    fail_late(deadlines_.begin()->second);
  }
}

// The timer is in the same set as all else, so that one descriptor says it all.
void Hall::arm_timer() {
  std::optional<TimePoint> next;
  if (!deadlines_.empty()) next = deadlines_.begin()->first;
  if (!accepting_ && (!next || accept_again_ < *next)) next = accept_again_;
  const auto now = system_.now();
  if (crowd_.anybody_ready()) next = now;
  if (!next || (armed_ && *armed_ <= *next)) return;  // an early one does no harm
  using std::chrono::nanoseconds;
  const auto left = std::max<nanoseconds>(*next - now, nanoseconds(1));
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(left / std::chrono::seconds(1));
  when.it_value.tv_nsec = static_cast<long>((left % std::chrono::seconds(1)).count());
  if (::timerfd_settime(timer_.get(), 0, &when, nullptr) == 0) armed_ = next;
}

// ---- accepting ----

void Hall::on_listener(ConnectionId id, unsigned events) {
  if ((events & k_end) != 0) {  // somebody who holds it too has shut it down
    (void)watch(EPOLL_CTL_DEL, listeners_.at(id).socket.get(), 0, id);
    return;
  }
  if (accepting_) accept_peers(id);
}

void Hall::accept_peers(ConnectionId id) {
  for (int i = 0; i < k_accepts && accepting_; ++i) {
    UniqueFd socket(system_.accept(listeners_.at(id).socket.get()));
    if (socket) {
      take_in(std::move(socket), id);
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return stop_accepting();
    }
  }
}

void Hall::take_in(UniqueFd socket, ConnectionId listener) {
  ++counts_.accepted;
  Connection connection;
  connection.listener = listener;
  connection.socket = std::move(socket);
  auto fault = identify(connection);
  if (!fault && !connection.pidfd) return;  // it has ended
  const auto who = connection.who;
  const auto id = ++latest_;
  if (!fault) {
    const auto container = container_key(system_.cgroup_of(who.pid));
    fault = find_place(who, container);
    if (!fault) crowd_.join(id, container, who.uid);
  }
  auto& made = connections_.emplace(id, std::move(connection)).first->second;
  if (!fault && !watch(EPOLL_CTL_ADD, made.socket.get(), EPOLLIN | EPOLLRDHUP, id)) {
    fault = out_of_resources(errno);
  }
  if (fault) return fail(id, *fault);
  set_deadline(id, made, system_.now() + limits_.silence);
  const auto now = std::chrono::duration_cast<ClockTime>(system_.now().time_since_epoch());
  const auto& place = listeners_.at(listener);
  const auto hello = encode(Hello{place.instance, place.share, now, limits_.longest_wait,
                                  place.device.uuid, place.device.name});
  if (system_.send(made.socket.get(), hello, nullptr, {}) < 0) drop(id);
}

std::optional<Fault> Hall::identify(Connection& connection) {
  const int socket = connection.socket.get();
  socklen_t size = sizeof(connection.who);
  (void)::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &connection.who, &size);
  const int passes = 1;
  (void)::setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &passes, sizeof(passes));
  (void)::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &k_unread, sizeof(k_unread));
  if (connection.who.pid <= 0) {
    return Fault{Trouble::unidentified,
                 "the agent cannot see this process: it is in a pid "
                 "namespace beside or above the agent's own"};
  }
  bool exact = false;
  connection.pidfd.reset(system_.pidfd_of(socket, connection.who, exact));
  if (!connection.pidfd) {
    if (errno == ESRCH || errno == EINVAL || errno == ENODATA) return std::nullopt;
    const auto fault = out_of_resources(errno);
    stop_accepting();
    return fault;
  }
  // Without the kernel's own handle (before 6.5) the pid may be another's by now. That one is found
  // out by what it says from now on; what was said before counts for nothing.
  char byte = 0;
  connection.early = !exact && ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
  return std::nullopt;
}

std::optional<Fault> Hall::find_place(const ucred& who, const std::string& container) {
  constexpr int k_bounds = 3;
  for (int i = 0; i < k_bounds; ++i) {
    const auto finding = crowd_.look(container, who.uid);
    if (finding.place == Crowd::Place::free) return std::nullopt;
    const auto chosen = choose(finding);
    if (chosen) {
      fail(*chosen, too_many("this container"));
    } else if (finding.place == Crowd::Place::of_own) {
      return too_many("this container");
    } else {
      return Fault{Trouble::too_many_connections,
                   "there are too many connections to the agent; try again"};
    }
  }
  return std::nullopt;
}

// Who has been let in keeps its slot without a connection; who waits would lose its turn. Of those
// that are worth the same the oldest, but of those that wait the one that has waited least.
int Hall::worth(const Connection& connection) const {
  if (connection.state == State::busy) return 3;
  if (connection.slot) return 2;
  return connection.state == State::idle ? 1 : 0;
}

std::optional<ConnectionId> Hall::choose(const Crowd::Finding& finding) const {
  std::optional<std::pair<int, ConnectionId>> best;
  for (const auto id : finding.candidates) {
    const auto value = worth(connections_.at(id));
    if (value == 3 && finding.place == Crowd::Place::of_own) continue;
    const std::pair<int, ConnectionId> candidate(value, value == 3 ? ~id : id);
    if (!best || candidate < *best) best = candidate;
  }
  if (!best) return std::nullopt;
  return best->first == 3 ? ~best->second : best->second;
}

// Newcomers wait in the backlogs.
void Hall::stop_accepting() {
  accepting_ = false;
  accept_again_ = system_.now() + limits_.accept_again;
  watch_listeners(0);
}

void Hall::accept_again() {
  if (accepting_ || system_.now() < accept_again_) return;
  accepting_ = true;
  watch_listeners(EPOLLIN);
}

// One that was taken out, since it was shut down, is no more in the set, and stays so.
void Hall::watch_listeners(unsigned events) {
  for (const auto& [id, listener] : listeners_) {
    (void)watch(EPOLL_CTL_MOD, listener.socket.get(), events, id);
  }
}

}  // namespace mps::admission
