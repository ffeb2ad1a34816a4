#include "instance/layout.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <optional>
#include <string_view>

#include "process/proc.h"

namespace mps::instance {

namespace fs = std::filesystem;

namespace {

// All that a control daemon of 535 to 580 makes in its pipe directory.
constexpr std::array k_daemon_files{"control", "control_lock", "control_privileged", "log",
                                    "nvidia-cuda-mps-control.pid"};

Result<void> make_directory(const fs::path& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
    return Error::from_errno("cannot make the directory " + path.string(), errno);
  }
  // Not through a link that somebody put there: the modes below are what keeps tenants apart.
  UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat found {};
  if (!directory || ::fstat(directory.get(), &found) != 0) {
    return Error::from_errno("cannot use the directory " + path.string(), errno);
  }
  if (found.st_uid != ::geteuid()) {
    return Error{path.string() + " belongs to uid " + std::to_string(found.st_uid) +
                 ", not to the supervisor's uid " + std::to_string(::geteuid()) +
                 "; remove it or choose another run directory"};
  }
  if ((found.st_mode & 07777) == mode) return {};
  if (::fchmod(directory.get(), mode) != 0) {
    return Error::from_errno("cannot set the mode of " + path.string(), errno);
  }
  return {};
}

// Somebody else who waits for the lock (an administrator's flock) is no reason not to start.
bool is_control_program(pid_t pid) {
  const auto stat = process::Proc().stat(pid);
  return stat && stat->name == std::string_view("nvidia-cuda-mps-control").substr(0, 15);
}

// The lock that is on it (F_UNLCK: none); nothing where that cannot be asked.
std::optional<struct flock> lock_on(const fs::path& path) {
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (!file || ::fcntl(file.get(), F_GETLK, &lock) != 0) return std::nullopt;
  return lock;
}

pid_t holder_of(const fs::path& path) {
  const auto lock = lock_on(path);
  return !lock || lock->l_type == F_UNLCK ? 0 : lock->l_pid;
}

}  // namespace

Layout::Layout(const fs::path& run_dir, const std::string& id)
    : root(run_dir / id),
      pipe(root / "pipe"),
      private_(root / "private"),
      open(root / "open"),
      open_pipe(open / "pipe"),
      shares(root / "shares"),
      log(private_ / "mps.log"),
      control(pipe / "control"),
      private_lock(private_ / "control_lock") {}

Result<void> Layout::make() const {
  struct Wanted {
    const fs::path* path;
    mode_t mode;
  };
  for (const auto& [path, mode] : std::array<Wanted, 5>{
           {{&root, 0755}, {&pipe, 0711}, {&private_, 0700}, {&open, 0755}, {&open_pipe, 0755}}}) {
    if (auto made = make_directory(*path, mode); !made) return made;
  }
  return {};
}

Result<void> Layout::make_share(const std::string& id) const {
  for (const auto& path : {root, shares, shares / id, shares / id / "pipe"}) {
    if (auto made = make_directory(path, 0755); !made) return made;
  }
  return {};
}

pid_t Layout::lock_holder() const {
  const auto holder = holder_of(private_lock);
  return holder > 0 ? holder : holder_of(pipe / "control_lock");
}

bool Layout::is_left_by_daemon() const {
  const auto visible = lock_on(pipe / "control_lock");
  const auto hidden = lock_on(private_lock);
  const auto is_held = [](const auto& lock) { return lock && lock->l_type != F_UNLCK; };
  return (visible || hidden) && !is_held(visible) && !is_held(hidden);
}

Result<void> Layout::sweep() const {
  const auto holder = lock_holder();
  if (holder > 0 && is_control_program(holder)) {
    return Error{"another control daemon, pid " + std::to_string(holder) + ", serves from " +
                 pipe.string() + "; end it first (kill " + std::to_string(holder) + ")"};
  }
  for (const auto* name : k_daemon_files) {
    const auto path = pipe / name;
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
      return Error::from_errno("cannot remove " + path.string() + ", left by a dead daemon", errno);
    }
  }
  return {};
}

Result<void> Layout::make_lock() const {
  const auto lock = pipe / "control_lock";
  UniqueFd made(::open(lock.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!made) return Error::from_errno("cannot make " + lock.string(), errno);
  return {};
}

Result<void> Layout::keep_private_lock() const {
  const auto& lock = private_lock;
  UniqueFd made(::open(lock.c_str(), O_CREAT | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!made) return Error::from_errno("cannot make " + lock.string(), errno);
  return {};
}

Result<UniqueFd> Layout::open_log() const {
  UniqueFd file(::open(log.c_str(), O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  struct stat found {};
  if (!file || ::fstat(file.get(), &found) != 0) {
    return Error::from_errno("cannot open " + log.string(), errno);
  }
  char last = '\n';
  if (found.st_size > 0 && ::pread(file.get(), &last, 1, found.st_size - 1) != 1) {
    return Error::from_errno("cannot read " + log.string(), errno);
  }
  // On a full disk this fails, which costs one line and is no reason not to start.
  if (last != '\n' && ::write(file.get(), "\n", 1) != 1) errno = 0;
  return file;
}

Result<std::string> log_identity(int descriptor) {
  struct statx found {};
  if (::statx(descriptor, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &found) != 0) {
    return Error::from_errno("cannot stat the daemon's log", errno);
  }
  return std::to_string(found.stx_ino) + "-" + std::to_string(found.stx_btime.tv_sec) + "." +
         std::to_string(found.stx_btime.tv_nsec);
}

}  // namespace mps::instance
