#include "identity/life.h"

#include <poll.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/text.h"

namespace mps::identity {
namespace {

constexpr std::size_t k_fdinfo_limit = 4096;

// -1: ended and reaped, or no pidfd at all.
pid_t pid_behind(int pidfd) {
  const auto text = read_file("/proc/self/fdinfo/" + std::to_string(pidfd), k_fdinfo_limit);
  if (!text) return -1;
  for (const auto line : split_lines(*text)) {
    const auto words = split_whitespace(line);
    if (words.size() == 2 && words[0] == "Pid:") return parse_number<pid_t>(words[1]).value_or(-1);
  }
  return -1;
}

bool has_ended(int pidfd) {
  pollfd descriptor{.fd = pidfd, .events = POLLIN, .revents = 0};
  int count = ::poll(&descriptor, 1, 0);
  while (count < 0 && errno == EINTR) count = ::poll(&descriptor, 1, 0);
  return count != 0;
}

}  // namespace

Life::Life(process::Proc proc, pid_t pid, int pidfd)
    : proc_(std::move(proc)), pid_(pid), pidfd_(pidfd) {
  if (pidfd_ >= 0) return;
  if (const auto status = proc_.stat(pid_)) start_time_ = status->start_time;
}

bool Life::goes_on() const {
  if (pidfd_ >= 0) return !has_ended(pidfd_) && pid_behind(pidfd_) == pid_;
  return start_time_ && process::is_running(proc_, pid_, *start_time_);
}

}  // namespace mps::identity
