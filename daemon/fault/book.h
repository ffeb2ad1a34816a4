// The history of incidents, the quarantine and the devices that are out of service, in a file of
// checked lines (base/checked_line.h): appended to, and written anew, on another thread, when most
// of it is of the past. So it can be read when the pods are gone, and over restarts.
//
// What survives is what can be read: a damaged line is a problem that is said, and the rest counts.
// Before a file with such lines is written anew it is kept beside it, as "faults.log.damaged" (one
// at a time, the latest): nothing is lost that somebody might still make something of. A last line
// without its end is what a crash leaves, and no damage.
// What cannot be written (a full disk) is kept in mind and written with what comes next.
//
// Threading: one thread. Calls append to a local file and return at once; but after a write that
// failed, or beyond `limit`, the next one writes the file anew itself. Synced when written anew.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/append_file.h"
#include "base/result.h"
#include "fault/book_rewrite.h"
#include "fault/incident.h"
#include "fault/out_of_service.h"
#include "fault/quarantine.h"

namespace mps::fault {

struct BookSettings {
  std::size_t incidents = 256;                            // the last ones
  std::uint64_t bytes = 16 * 1024 * std::uint64_t{1024};  // of them; then the oldest go earlier
  std::uint64_t rewrite_from = 1024 * std::uint64_t{1024};
  std::uint64_t limit = 64 * 1024 * std::uint64_t{1024};  // of the file
};

class Book {
 public:
  struct Opened;

  // Made where it is not there. An Error: not ours to use (too large, no file, no rights).
  static Result<Opened> open(const std::filesystem::path& file, BookSettings settings = {});

  // For the next incident; never the same twice, over restarts too. They may leave some out.
  std::uint64_t next_number();

  // A new one, or one that has changed. An Error: it is not on disk yet.
  Result<void> record(const Incident& incident);
  Result<void> record(std::span<const QuarantineChange> changes);
  Result<void> record(std::span<const DeviceChange> changes);

  // Where it is time to: run() it on another thread, then finish it here. One at a time.
  [[nodiscard]] std::shared_ptr<Rewrite> begin_rewrite();
  // An Error: the file is as it was, with nothing lost.
  Result<void> finish_rewrite(Rewrite& rewrite);

  [[nodiscard]] const std::deque<Incident>& incidents() const { return incidents_; }  // by number
  [[nodiscard]] const QuarantineState& quarantine() const { return quarantine_; }
  [[nodiscard]] const DevicesOut& devices_out() const { return devices_out_; }

 private:
  Book(std::filesystem::path path, BookSettings settings, AppendFile file);
  void take(const Incident& incident, LinePlace place);
  Result<void> take_line(std::string_view line, std::uint64_t offset);
  Result<void> put(const std::string& text);
  Result<void> write_anew();
  Result<void> put_in_place(Rewrite& rewrite);
  void move_lines(const Rewrite& rewrite, std::uint64_t rest_at);
  [[nodiscard]] std::string counters() const;
  [[nodiscard]] std::string head() const;
  [[nodiscard]] std::string foot() const;

  std::filesystem::path path_;
  BookSettings settings_;
  AppendFile file_;
  std::deque<Incident> incidents_;
  std::deque<LinePlace> lines_;  // theirs, in the file; of no use while `behind_`
  std::uint64_t bytes_ = 0;      // of these
  QuarantineState quarantine_;
  DevicesOut devices_out_;
  std::uint64_t next_ = 1;
  std::uint64_t reserved_ = 1;  // numbers below it may have been used, says the file
  std::uint64_t fresh_size_ = 0;
  bool behind_ = false;            // the last write has failed
  bool rewriting_ = false;         // somebody has one to run
  bool rewrite_is_stale_ = false;  // since it began the file was written anew
};

struct Book::Opened {
  struct Problem {
    std::size_t line = 0;  // from 1
    std::string reason;
    bool operator==(const Problem&) const = default;
  };
  Book book;
  std::vector<Problem> problems;  // at most 100
  std::size_t damaged_lines = 0;
  std::filesystem::path kept{};  // the damaged file; empty: it was whole, or see not_kept
  std::string not_kept{};        // why the damaged file could not be kept
  bool torn = false;  // there was something behind the last whole line: its write was cut short
};

}  // namespace mps::fault
