// Where a reader of lines stands in a file, and how it goes on: pure, no file in sight.
//
// It keeps no text but the beginning of a line that is too long: an unfinished line is read again
// when there is more of it. A successor that begins at consumed() finds the same lines, as long as
// the file still has what lies between consumed() and skipped_from(), and from read_from() on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "process/follower.h"

namespace mps::process {

class LineCursor {
 public:
  static constexpr std::size_t k_batch = 256;  // lines of one take()
  // What should be read at once: the longest line with its newline.
  static constexpr std::size_t k_read_size = Follower::k_line_limit + 1;

  explicit LineCursor(std::uint64_t offset) : consumed_(offset), scanned_(offset) {}

  // The first byte to read next.
  [[nodiscard]] std::uint64_t read_from() const { return scanned_; }
  // Everything before this has been consumed.
  [[nodiscard]] std::uint64_t consumed() const { return consumed_; }
  // While a line that is too long is being skipped: where the part of it begins that is needed no
  // more, read_from() being its end. Otherwise the same as read_from().
  [[nodiscard]] std::uint64_t skipped_from() const;

  // Takes the bytes at read_from() and adds the whole lines in them, at most k_batch. Their views
  // point into `bytes` (which is changed: NULs are squeezed out) or into this, and are good until
  // consume(). True if it got on: there may be more to take.
  bool take(std::span<char> bytes, std::vector<FollowedLine>& lines);

  // The lines up to the one with this end_offset were delivered.
  void consume(std::uint64_t end_offset);

  // There is nothing but a hole before `offset`.
  void skip_hole(std::uint64_t offset);

 private:
  bool take_unfinished(std::span<char> rest, std::uint64_t offset);

  std::uint64_t consumed_;
  std::uint64_t scanned_;
  std::string long_line_;  // the beginning of a line that is too long, while its end is looked for
  bool in_long_line_ = false;
};

}  // namespace mps::process
