// The checkpoint's text: a checked line of JSON (base/checked_line.h) for each change.
// Pure; the file is in checkpoint_file.h.
//
// What survives is what can be read: a last line without its end is dropped, as its change was told
// to nobody; any other damaged line is a problem, and the rest counts.
//
// What later versions add to a record is left out where it is not known, and passed over by earlier
// ones: files go both ways. These know no other kinds than there are, and look for no more where a
// record is a number: when a slot has ended is a line of its own, of counters that count nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "share/records.h"

namespace mps::share {

inline constexpr std::size_t k_checkpoint_line_limit = 64 * std::size_t{1024};

// With the newline. Two lines of a slot that ends where it is known when.
std::string encode(const Change& change);
// The shortest text that replays to this; the counters come first and last, so that one damaged
// line does not lose them.
std::string encode(const State& state);

struct Problem {
  std::size_t line = 0;  // from 1
  std::string reason;
  bool operator==(const Problem&) const = default;
};

// A slot that had ended: its process may be asked about still.
struct GoneSlot {
  Slot slot;
  std::optional<Admission> admission{};  // none: adopted
  std::int64_t at = 0;                   // Unix time, ms
};

struct Replay {
  std::vector<Change> changes;    // as they were read
  State state;                    // what they come to
  std::deque<GoneSlot> gone;      // those that say when, the last 256
  std::vector<Problem> problems;  // at most 100
  std::size_t damaged_lines = 0;
  std::size_t good_bytes = 0;  // up to the end of the last whole line
  bool torn = false;           // there was something behind it
};

// Where lines were damaged the counters go on far ahead of what was read, as ids that nobody knows
// of may have been used.
Replay replay(std::string_view text);

}  // namespace mps::share
