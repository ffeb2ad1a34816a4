// Orphans: as process 1 of a container (or a child subreaper, prctl(2)) we become the parent of
// what others leave behind, and what nobody waits for stays a zombie.
//
// Not at SIGCHLD but by a sweep now and then, and only of zombies seen twice, which nobody owns:
// libraries in this process (NVML starts nvidia-modprobe) start children as well and wait for them
// themselves, and must not find them gone.
//
// Threading: OwnedPid on any thread; the sweep on the executor given.
#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <compare>
#include <cstdint>
#include <vector>

namespace mps::process {

// While it lives, and until release(), the pid is left to its owner. Each Child has one.
class OwnedPid {
 public:
  explicit OwnedPid(pid_t pid);
  OwnedPid(const OwnedPid&) = delete;
  OwnedPid& operator=(const OwnedPid&) = delete;
  ~OwnedPid() { release(); }
  void release();

 private:
  pid_t pid_;
};

struct Zombie {
  pid_t pid = 0;
  std::uint64_t start_time = 0;
  auto operator<=>(const Zombie&) const = default;
};

// Pure: which of the zombies that nobody owns were there the last time as well.
class OrphanSweep {
 public:
  std::vector<pid_t> due(std::vector<Zombie> zombies);

 private:
  std::vector<Zombie> before_;
};

// Sweeps every `interval` for as long as the reactor runs (it never runs out of work then; the
// detached sweep ends with it). False, and nothing is started, where orphans go to somebody else.
bool start_reaper(const boost::asio::any_io_executor& executor,
                  std::chrono::milliseconds interval = std::chrono::seconds(5));

}  // namespace mps::process
