// A process that we own or watch, behind a pidfd: signals never reach a stranger who got its pid.
//
// Not Boost.Process: its v2 of 1.81 blocks the reactor in waitpid, leaves a zombie after a failed
// exec and runs our atexit handlers in the child (measured; see docs/architecture.md).
//
// Threading: everything on the executor it was made with. Destroying a Child neither signals nor
// waits: the process goes on (that is how the supervisor's own end leaves the daemons running),
// unless it was started to end with us. An own child that ends after that is reaped by whoever
// becomes its parent. A wait() that is under way when its Child is destroyed or moved goes on to
// its end.
#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace mps::process {

class Lifeline;
class MountSpace;

struct SpawnSpec {
  std::filesystem::path program{};         // absolute; no PATH search
  std::vector<std::string> arguments{};    // argv[1] and on
  std::vector<std::string> environment{};  // the whole of it, "KEY=value"
  int stdin_fd = -1;                       // -1: /dev/null, here and below
  int stdout_fd = -1;
  int stderr_fd = -1;
  std::vector<int> more_fds{};  // the child's 3, 4, …
  bool new_session = true;      // setsid: it lives on when its parent dies or its terminal closes
  // It is killed when we end, however that is, and when its Child is gone: for helpers that may not
  // go on alone (lifeline.h). It has one descriptor more, behind the others.
  bool ends_with_us = false;
  // Where it runs; none: where we do. In another one its working directory is the root.
  std::shared_ptr<const MountSpace> mount_space{};
};

// How a process ended. For an adopted process, whose parent somebody else is, neither is known.
struct ExitStatus {
  std::optional<int> code{};
  std::optional<int> signal{};

  [[nodiscard]] bool success() const { return code == 0; }
  // "exited with status 1", "was killed by signal 9 (SIGKILL)", "ended (not our child)"
  [[nodiscard]] std::string describe() const;
  bool operator==(const ExitStatus&) const = default;
};

class Child {
 public:
  // Starts a program: default signal dispositions, an empty signal mask, no inherited descriptors
  // but 0 to 2 and those that are given besides. A program that cannot be executed is an Error
  // ("exec /x: No such file or directory"), with no zombie left.
  static Result<Child> spawn(const boost::asio::any_io_executor& executor, const SpawnSpec& spec);

  // Takes up a process started by somebody else (an earlier supervisor; a server, whose parent is
  // the control daemon). An Error if it is gone or if `start_time` is not that of the process that
  // has the pid now.
  static Result<Child> adopt(const boost::asio::any_io_executor& executor, pid_t pid,
                             std::uint64_t start_time);

  Child(Child&&) noexcept;
  Child& operator=(Child&&) noexcept;
  ~Child();

  [[nodiscard]] pid_t pid() const;
  // Clock ticks since boot, field 22 of /proc/<pid>/stat: with the pid, a process's identity.
  [[nodiscard]] std::uint64_t start_time() const;

  // Completes when the process has ended, and reaps it if it is ours. One caller at a time; after
  // the end it completes at once with the same status. Cancellable: it then throws
  // operation_aborted, the process is left alone, and it can be waited for again.
  boost::asio::awaitable<ExitStatus> wait();

  // Sends a signal; an Error if the process has ended ("send SIGTERM to process 12: No such
  // process"), also while it is still unreaped.
  Result<void> signal(int number);

 private:
  struct State;
  explicit Child(std::shared_ptr<State> state);
  static Result<Child> spawn(const boost::asio::any_io_executor& executor, const SpawnSpec& spec,
                             std::optional<Lifeline> line);
  std::shared_ptr<State> state_;  // shared with the frame of wait()
};

}  // namespace mps::process
