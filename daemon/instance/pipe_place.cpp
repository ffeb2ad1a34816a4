#include "instance/pipe_place.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <utility>

namespace mps::instance {

namespace fs = std::filesystem;

namespace {

// Sockets, a lock, a pid: far less than that. No other uid may make files there.
const char* const k_options = "mode=0711,size=16m,nr_inodes=1024";
constexpr unsigned long k_flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

Result<UniqueFd> open_directory(const fs::path& path) {
  UniqueFd opened(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return Error::from_errno("cannot open " + path.string(), errno);
  return opened;
}

Result<void> furnish(const Layout& layout) {
  if (::mount("mps-pipe", layout.pipe.c_str(), "tmpfs", k_flags, k_options) != 0) {
    return Error::from_errno("mount a tmpfs at " + layout.pipe.string(), errno);
  }
  const auto lock = layout.pipe / "control_lock";
  const UniqueFd made(::open(lock.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!made || ::mount(layout.private_lock.c_str(), lock.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return Error::from_errno("mount the lock at " + lock.string(), errno);
  }
  return {};
}

bool is_same_file(int a, int b) {
  struct stat one {};
  struct stat other {};
  return ::fstat(a, &one) == 0 && ::fstat(b, &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

}  // namespace

std::shared_ptr<const PipePlace> PipePlace::visible(const Layout& layout) {
  return std::shared_ptr<const PipePlace>(new PipePlace(layout.pipe));
}

Result<std::shared_ptr<const PipePlace>> PipePlace::make_private(const Layout& layout) {
  if (auto kept = layout.keep_private_lock(); !kept) return kept.error();
  std::shared_ptr<PipePlace> place(new PipePlace(layout.pipe));
  auto space = process::MountSpace::make([&]() -> Result<void> {
    if (auto furnished = furnish(layout); !furnished) return furnished;
    auto opened = open_directory(layout.pipe);
    if (!opened) return opened.error();
    place->directory_ = std::move(*opened);
    return {};
  });
  if (!space) return space.error();
  place->space_ = std::move(*space);
  return place;
}

Result<std::shared_ptr<const PipePlace>> PipePlace::of(const Layout& layout, pid_t daemon) {
  auto space = process::MountSpace::of(daemon);
  if (!space) return space.error();
  if ((*space)->is_ours()) return visible(layout);
  UniqueFd inside;
  const auto looked = (*space)->run([&]() -> Result<void> {
    auto opened = open_directory(layout.pipe);
    if (!opened) return opened.error();
    inside = std::move(*opened);
    return {};
  });
  if (!looked) return looked.error();
  const auto outside = open_directory(layout.pipe);
  if (outside && is_same_file(outside->get(), inside.get())) return visible(layout);
  std::shared_ptr<PipePlace> place(new PipePlace(layout.pipe));
  place->directory_ = std::move(inside);
  place->space_ = std::move(*space);
  return place;
}

Result<UniqueFd> PipePlace::directory() const {
  if (!is_private()) return open_directory(path_);
  UniqueFd copy(::fcntl(directory_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return Error::from_errno("cannot open " + path_.string(), errno);
  return copy;
}

fs::path PipePlace::control() const {
  if (!is_private()) return path_ / "control";
  return "/proc/self/fd/" + std::to_string(directory_.get()) + "/control";
}

}  // namespace mps::instance
