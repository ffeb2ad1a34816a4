// What came of a batch of commands. The kinds are types, since each asks for something else:
// a busy channel is somebody's session, a blocked one names its holder, and only what is left may
// one day be a reason to restart a daemon. Pure values.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace mps::control {

// The answer to one command: the lines between two markers. An empty answer is an answer
// (get_server_list with no server), as its marker came.
struct Reply {
  std::vector<std::string> lines;
  bool operator==(const Reply&) const = default;
};
// The daemon would not: its own words, e.g. "Insufficient privileges for UID 0. …".
struct Refusal {
  std::string words;
  bool operator==(const Refusal&) const = default;
};
using Answer = std::variant<Reply, Refusal>;

// Each command of the batch was answered or refused, in order.
struct Answered {
  std::vector<Answer> answers;
  bool operator==(const Answered&) const = default;
};
// Somebody holds the one command session there is: the front-end ended at once without an answer.
struct Busy {
  std::optional<pid_t> holder;
  std::string holder_name;
  bool operator==(const Busy&) const = default;
};
// The daemon waits for one silent peer; nobody else gets in until that one speaks or goes.
struct Blocked {
  std::optional<pid_t> holder;
  std::string holder_name;
  bool operator==(const Blocked&) const = default;
};
// The daemon is stopped (state T in /proc).
struct Stopped {
  bool operator==(const Stopped&) const = default;
};
// No answer in time and none of the above explains it, or an answer that makes no sense.
struct Unanswered {
  std::string why;
  bool operator==(const Unanswered&) const = default;
};
// Nobody listens there: the front-end found no daemon, or could not be started at all.
struct Absent {
  std::string why;
  bool front_end_failed = false;  // our own trouble (program gone, no descriptors): says nothing
                                  // about the daemon
  bool operator==(const Absent&) const = default;
};

using Outcome = std::variant<Answered, Busy, Blocked, Stopped, Unanswered, Absent>;

}  // namespace mps::control
