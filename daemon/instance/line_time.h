// When what a line of the daemon's log tells of came about. Pure.
//
// A line carries its own time, in the local time of the daemon, which is taken to be ours. That is
// what counts of lines that are read long after they were written; of those that are read as they
// come it counts where it is of the last minute, else (a clock change brings an hour twice, the
// clock was set) the time at which the line is read is nearer. A line of the future is of now.
#pragma once

#include <chrono>
#include <optional>

#include "instance/snapshot.h"

namespace mps::instance {

inline SystemTime time_of_line(std::optional<SystemTime> said, SystemTime now, bool reading_on) {
  constexpr std::chrono::minutes k_as_it_comes{1};
  if (!said || *said > now) return now;
  return reading_on || now - *said <= k_as_it_comes ? *said : now;
}

}  // namespace mps::instance
