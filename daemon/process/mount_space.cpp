#include "process/mount_space.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace mps::process {
namespace {

// A thread has namespaces, a root and a working directory of its own, once it has asked for them.
Result<void> on_own_thread(const MountSpace::Work& work) {
  // What stays if the thread cannot even report its trouble; made before it could run out of
  // memory.
  Result<void> outcome = Error::from_errno("enter a mount namespace", ENOMEM);
  const auto run = [&]() noexcept {
    try {
      outcome = work();
    } catch (const std::exception&) {
      // An exception that left the thread would be the end of the process.
    }
  };
  try {
    std::thread(run).join();
  } catch (const std::system_error& error) {
    return Error::from_errno("enter a mount namespace", error.code().value());
  }
  return outcome;
}

Result<void> enter(int space) {
  if (::setns(space, CLONE_NEWNS) == 0) return {};
  return Error::from_errno("enter a mount namespace", errno);
}

}  // namespace

Result<std::shared_ptr<const MountSpace>> MountSpace::make(const Work& furnish) {
  UniqueFd space;
  auto made = on_own_thread([&]() -> Result<void> {
    if (::unshare(CLONE_NEWNS) != 0) {
      return Error::from_errno("make a mount namespace", errno);
    }
    // Before anything is mounted: else it would be mounted outside as well.
    if (::mount(nullptr, "/", nullptr, MS_SLAVE | MS_REC, nullptr) != 0) {
      return Error::from_errno("keep mounts in a mount namespace", errno);
    }
    if (auto furnished = furnish(); !furnished) return furnished;
    space.reset(::open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC));
    if (!space) return Error::from_errno("open a mount namespace", errno);
    return enter(space.get());
  });
  if (!made) return made.error();
  return std::make_shared<const MountSpace>(std::move(space));
}

Result<std::shared_ptr<const MountSpace>> MountSpace::of(pid_t pid) {
  const auto path = "/proc/" + std::to_string(pid) + "/ns/mnt";
  UniqueFd space(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!space) return Error::from_errno("open " + path, errno);
  return std::make_shared<const MountSpace>(std::move(space));
}

bool MountSpace::is_ours() const {
  struct stat here {};
  struct stat there {};
  return ::stat("/proc/thread-self/ns/mnt", &here) == 0 && ::fstat(space_.get(), &there) == 0 &&
         here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

Result<void> MountSpace::run(const Work& work) const {
  return on_own_thread([&]() -> Result<void> {
    if (::unshare(CLONE_FS) != 0) return Error::from_errno("enter a mount namespace", errno);
    if (auto entered = enter(space_.get()); !entered) return entered;
    return work();
  });
}

}  // namespace mps::process
