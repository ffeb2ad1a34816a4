// Everything that happened, in order, each event once: a ring in memory that the API reads, and an
// append-only journal on disk from which a new supervisor goes on.
//
// The journal is also where "read up to here" is kept: an event that was made from a daemon's log
// carries the offset behind its line, in the same write. So after a kill -9 at any point the log is
// read on from exactly behind the last event that was recorded: no event twice and none lost.
//
// Threading: one thread. Writes are a single write(2) each to a local file, without fsync: they
// survive the supervisor's death, not a power cut.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"

namespace mps::api {

// Where in a daemon's log an event came from. `log` tells one log file from its successors.
struct LogPosition {
  std::string log;
  std::uint64_t end_offset = 0;
  bool operator==(const LogPosition&) const = default;
};

struct Event {
  std::uint64_t id = 0;  // 1, 2, 3 …, never used twice, also over restarts
  std::chrono::system_clock::time_point time;
  std::string kind;      // snake_case: "control_started", "client_asked", "limits_drifted", …
  std::string instance;  // empty: the node
  std::string message;   // a sentence
  nlohmann::json data = nlohmann::json::object();  // bounded details, camelCase keys
  std::optional<LogPosition> position;
};
nlohmann::json to_json(const Event& event);  // what the API shows; the position stays inside
// The text that its data have there; empty: none.
std::string text_in(const Event& event, const char* key);

struct EventLogSettings {
  std::filesystem::path directory;              // <state>/journal.jsonl and journal.jsonl.1
  std::size_t ring = 4096;                      // events kept in memory
  std::uint64_t file_limit = 16 * 1024 * 1024;  // then the file becomes .1 and a new one begins
};

class EventLog {
 public:
  // Reads what is there (a torn last line is cut off and counted, a line that makes no sense is
  // skipped and counted). A journal that cannot be written is an Error at this point; later on
  // (disk full) events live in memory, `write_errors` counts, and with each event those that wait
  // are tried again, in order, so that the journal has no hole when there is room again (what waits
  // is bounded: 4 MiB, then the oldest are given up). A file that cannot be rotated is written up
  // to twice its limit.
  static Result<std::unique_ptr<EventLog>> open(EventLogSettings settings);
  ~EventLog();

  // Records an event; the id is given here, and the time too where it is not set. A message is cut
  // to 1 KiB; data of more than 4 KiB are left out. The reference is valid until the next append.
  const Event& append(Event event);

  [[nodiscard]] const std::deque<Event>& ring() const;
  [[nodiscard]] std::uint64_t last_id() const;
  [[nodiscard]] std::uint64_t write_errors() const;
  [[nodiscard]] std::uint64_t torn_lines() const;     // cut off at open
  [[nodiscard]] std::uint64_t skipped_lines() const;  // unreadable at open
  // The position recorded last in `instance`'s log, if its log is still `log`.
  [[nodiscard]] std::optional<std::uint64_t> position(const std::string& instance,
                                                      const std::string& log) const;

  // Called with each event from inside append(). The listener must not append.
  using Listener = std::function<void(const Event&)>;
  std::uint64_t subscribe(Listener listener);
  void unsubscribe(std::uint64_t id);

 private:
  struct Impl;
  explicit EventLog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mps::api
