// Follows append-only files line by line as they grow: one inotify instance for all of them.
//
// Made for the control daemons' output (mps-facts O: with -f it is one append-mode stream of
// control and server lines). What has been consumed is freed by punching holes behind the reader,
// so a file stays short on disk while its offsets only grow, and the writer never notices.
//
// Threading: on the executor given. Callbacks run there and must not destroy the Follower.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::process {

struct FollowedLine {
  std::string_view text;         // without its newline; NUL bytes of punched holes removed
  std::uint64_t end_offset = 0;  // where the next line begins: a restart that reads on from here
                                 // neither repeats nor loses anything
  bool cut = false;  // longer than k_line_limit: this is its beginning, the rest is gone
};

struct FollowCounters {
  std::uint64_t lines = 0;
  std::uint64_t cut_lines = 0;
  std::uint64_t truncations = 0;     // the file became shorter than what had been read
  std::uint64_t punch_failures = 0;  // the file system cannot punch holes: the file will grow
};

class Follower {
 public:
  static constexpr std::size_t k_line_limit = std::size_t{64} * 1024;

  using Id = std::uint64_t;
  // Lines in order, at most some hundreds a call; when it returns they count as consumed. May call
  // follow and unfollow, also for its own file.
  using Callback = std::function<void(std::span<const FollowedLine>)>;
  // Reading failed for good (the error says why); nothing more will come.
  using OnError = std::function<void(const Error&)>;

  static Result<std::unique_ptr<Follower>> create(const boost::asio::any_io_executor& executor);
  virtual ~Follower() = default;

  // Reads `file` (opened for reading and writing, so that holes can be punched; the follower owns
  // it from here) from `offset` and on. What is already there is delivered soon, not from inside
  // this call. Rename and unlink do not matter: the open file is followed, not its name. After a
  // truncation it goes on at the new end's beginning (offset 0).
  virtual Result<Id> follow(UniqueFd file, std::uint64_t offset, Callback on_lines,
                            OnError on_error) = 0;
  virtual void unfollow(Id id) = 0;
  // Reads what is there now, without waiting for inotify: for the last words of a process that has
  // just ended, and for file systems where inotify says nothing. Calls back from inside; does
  // nothing inside a callback of the same file. An unfinished last line waits for its newline.
  virtual void drain(Id id) = 0;
  // All zero for a file that is not followed any more.
  [[nodiscard]] virtual FollowCounters counters(Id id) const = 0;
};

}  // namespace mps::process
