// Whether a process is still the one that it was. Threading: stateless, any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "process/proc.h"

namespace mps::identity {

// Looked at when made, and again by goes_on(). With a pidfd: that it is of this pid and its process
// has not ended. Without: that the pid's process has not ended and started when it did.
class Life {
 public:
  Life(process::Proc proc, pid_t pid, int pidfd);
  [[nodiscard]] bool goes_on() const;

 private:
  process::Proc proc_;
  pid_t pid_;
  int pidfd_;
  std::optional<std::uint64_t> start_time_;
};

}  // namespace mps::identity
