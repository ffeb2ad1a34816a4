// mps-gate: started by the supervisor, one per instance, and never by hand. It outlives its
// supervisor, and is ended by a supervisor's word only.
//   mps-gate NAME    descriptor 3: the socket for supervisors, listening
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "gate/gate.h"

namespace {

// Programs that were let in depend on it for as long as they run.
void be_hard_to_end() {
  for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM}) {
    std::signal(number, SIG_IGN);
  }
  const mps::UniqueFd score(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (score) (void)!::write(score.get(), "-1000", 5);
}

// Two descriptors for each that waits, three for each inside: never so many that there are none
// left for the way to the daemon, and for what is passed in one message.
void bound_by_descriptors(mps::gate::Bounds& bounds) {
  constexpr rlim_t others = 384;
  const rlim_t wanted = others + bounds.listeners + rlim_t{3} * bounds.peers;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  const rlimit more{wanted, std::max(wanted, limit.rlim_max)};
  if (limit.rlim_max >= wanted || ::setrlimit(RLIMIT_NOFILE, &more) != 0) {
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const auto at_most = [](std::uint32_t bound, rlim_t room) {
    return static_cast<std::uint32_t>(std::min<rlim_t>(bound, std::max<rlim_t>(room, 16)));
  };
  bounds.listeners = at_most(bounds.listeners, limit.rlim_cur / 8);
  const rlim_t taken = others + bounds.listeners;
  bounds.peers = at_most(bounds.peers, limit.rlim_cur > taken ? (limit.rlim_cur - taken) / 3 : 0);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2 || ::fcntl(3, F_SETFD, FD_CLOEXEC) != 0) {
    std::fputs("mps-gate is started by mps-supervisor\n", stderr);
    return 2;
  }
  ::prctl(PR_SET_DUMPABLE, 0);
  be_hard_to_end();
  mps::gate::Bounds bounds;
  bound_by_descriptors(bounds);
  mps::gate::System system;
  mps::gate::Gate gate(system, mps::UniqueFd(3), bounds);
  if (const auto started = gate.start(); !started) {
    std::fprintf(stderr, "mps-gate %s: %s\n", arguments[1], started.error().message.c_str());
    return 1;
  }
  while (gate.turn(std::chrono::minutes(1))) continue;
  return 0;
}
