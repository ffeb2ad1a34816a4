// What a connection may say, and what it is told.
#include <fcntl.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "admission/hall.h"
#include "base/text.h"

namespace mps::admission {

namespace {

constexpr int k_drained = 16;  // messages taken from a peer that is left
constexpr unsigned k_gone = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

struct Heard {
  ssize_t size = -1;
  bool cut = false;
  bool more = false;  // descriptors came beside it
  std::optional<ucred> credentials{};
};

// There is room for credentials alone, so the kernel lets go of descriptors before we have them.
Heard hear(int socket, std::span<char> buffer) {
  union {
    char bytes[CMSG_SPACE(sizeof(ucred))];
    cmsghdr alignment;
  } control;
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  Heard heard;
  heard.size = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (heard.size < 0) return heard;
  heard.cut = (message.msg_flags & MSG_TRUNC) != 0;
  heard.more = (message.msg_flags & MSG_CTRUNC) != 0;
  const auto* beside = CMSG_FIRSTHDR(&message);
  if (beside != nullptr && beside->cmsg_level == SOL_SOCKET &&
      beside->cmsg_type == SCM_CREDENTIALS && beside->cmsg_len == CMSG_LEN(sizeof(ucred))) {
    std::memcpy(&heard.credentials.emplace(), CMSG_DATA(beside), sizeof(ucred));
  }
  return heard;
}

}  // namespace

// ---- hearing ----

void Hall::on_connection(ConnectionId id, unsigned events) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;  // it was ended in this turn
  if ((events & k_gone) != 0) return leave(id);
  if ((events & EPOLLIN) == 0 || found->second.state == State::busy) return;
  // Until its turn comes, and it is answered, it is only watched for its end.
  if (!watch(EPOLL_CTL_MOD, found->second.socket.get(), EPOLLRDHUP, id)) return drop(id);
  crowd_.ready(id);
}

void Hall::listen_to(ConnectionId id) {
  auto& connection = connections_.at(id);
  std::array<char, k_question_limit + 1> buffer{};
  const auto heard = hear(connection.socket.get(), buffer);
  if (heard.size < 0 && (errno == EAGAIN || errno == EINTR)) {
    if (!watch(EPOLL_CTL_MOD, connection.socket.get(), EPOLLIN | EPOLLRDHUP, id)) drop(id);
    return;
  }
  const bool ended = heard.size == 0 && !heard.credentials;
  if (heard.size < 0 || ended) return drop(id);
  if (heard.more) {
    return fail(id, {Trouble::had_descriptors, "a request comes without descriptors"});
  }
  if (connection.early) {
    return fail(id, {Trouble::too_early, "nothing can be asked before hello was said"});
  }
  if (!heard.credentials || heard.credentials->pid != connection.who.pid) {
    return fail(id, {Trouble::wrong_process,
                     "a connection is for the process that made it; connect from this one"});
  }
  // As at the gate: by these the daemon will know it.
  connection.who = *heard.credentials;
  const auto question = judge(connection, {buffer.data(), static_cast<std::size_t>(heard.size)});
  if (const auto* fault = std::get_if<Fault>(&question)) return fail(id, *fault);
  answer(id, std::get<Question>(question));
}

std::variant<Question, Fault> Hall::judge(const Connection& connection, std::string_view said) {
  auto question = decode(said);
  const auto* asked = std::get_if<Question>(&question);
  if (asked != nullptr && connection.slot && std::holds_alternative<Ask>(*asked)) {
    return Fault{Trouble::already_granted, "this connection has been granted its slot already"};
  }
  return question;
}

// ---- asking the desk ----

void Hall::answer(ConnectionId id, const Question& question) {
  auto& connection = connections_.at(id);
  if (system_.has_ended(connection.pidfd.get())) return drop(id);
  const auto& place = listeners_.at(connection.listener);
  const auto& who = connection.who;
  Peer peer{place.instance, place.share,
            who.pid,        who.uid,
            who.gid,        UniqueFd(::fcntl(connection.pidfd.get(), F_DUPFD_CLOEXEC, 0))};
  if (!peer.pidfd) {
    return fail(id, {Trouble::out_of_resources,
                     Error::from_errno("the agent cannot ask for this; try again", errno).message});
  }
  ++counts_.questions;
  connection.state = State::busy;
  connection.question = ++questions_;
  set_deadline(id, connection, system_.now() + limits_.answer);
  if (const auto* wish = std::get_if<Ask>(&question)) return ask(id, *wish, std::move(peer));
  if (std::holds_alternative<AskStanding>(question)) {
    desk_.standing(std::move(peer), teller<Standing>(id));
  } else {
    const auto scope = std::get<TerminateOwn>(question).scope;
    desk_.terminate_own(std::move(peer), scope, teller<Terminated>(id));
  }
}

void Hall::ask(ConnectionId id, const Ask& question, Peer peer) {
  auto& connection = connections_.at(id);
  const auto now = std::chrono::duration_cast<ClockTime>(system_.now().time_since_epoch());
  const auto wish = wish_of(question, now, limits_.longest_wait);
  if (wish.may_wait) {
    const auto wait = wish.wait.value_or(limits_.longest_wait);
    set_deadline(id, connection, system_.now() + wait + limits_.answer);
  }
  connection.waits_for = {};
  connection.request = desk_.ask(
      std::move(peer), wish,
      [self = std::weak_ptr(self_), id, asked = connection.question](const Verdict& verdict) {
        const auto hall = self.lock();
        if (hall == nullptr || (*hall)->find_asking(id, asked) == nullptr) return;
        (*hall)->on_verdict(id, verdict);
        (*hall)->arm_timer();
      });
}

Hall::Connection* Hall::find_asking(ConnectionId id, std::uint64_t question) {
  const auto found = connections_.find(id);
  if (found == connections_.end() || found->second.state != State::busy) return nullptr;
  return found->second.question == question ? &found->second : nullptr;
}

void Hall::on_verdict(ConnectionId id, const Verdict& verdict) {
  if (const auto* granted = std::get_if<share::LetIn>(&verdict)) return let_in(id, *granted);
  if (const auto* why = std::get_if<share::Refused>(&verdict)) return refuse(id, *why);
  keep_waiting(id, std::get<share::Waits>(verdict));
}

void Hall::let_in(ConnectionId id, const share::LetIn& verdict) {
  ++counts_.granted;
  connections_.at(id).slot = verdict.slot;
  answered(id, encode(verdict, visible_devices(id)));
}

const std::string& Hall::visible_devices(ConnectionId id) const {
  return listeners_.at(connections_.at(id).listener).device.visible_devices;
}

// One that does not read misses this and no more: it may be stopped and go on later.
void Hall::keep_waiting(ConnectionId id, const share::Waits& why) {
  auto& connection = connections_.at(id);
  if (connection.waits_for == why) return;
  connection.waits_for = why;
  const auto sent = system_.send(connection.socket.get(), encode(why), nullptr, {});
  if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) drop(id);
}

template <typename Answer>
std::function<void(std::variant<Answer, share::Refusal>)> Hall::teller(ConnectionId id) {
  return [self = std::weak_ptr(self_), id,
          asked = connections_.at(id).question](const std::variant<Answer, share::Refusal>& told) {
    const auto hall = self.lock();
    if (hall == nullptr || (*hall)->find_asking(id, asked) == nullptr) return;
    if (const auto* answer = std::get_if<Answer>(&told)) {
      if constexpr (std::is_same_v<Answer, Standing>) {
        (*hall)->answered(id, encode(*answer, (*hall)->visible_devices(id)));
      } else {
        (*hall)->answered(id, encode(*answer));
      }
    } else {
      (*hall)->refuse(id, std::get<share::Refusal>(told));
    }
    (*hall)->arm_timer();
  };
}

// ---- telling ----

void Hall::answered(ConnectionId id, std::string_view message) {
  auto& connection = connections_.at(id);
  connection.state = State::idle;
  connection.request.reset();
  set_deadline(id, connection, std::nullopt);
  if (!connection.slot) set_deadline(id, connection, system_.now() + limits_.silence);
  const int socket = connection.socket.get();
  if (system_.send(socket, message, nullptr, {}) < 0) {
    if (errno == EAGAIN) ++counts_.not_reading;
    return drop(id);
  }
  if (!watch(EPOLL_CTL_MOD, socket, EPOLLIN | EPOLLRDHUP, id)) drop(id);
}

void Hall::refuse(ConnectionId id, const share::Refusal& why) {
  ++counts_.refused;
  answered(id, encode(why));
}

void Hall::fail_late(ConnectionId id) {
  const bool ours = connections_.at(id).state == State::busy;
  if (ours) {
    return fail(id, {Trouble::unanswered, "the agent has no answer after " +
                                              format_duration(limits_.answer) + "; try again"});
  }
  fail(id, {Trouble::too_slow, "nothing was asked for " + format_duration(limits_.silence)});
}

void Hall::fail(ConnectionId id, const Fault& fault) {
  count(fault);
  const auto& connection = connections_.at(id);
  (void)system_.send(connection.socket.get(), encode(fault), nullptr, {});
  drop(id);
}

void Hall::count(const Fault& fault) {
  ++counts_.faults.at(static_cast<std::size_t>(fault.code));
}

// What the desk still works at for it counts as long as a connection does, or who connects, asks
// and leaves could have any number of these under way.
void Hall::leave(ConnectionId id) {
  auto& connection = connections_.at(id);
  if (connection.state != State::busy || connection.request) return drop(id);
  connection.socket.reset();
  connection.pidfd.reset();
  if (const auto slot = std::exchange(connection.slot, std::nullopt)) {
    desk_.connection_closed(*slot);
  }
}

// What it said last is taken, so that it reads our last word and an end, and not a reset.
void Hall::drop(ConnectionId id) {
  auto& connection = connections_.at(id);
  for (int i = 0; i < k_drained; ++i) {
    char byte = 0;
    if (::recv(connection.socket.get(), &byte, 1, MSG_DONTWAIT) <= 0) break;
  }
  set_deadline(id, connection, std::nullopt);
  crowd_.leave(id);
  const auto request = connection.request;
  const auto slot = connection.slot;
  connections_.erase(id);
  if (request) desk_.withdraw(*request);
  if (slot) desk_.connection_closed(*slot);
}

}  // namespace mps::admission
