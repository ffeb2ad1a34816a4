#include "process/reaper.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/error_code.hpp>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "process/proc.h"

namespace mps::process {

namespace asio = boost::asio;

namespace {

struct Registry {
  std::mutex mutex;
  std::multiset<pid_t> pids;  // two may watch the same process
};

Registry& registry() {
  static Registry instance;
  return instance;
}

bool is_owned(pid_t pid) {
  auto& all = registry();
  const std::lock_guard lock(all.mutex);
  return all.pids.contains(pid);
}

std::vector<Zombie> unowned_zombies() {
  std::vector<Zombie> zombies;
  const Proc proc;
  for (const auto pid : proc.children(::getpid())) {
    if (is_owned(pid)) continue;
    const auto stat = proc.stat(pid);
    if (stat && stat->state == 'Z') zombies.push_back({pid, stat->start_time});
  }
  return zombies;
}

bool orphans_come_to_us() {
  int subreaper = 0;
  return ::getpid() == 1 || (::prctl(PR_GET_CHILD_SUBREAPER, &subreaper) == 0 && subreaper != 0);
}

class Sweeper : public std::enable_shared_from_this<Sweeper> {
 public:
  Sweeper(const asio::any_io_executor& executor, std::chrono::milliseconds interval)
      : timer_(executor), interval_(interval) {}

  void arm() {
    timer_.expires_after(interval_);
    timer_.async_wait([self = shared_from_this()](boost::system::error_code error) {
      if (error) return;
      self->sweep();
      self->arm();
    });
  }

 private:
  void sweep() {
    try {
      for (const auto pid : sweep_.due(unowned_zombies())) {
        siginfo_t info{};
        ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
      }
    } catch (const std::exception&) {
      // Out of memory or descriptors: zombies can wait for the next time.
    }
  }

  asio::steady_timer timer_;
  std::chrono::milliseconds interval_;
  OrphanSweep sweep_;
};

}  // namespace

OwnedPid::OwnedPid(pid_t pid) : pid_(pid) {
  auto& all = registry();
  const std::lock_guard lock(all.mutex);
  all.pids.insert(pid);
}

void OwnedPid::release() {
  if (pid_ == 0) return;
  auto& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto found = all.pids.find(std::exchange(pid_, 0));
  if (found != all.pids.end()) all.pids.erase(found);
}

std::vector<pid_t> OrphanSweep::due(std::vector<Zombie> zombies) {
  std::vector<pid_t> pids;
  for (const auto& zombie : zombies) {
    const bool again = std::find(before_.begin(), before_.end(), zombie) != before_.end();
    if (again) pids.push_back(zombie.pid);
  }
  before_ = std::move(zombies);
  return pids;
}

bool start_reaper(const asio::any_io_executor& executor, std::chrono::milliseconds interval) {
  if (!orphans_come_to_us()) return false;
  std::make_shared<Sweeper>(executor, interval)->arm();
  return true;
}

}  // namespace mps::process
