// The lines of the journal: one JSON object each, an event or a checkpoint. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "api/event_log.h"

namespace mps::api {

// What must survive each rotation: the last id, and how far each instance's log has been read.
struct Checkpoint {
  std::uint64_t last_id = 0;
  std::map<std::string, LogPosition> positions;  // by instance

  void note(const Event& event);
  bool operator==(const Checkpoint&) const = default;
};

// With the newline at the end.
std::string encode(const Event& event);
std::string encode(const Checkpoint& checkpoint);

// None: not a line that was ever written here.
std::optional<std::variant<Event, Checkpoint>> decode(std::string_view line);

// Cuts what is too long; nothing that is recorded is unbounded.
void bound(Event& event);

}  // namespace mps::api
