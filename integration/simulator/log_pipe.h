// The log: everybody writes records into the fifo <pipe directory>/log, and the control daemon
// turns them into lines. Records and lines are the real ones.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace mps::sim {

enum class Role : std::uint32_t { k_control = 0xabcde000, k_other = 0xabcde003 };
inline constexpr std::uint32_t k_end_of_log = 0xedcba000;

struct LogRecord {  // followed by `length` bytes of text
  std::uint32_t role = 0;
  std::int32_t pid = 0;
  std::int32_t year = 0, month = 0, day = 0, weekday = 0, hour = 0, minute = 0, second = 0;
  std::int32_t millisecond = 0;
  std::uint64_t length = 0;
};
static_assert(sizeof(LogRecord) == 48);

// "[2026-11-20 23:31:34.283 Control  6286] text\n"
std::string log_line(const LogRecord& record, std::string_view text);

class LogWriter {
 public:
  // Writes nothing where nobody reads the fifo.
  LogWriter(const std::string& directory, Role role);
  [[nodiscard]] bool is_open() const { return static_cast<bool>(fifo_); }
  void say(std::string_view text) const;
  void say_as(pid_t pid, std::string_view text) const;
  void end() const;

 private:
  void write_record(std::uint32_t role, pid_t pid, std::string_view text) const;
  UniqueFd fifo_;
  Role role_;
};

// Reads records until the end record and writes lines: those of the control daemon to
// `control_output`, all others to `server_output`. Meant for a thread of its own, as lines must
// come out while the daemon waits for a silent peer.
void copy_log(int fifo, int control_output, int server_output);

}  // namespace mps::sim
