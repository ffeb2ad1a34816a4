#include "control/fault_lists.h"

#include <variant>

#include "base/text.h"

namespace mps::control {

void FaultLists::begin(Which which, const LogEvent& line) {
  which_ = which;
  role_ = line.role;
  writer_ = line.pid;
  count_ = 0;
}

bool FaultLists::is_of_writer(const LogEvent& line) const {
  return which_ != Which::none && line.pid == writer_ && line.role == role_;
}

void FaultLists::take(LogEvent& line) {
  if (std::holds_alternative<StickyListBegins>(line.kind)) return begin(Which::clients, line);
  if (std::holds_alternative<DeviceListBegins>(line.kind)) return begin(Which::devices, line);
  if (!is_of_writer(line) || std::holds_alternative<Unknown>(line.kind)) return;
  // An empty one, or a number, is Noise by itself; whatever else is, is no number.
  const bool noise = std::holds_alternative<Noise>(line.kind);
  const auto number = noise ? parse_number<pid_t>(line.text) : std::nullopt;
  if (!number || *number < 0 || ++count_ > k_longest) {
    if (!line.text.empty()) which_ = Which::none;
    return;
  }
  if (which_ == Which::clients) {
    line.kind = StickyClient{*number};
  } else {
    line.kind = DeviceToReset{static_cast<unsigned>(*number)};
  }
}

}  // namespace mps::control
