// What newcomers of an instance come through, as its actor steers it: a door of its own (door.h),
// or a gate that asks about each of them.
//
// Threading: the actor's executor.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "instance/pipe_place.h"
#include "instance/snapshot.h"

namespace mps::instance {

class Entrance {
 public:
  virtual ~Entrance() = default;

  // Where the daemon's own directory is from now on.
  virtual void daemon_is_at(std::shared_ptr<const PipePlace> place) = 0;
  // Newcomers reach the daemon that listens on `control`. True if it was not so already.
  virtual Result<bool> open(const std::filesystem::path& control) = 0;
  // They do not: refused, or made to wait.
  virtual Result<void> close() = 0;
  [[nodiscard]] virtual bool leads_to(const std::filesystem::path& control) const = 0;

  // What the daemon says first, which who is refused must have heard.
  virtual void greeting(std::string bytes) = 0;
  // False where it is known, or not needed.
  [[nodiscard]] virtual bool wants_greeting() const = 0;

  [[nodiscard]] virtual GateState gate() const = 0;
};

}  // namespace mps::instance
