#include "connection.h"

#include <string.h>
#include <sys/un.h>

#include "system.h"

namespace mps::client {

namespace {

constexpr long long k_first_pause_ms = 1;
constexpr long long k_longest_pause_ms = 50;

// A host that closed 0, 1 or 2 must not have its errors written into our conversation.
int above_standard(int descriptor) {
  if (descriptor < 0 || descriptor > 2) return descriptor;
  const int moved = sys::move_above(descriptor, 3);
  sys::close(descriptor);
  errno = EMFILE;  // EINVAL where the limit is 3 or less
  return moved;
}

}  // namespace

long long now_ms() {
  const timespec now = sys::monotonic_time();
  return static_cast<long long>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

void sleep_ms(long long ms) {
  if (ms > 0) sys::poll(nullptr, 0, ms);
}

int Connection::dial(const char* path, long long until) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!copy(address.sun_path, sizeof address.sun_path, path, strlen(path))) return ENAMETOOLONG;
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  close();
  descriptor_ = above_standard(sys::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (descriptor_ < 0) return errno;
  // A full backlog is EAGAIN, and nothing tells when there is room again.
  for (long long pause = k_first_pause_ms;; pause = pause * 2) {
    if (sys::connect(descriptor_, to, sizeof address) == 0) return 0;
    const int error = errno;
    if (error != EAGAIN && error != EINTR) {
      close();
      return error;
    }
    if (now_ms() >= until) {
      close();
      return ETIMEDOUT;
    }
    if (pause > k_longest_pause_ms) pause = k_longest_pause_ms;
    sleep_ms(pause);
  }
}

int Connection::say(const char* text) {
  const size_t size = strlen(text);
  const ssize_t sent = sys::send(descriptor_, text, size, MSG_NOSIGNAL);
  if (sent < 0) return errno;
  return static_cast<size_t>(sent) == size ? 0 : EMSGSIZE;
}

int Connection::hear_now(Message& message) {
  ssize_t size = 0;
  do {
    size = sys::receive(descriptor_, message.text, k_message_limit, MSG_TRUNC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return errno;
  if (size == 0) return ECONNRESET;
  return accept(message, static_cast<size_t>(size)) ? 0 : EBADMSG;
}

int Connection::hear(Message& message, long long until) {
  for (;;) {
    const int result = hear_now(message);
    if (result != EAGAIN) return result;
    const long long left = until - now_ms();
    if (left <= 0) return ETIMEDOUT;
    pollfd look{descriptor_, POLLIN, 0};
    sys::poll(&look, 1, left);
  }
}

void Connection::close() {
  if (descriptor_ >= 0) sys::close(descriptor_);
  descriptor_ = -1;
}

}  // namespace mps::client
