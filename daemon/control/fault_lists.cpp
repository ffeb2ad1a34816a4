#include "control/fault_lists.h"

#include <variant>

#include "base/text.h"

namespace mps::control {

void FaultLists::begin(const LogEvent& line) {
  open_ = true;
  role_ = line.role;
  writer_ = line.pid;
  count_ = 0;
}

bool FaultLists::is_of_writer(const LogEvent& line) const {
  return open_ && line.pid == writer_ && line.role == role_;
}

void FaultLists::take(LogEvent& line) {
  if (std::holds_alternative<StickyListBegins>(line.kind)) return begin(line);
  if (!is_of_writer(line) || std::holds_alternative<Unknown>(line.kind)) return;
  // An empty one, or a number, is Noise by itself; whatever else is, is no number.
  const bool noise = std::holds_alternative<Noise>(line.kind);
  const auto number = noise ? parse_number<pid_t>(line.text) : std::nullopt;
  if (!number || *number < 0 || ++count_ > k_longest) {
    if (!line.text.empty()) open_ = false;
    return;
  }
  line.kind = StickyClient{*number};
}

}  // namespace mps::control
