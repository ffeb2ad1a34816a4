// What /proc says of a process. Every call reads afresh, is bounded, and treats a process that
// ends while it is being read as gone. Name, command line and environment of a process that was
// started just now may still be its parent's or empty: a spawn returns in the middle of exec.
// Threading: stateless, any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mps::process {

struct ProcStat {
  pid_t pid = 0;
  pid_t parent = 0;
  std::string name;              // comm, at most 15 bytes
  char state = '?';              // R S D T t Z X…
  std::uint64_t start_time = 0;  // clock ticks since boot
  std::uint64_t cpu_time = 0;    // user plus system, clock ticks
};

// Pure: parses the text of /proc/<pid>/stat (the name may contain blanks and brackets).
std::optional<ProcStat> parse_stat(std::string_view text);

class Proc {
 public:
  explicit Proc(std::filesystem::path root = "/proc") : root_(std::move(root)) {}

  [[nodiscard]] std::optional<ProcStat> stat(pid_t pid) const;
  [[nodiscard]] std::vector<pid_t> pids() const;
  // argv as written, at most 64 KiB of it; an empty vector for kernel threads and the gone.
  [[nodiscard]] std::vector<std::string> command_line(pid_t pid) const;
  // The value of one variable in the first 256 KiB of the process's initial environment.
  [[nodiscard]] std::optional<std::string> environment(pid_t pid, std::string_view key) const;
  // One that starts or ends while they are listed may be missing.
  [[nodiscard]] std::vector<pid_t> children(pid_t pid) const;
  [[nodiscard]] std::optional<uid_t> uid(pid_t pid) const;  // the effective one
  // Resident memory.
  [[nodiscard]] std::optional<std::uint64_t> resident_bytes(pid_t pid) const;

 private:
  [[nodiscard]] std::optional<std::string> read(pid_t pid, std::string_view file,
                                                std::size_t limit) const;
  std::filesystem::path root_;
};

// True while the process with this identity runs (a zombie does not).
bool is_running(const Proc& proc, pid_t pid, std::uint64_t start_time);

}  // namespace mps::process
