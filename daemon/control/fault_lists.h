// The list of clients that a server prints in a fault: a line that begins it, then a number a line.
//
//   [… Other 500] The following clients have a sticky error set:
//   [… Other 500] 901
//   [… Other 500] 902
//
// A line alone does not say that it belongs to one; this remembers who is printing one.
// Lines of others in between do not matter, nor does one of the writer's that is spoilt; one of its
// with a meaning of its own ends the list (the first line of its list of devices is one, whose
// numbers stay Noise), and so do 256 numbers. Where the first line was lost the numbers are Noise,
// as they are to parse_log_line(). Any role but the control daemon's may print them; whose pids
// they are is for the caller to look up. Pure, of constant size.
#pragma once

#include <cstddef>
#include <string>

#include "control/log_event.h"

namespace mps::control {

class FaultLists {
 public:
  static constexpr std::size_t k_longest = 256;

  // Each line, in order: one that belongs to a list becomes a StickyClient.
  void take(LogEvent& line);

 private:
  void begin(const LogEvent& line);
  [[nodiscard]] bool is_of_writer(const LogEvent& line) const;

  std::string role_;
  std::size_t count_ = 0;
  pid_t writer_ = 0;
  bool open_ = false;
};

}  // namespace mps::control
