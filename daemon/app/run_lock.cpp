#include "app/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include "base/text.h"

namespace mps::app {

namespace {

constexpr std::chrono::milliseconds k_dead_holder{1000};
constexpr std::chrono::milliseconds k_look_again{5};

pid_t read_holder(int descriptor) {
  std::array<char, 32> text{};
  const auto got = ::pread(descriptor, text.data(), text.size(), 0);
  if (got <= 0) return 0;
  return parse_number<pid_t>(trim({text.data(), static_cast<std::size_t>(got)})).value_or(0);
}

// A supervisor that was killed while it started a program leaves that with the lock until it has
// become the other program.
bool lock(int file) {
  const auto limit = std::chrono::steady_clock::now() + k_dead_holder;
  while (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return false;
    const auto holder = read_holder(file);
    const bool dead = holder > 0 && ::kill(holder, 0) != 0 && errno == ESRCH;
    if (!dead || std::chrono::steady_clock::now() > limit) {
      errno = EWOULDBLOCK;
      return false;
    }
    std::this_thread::sleep_for(k_look_again);
  }
  return true;
}

// What is there is ours, a directory, and nobody else may write in it.
Result<UniqueFd> open_own_directory(const std::filesystem::path& path) {
  UniqueFd opened(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat found {};
  if (!opened || ::fstat(opened.get(), &found) != 0) {
    return Error::from_errno("cannot use the directory " + path.string(), errno);
  }
  if (found.st_uid != ::geteuid()) {
    return Error{path.string() + " belongs to uid " + std::to_string(found.st_uid) +
                 ", not to the supervisor's uid " + std::to_string(::geteuid())};
  }
  if ((found.st_mode & 022) != 0) {
    return Error{path.string() +
                 " can be written by others than its owner: chmod go-w it, or "
                 "choose another"};
  }
  return opened;
}

}  // namespace

Result<void> make_private_directory(const std::filesystem::path& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return Error::from_errno("cannot make the state directory " + path.string(), errno);
  }
  const auto opened = open_own_directory(path);
  if (!opened) return opened.error();
  if (::fchmod(opened->get(), 0700) != 0) {
    return Error::from_errno("cannot set the mode of " + path.string(), errno);
  }
  return {};
}

std::variant<UniqueFd, LockHeld, Error> lock_run_directory(const std::filesystem::path& run_dir) {
  if (::mkdir(run_dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return Error::from_errno("cannot make the run directory " + run_dir.string(), errno);
  }
  if (const auto own = open_own_directory(run_dir); !own) return own.error();
  // Not flock on the directory itself: whoever may read a directory could hold that lock.
  const auto path = run_dir / "supervisor.lock";
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) {
    return Error::from_errno("cannot write in the run directory: open " + path.string(), errno);
  }
  if (!lock(file.get())) {
    if (errno == EWOULDBLOCK) return LockHeld{read_holder(file.get())};
    return Error::from_errno("cannot lock " + path.string(), errno);
  }
  const auto pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(file.get(), 0) != 0 ||
      ::pwrite(file.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return Error::from_errno("cannot write " + path.string(), errno);
  }
  return file;
}

}  // namespace mps::app
