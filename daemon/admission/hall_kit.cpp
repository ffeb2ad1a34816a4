#include "admission/hall_kit.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace mps::admission::testing {

RequestId FakeDesk::ask(Peer peer, const Wish& wish, Told told) {
  const auto id = asked.size() + 1;
  asked.push_back({id, std::move(peer), wish, std::move(told)});
  return id;
}

void FakeDesk::standing(Peer peer,
                        std::function<void(std::variant<Standing, share::Refusal>)> told) {
  standings.emplace_back(std::move(peer), std::move(told));
}

void FakeDesk::terminate_own(Peer peer, Scope scope,
                             std::function<void(std::variant<Terminated, share::Refusal>)> told) {
  scopes.push_back(scope);
  terminations.emplace_back(std::move(peer), std::move(told));
}

int Machine::accept(int socket) {
  ++accepts;
  if (accept_error == 0) return System::accept(socket);
  errno = accept_error;
  return -1;
}

int Machine::pidfd_of(int socket, const ucred& peer, bool& is_exact) {
  if (pidfd_error != 0) {
    errno = pidfd_error;
    return -1;
  }
  const int pidfd = System::pidfd_of(socket, peer, is_exact);
  is_exact = exact;
  return pidfd;
}

int Machine::watch(int epoll, int operation, int descriptor, unsigned events,
                   unsigned long long data) {
  if (operation == EPOLL_CTL_ADD && watch_error != 0) {
    errno = watch_error;
    return -1;
  }
  return System::watch(epoll, operation, descriptor, events, data);
}

namespace {

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

}  // namespace

UniqueFd listening() {
  auto made = make_socket();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address.sun_family)) == 0);
  REQUIRE(::listen(made.get(), 64) == 0);
  return made;
}

UniqueFd connected(int listener) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  auto made = make_socket();
  REQUIRE(::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
  return made;
}

bool say(const UniqueFd& socket, std::string_view text) {
  return ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) >= 0;
}

std::string heard(const UniqueFd& socket) {
  std::array<char, k_message_limit> buffer{};
  const auto got = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got == 0) return "(end)";
  if (got < 0) return errno == EAGAIN ? "" : "(reset)";
  return {buffer.data(), static_cast<std::size_t>(got)};
}

void send_descriptors(const UniqueFd& socket, std::string_view text, std::size_t count) {
  std::vector<char> control(CMSG_SPACE(sizeof(int) * count));
  iovec part{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  auto* beside = CMSG_FIRSTHDR(&message);
  beside->cmsg_level = SOL_SOCKET;
  beside->cmsg_type = SCM_RIGHTS;
  beside->cmsg_len = CMSG_LEN(sizeof(int) * count);
  const std::vector<int> descriptors(count, socket.get());
  std::memcpy(CMSG_DATA(beside), descriptors.data(), sizeof(int) * count);
  CHECK(::sendmsg(socket.get(), &message, MSG_NOSIGNAL) >= 0);
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    static_cast<void>(entry);
    ++count;
  }
  return count;
}

Kit::Kit(Limits limits) : hall(std::in_place, machine, desk, limits), listener(listening()) {
  REQUIRE(hall->start());
  REQUIRE(hall->add_listener("gpu0.shared", "open", UniqueFd(::dup(listener.get()))));
}

UniqueFd Kit::connect() {
  auto made = connected(listener.get());
  turn();
  return made;
}

UniqueFd Kit::greeted() {
  auto made = connect();
  CHECK(heard(made).starts_with("hello\nprotocol=1\n"));
  return made;
}

UniqueFd Kit::asking(std::string_view words) {
  auto made = greeted();
  REQUIRE(say(made, words));
  turn();
  return made;
}

void Kit::turn(int times) {
  for (int i = 0; i < times; ++i) hall->turn();
}

void Kit::pass(std::chrono::milliseconds time) {
  machine.clock += time;
  turn();
}

bool Kit::at_rest() const {
  pollfd look{hall->descriptor(), POLLIN, 0};
  return ::poll(&look, 1, 0) == 0;
}

share::LetIn granted(share::SlotId slot) {
  share::LetIn verdict;
  verdict.slot = slot;
  verdict.admission = 1;
  return verdict;
}

std::string error(std::string_view code, std::string_view sentence) {
  return "error\ncode=" + std::string(code) + "\nsentence=" + std::string(sentence) + "\n";
}

}  // namespace mps::admission::testing
