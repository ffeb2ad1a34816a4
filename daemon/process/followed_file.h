// One followed file: reads from it at a LineCursor and frees what lies behind by punching holes.
//
// Threading: none of its own. Reading never waits for a writer.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "process/follower.h"
#include "process/line_cursor.h"

namespace mps::process {

class FollowedFile {
 public:
  FollowedFile(UniqueFd file, std::uint64_t offset) : file_(std::move(file)), cursor_(offset) {}

  [[nodiscard]] int descriptor() const { return file_.get(); }
  [[nodiscard]] const FollowCounters& counters() const { return counters_; }

  // Reads once and adds the whole lines found, which point into `buffer` (k_read_size long). True
  // if there may be more to read.
  Result<bool> read(std::span<char> buffer, std::vector<FollowedLine>& lines);

  // The lines of the last read() were delivered: what they took is freed.
  void consume(std::span<const FollowedLine> lines);

 private:
  Result<void> notice_truncation();
  bool skip_hole();
  void free_behind();
  // Frees up to `to` and moves `from` there, where the file system does it.
  void punch(std::uint64_t& from, std::uint64_t to);

  UniqueFd file_;
  LineCursor cursor_;
  FollowCounters counters_;
  std::uint64_t size_ = 0;         // as of the last look
  std::uint64_t freed_ = 0;        // there is nothing to free before this
  std::uint64_t freed_ahead_ = 0;  // the same, inside of a line that is too long
  bool can_punch_ = true;
};

}  // namespace mps::process
