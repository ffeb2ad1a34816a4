#include "app/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "base/text.h"
#include "base/unique_fd.h"

namespace mps::app {

namespace {

// main() reads the environment before any thread exists; nothing here changes it.
const char* variable(const char* name) {
  return std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
}

}  // namespace

void notify(std::string_view state) {
  const char* path = variable("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto length = std::strlen(path);
  if (length >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), size);
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
