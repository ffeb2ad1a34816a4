#include "gate/system.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace mps::gate {

namespace {

constexpr std::size_t k_cgroup_limit = 4096;

union ControlBuffer {
  char bytes[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int) * k_descriptors)];
  cmsghdr alignment;
};

void take(const cmsghdr& part, Received& received) {
  if (part.cmsg_level != SOL_SOCKET) return;
  const auto* data = CMSG_DATA(&part);
  const auto size = part.cmsg_len - CMSG_LEN(0);
  if (part.cmsg_type == SCM_CREDENTIALS && size == sizeof(ucred)) {
    std::memcpy(&received.credentials.emplace(), data, sizeof(ucred));
  } else if (part.cmsg_type == SCM_RIGHTS) {
    received.descriptor_count = size / sizeof(int);
    std::memcpy(received.descriptors.data(), data, received.descriptor_count * sizeof(int));
  }
}

template <typename T>
void put(msghdr& message, int type, const T* values, std::size_t count) {
  // The part that follows what is there already.
  auto* part =
      reinterpret_cast<cmsghdr*>(static_cast<char*>(message.msg_control) + message.msg_controllen);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = type;
  part->cmsg_len = CMSG_LEN(sizeof(T) * count);
  std::memcpy(CMSG_DATA(part), values, sizeof(T) * count);
  message.msg_controllen += CMSG_SPACE(sizeof(T) * count);
}

}  // namespace

void Received::clear() {
  for (const int descriptor : fds()) ::close(descriptor);
  size = 0;
  cut = missing = false;
  credentials.reset();
  descriptor_count = 0;
}

System::TimePoint System::now() {
  return std::chrono::steady_clock::now();
}

int System::accept(int listener) {
  return ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int System::pidfd_of(int socket, const ucred& peer, bool& exact) {
  int pidfd = -1;
  socklen_t size = sizeof(pidfd);
  exact = ::getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0;
  if (exact) return pidfd;
  if (errno != ENOPROTOOPT) return -1;
  return static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0));
}

bool System::has_ended(int pidfd) {
  pollfd look{pidfd, POLLIN, 0};
  return ::poll(&look, 1, 0) > 0;
}

std::string System::cgroup_of(pid_t pid) {
  char path[32];
  std::snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
  const UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC));
  if (!file) return {};
  char text[k_cgroup_limit];
  const auto got = ::read(file.get(), text, sizeof(text));
  return got > 0 ? std::string(text, static_cast<std::size_t>(got)) : std::string();
}

int System::socket() {
  return ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

int System::connect(int socket, int directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control", directory);
  return ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

namespace {

ssize_t receive_message(int socket, std::span<char> buffer, Received& received, int how) {
  received.clear();
  ControlBuffer control;
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  const auto got = ::recvmsg(socket, &message, how | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  for (auto* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
    take(*at, received);
  }
  received.size = static_cast<std::size_t>(got);
  received.cut = (message.msg_flags & MSG_TRUNC) != 0;
  received.missing = (message.msg_flags & MSG_CTRUNC) != 0;
  return got;
}

}  // namespace

ssize_t System::receive(int socket, std::span<char> buffer, Received& received) {
  return receive_message(socket, buffer, received, 0);
}

ssize_t System::peek(int socket, std::span<char> buffer, Received& received) {
  return receive_message(socket, buffer, received, MSG_PEEK);
}

// A reset that came since is told once, and before the message.
void System::discard(int socket) {
  for (int i = 0; i < 3; ++i) {
    char byte = 0;
    if (::recv(socket, &byte, 1, MSG_DONTWAIT) >= 0 || errno == EAGAIN) return;
  }
}

ssize_t System::send(int socket, std::span<const char> bytes, const ucred* credentials,
                     std::span<const int> descriptors) {
  ControlBuffer control;
  std::memset(&control, 0, sizeof(cmsghdr));
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  if (credentials != nullptr) put(message, SCM_CREDENTIALS, credentials, 1);
  if (!descriptors.empty()) put(message, SCM_RIGHTS, descriptors.data(), descriptors.size());
  if (message.msg_controllen == 0) message.msg_control = nullptr;
  return ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int System::watch(int epoll, int operation, int descriptor, unsigned events,
                  unsigned long long data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return ::epoll_ctl(epoll, operation, descriptor, &event);
}

}  // namespace mps::gate
