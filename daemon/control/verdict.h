// What came of a batch, decided from what was seen: the front-end's end and words, the daemon's
// state, and who else is connected to it. Pure.
//
// What the real daemons (535, 550, 555) do, and what this rests on: while somebody holds the
// command session, another front-end ends within milliseconds, at random with status 1 and "Cannot
// send command to MPS control daemon process", with status 1 and no words, or with status 0 and no
// words. Behind a silent peer or a stopped daemon it hangs. In both cases the daemon has the
// holder's connection among its descriptors, and our own front-end's is still in the backlog or
// closed again.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "control/outcome.h"

namespace mps::control {

enum class DaemonState { unknown, running, stopped, gone };

// A connection that the daemon has accepted, and who is at its other end.
struct Peer {
  pid_t pid = 0;  // 0: nobody that can be seen from here
  std::string name;
  bool privileged = false;  // came through control_privileged, where only front-ends go
  bool operator==(const Peer&) const = default;
};

struct Evidence {
  std::optional<std::string> start_error;      // the front-end could not be started
  std::optional<std::vector<Answer>> answers;  // the output as parsed
  std::string output;                          // stdout and stderr
  bool flooded = false;                        // it printed more than is ever read
  bool timed_out = false;                      // it was still running at the deadline
  std::chrono::milliseconds timeout{};
  std::optional<int> exit_code;
  std::string ending;  // "exited with status 1"
  DaemonState daemon = DaemonState::unknown;
  std::vector<Peer> peers;  // strangers only, oldest first
  // False: they could not be listed, or not all of them, so nobody is accused, and that there is
  // nobody is not known either.
  bool peers_known = true;
};

Outcome verdict(const Evidence& evidence);

}  // namespace mps::control
