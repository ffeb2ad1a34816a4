#include "app/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "base/text.h"
#include "base/unique_fd.h"

namespace mps::app {

namespace {

// main() reads the environment before any thread exists; nothing here changes it.
const char* variable(const char* name) {
  return std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
}

void put_beside(msghdr& message, std::span<char> buffer, int descriptor) {
  message.msg_control = buffer.data();
  message.msg_controllen = buffer.size();
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(descriptor));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
}

}  // namespace

bool notify(std::string_view state, int descriptor) {
  const char* path = variable("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto length = std::strlen(path);
  if (length >= sizeof(address.sun_path)) return false;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return false;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  std::string bytes(state);
  iovec text{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_name = &address;
  message.msg_namelen = size;
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> beside{};
  if (descriptor >= 0) put_beside(message, beside, descriptor);
  return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL) >= 0;
}

std::optional<std::chrono::microseconds> watchdog_interval() {
  const char* interval = variable("WATCHDOG_USEC");
  const char* pid = variable("WATCHDOG_PID");
  if (interval == nullptr) return std::nullopt;
  if (pid != nullptr && parse_number<pid_t>(pid) != ::getpid()) return std::nullopt;
  const auto value = parse_number<std::int64_t>(interval);
  if (!value || *value <= 0) return std::nullopt;
  return std::chrono::microseconds(*value / 4);
}

}  // namespace mps::app
