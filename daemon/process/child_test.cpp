#include "process/child.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/system/system_error.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/text.h"
#include "process/proc.h"
#include "process/test_support.h"

using namespace mps;
using namespace mps::process;
using namespace mps::process::testing;
namespace asio = boost::asio;

namespace {

bool there_are_zombies() {
  siginfo_t info{};
  const int result = ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
  return result == 0 && info.si_pid != 0;
}

SpawnSpec sleeper() {
  return {.program = "/bin/sleep", .arguments = {"600"}};
}

// Runs it with its output in a file, to its end.
std::string output_of(asio::io_context& io, SpawnSpec spec) {
  const TempFolder folder;
  const auto file = open_file(folder / "out", O_RDWR | O_CREAT | O_APPEND);
  spec.stdout_fd = file.get();
  auto child = Child::spawn(io.get_executor(), spec);
  REQUIRE(child);
  CHECK(finish(io, child->wait()).describe() == "exited with status 0");
  return read_text(folder / "out");
}

// The value of a line "Key:\tvalue".
std::string field(const std::string& text, std::string_view key) {
  for (const auto line : split_lines(text)) {
    if (line.starts_with(key)) return std::string(trim(line.substr(key.size())));
  }
  return "missing";
}

// A process that is not our child: its parent ends at once. Its input is `input`.
struct Stranger {
  pid_t pid = 0;
  std::uint64_t start_time = 0;
};

Stranger start_stranger(asio::io_context& io, int input) {
  // Without job control the shell would give it /dev/null for an input.
  auto spec = shell("exec 3<&0; sh -c 'read line' <&3 & echo $!");
  spec.stdin_fd = input;
  const auto pid = parse_number<pid_t>(trim(output_of(io, spec)));
  REQUIRE(pid);
  const auto stat = Proc{}.stat(*pid);
  REQUIRE(stat);
  return {*pid, stat->start_time};
}

struct Pipe {
  Pipe() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
  UniqueFd reader;
  UniqueFd writer;
};

}  // namespace

TEST_CASE("how a process ended, in words") {
  CHECK(ExitStatus{.code = 1, .signal = {}}.describe() == "exited with status 1");
  CHECK(ExitStatus{.code = {}, .signal = 9}.describe() == "was killed by signal 9 (SIGKILL)");
  CHECK(ExitStatus{.code = {}, .signal = 40}.describe() == "was killed by signal 40");
  CHECK(ExitStatus{}.describe() == "ended (not our child)");
  CHECK(ExitStatus{.code = 0, .signal = {}}.success());
  CHECK_FALSE(ExitStatus{.code = 1, .signal = {}}.success());
  CHECK_FALSE(ExitStatus{.code = {}, .signal = 9}.success());
  CHECK_FALSE(ExitStatus{}.success());
}

TEST_CASE("the status of an exit, also when asked for twice") {
  asio::io_context io;
  auto child = Child::spawn(io.get_executor(), shell("exit 7"));
  REQUIRE(child);
  CHECK(finish(io, child->wait()) == ExitStatus{.code = 7, .signal = {}});
  CHECK(finish(io, child->wait()) == ExitStatus{.code = 7, .signal = {}});
  CHECK_FALSE(there_are_zombies());
}

TEST_CASE("a killed process, and signals after its end") {
  asio::io_context io;
  auto child = Child::spawn(io.get_executor(), sleeper());
  REQUIRE(child);
  CHECK(is_running(Proc{}, child->pid(), child->start_time()));
  CHECK(child->signal(SIGKILL));
  CHECK(finish(io, child->wait()) == ExitStatus{.code = {}, .signal = SIGKILL});
  const auto late = child->signal(SIGTERM);
  REQUIRE_FALSE(late);
  CHECK(late.error().message ==
        "send SIGTERM to process " + std::to_string(child->pid()) + ": No such process");
}

TEST_CASE("a zombie takes no signals either") {
  asio::io_context io;
  auto child = Child::spawn(io.get_executor(), shell("exit 0"));
  REQUIRE(child);
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child->pid()), &info, WEXITED | WNOWAIT) == 0);
  CHECK_FALSE(child->signal(SIGTERM));
  CHECK(finish(io, child->wait()).success());
}

TEST_CASE("a program that cannot be executed is an error") {
  asio::io_context io;
  const auto missing = Child::spawn(io.get_executor(), {.program = "/nonexistent/program"});
  REQUIRE_FALSE(missing);
  CHECK(missing.error().message == "exec /nonexistent/program: No such file or directory");
  const auto folder = Child::spawn(io.get_executor(), {.program = "/"});
  REQUIRE_FALSE(folder);
  CHECK(folder.error().message == "exec /: Permission denied");
  const auto closed =
      Child::spawn(io.get_executor(), {.program = "/bin/true", .stdout_fd = 999'999});
  REQUIRE_FALSE(closed);
  CHECK(closed.error().message == "copy descriptor 999999: Bad file descriptor");
}

TEST_CASE("neither lives nor failures leave a zombie or a descriptor") {
  asio::io_context io;
  auto first = Child::spawn(io.get_executor(), {.program = "/bin/true"});
  REQUIRE(first);
  CHECK(finish(io, first->wait()).success());
  const auto before = open_descriptors();  // with what the reactor keeps for itself, `first` too
  for (int i = 0; i < 200; ++i) {
    auto child = Child::spawn(io.get_executor(), {.program = "/bin/true"});
    REQUIRE(child);
    REQUIRE(finish(io, child->wait()).success());
  }
  for (int i = 0; i < 50; ++i) {
    REQUIRE_FALSE(Child::spawn(io.get_executor(), {.program = "/nonexistent/program"}));
  }
  CHECK(open_descriptors() == before);
  CHECK_FALSE(there_are_zombies());
}

TEST_CASE("a child inherits descriptors 0 to 2 and no others") {
  asio::io_context io;
  const UniqueFd leaky(::open("/dev/null", O_RDONLY));  // without O_CLOEXEC
  const UniqueFd high(::fcntl(leaky.get(), F_DUPFD, 200));
  REQUIRE(high);
  CHECK(output_of(io, shell("echo /proc/$$/fd/*")).find("fd/0 ") != std::string::npos);
  const auto listed = output_of(io, shell("ls /proc/$$/fd"));
  CHECK(split_whitespace(listed) == std::vector<std::string_view>{"0", "1", "2"});
  CHECK(output_of(io, shell("readlink /proc/$$/fd/0 /proc/$$/fd/2")) == "/dev/null\n/dev/null\n");
}

TEST_CASE("a child that ends with us is killed when nobody has its Child any more") {
  asio::io_context io;
  auto spec = sleeper();
  spec.ends_with_us = true;
  std::optional<Child> owner = Child::spawn(io.get_executor(), spec).value();
  auto watcher = Child::adopt(io.get_executor(), owner->pid(), owner->start_time());
  REQUIRE(watcher);
  owner.reset();
  CHECK(finish(io, watcher->wait()).describe() == "was killed by signal 9 (SIGKILL)");
}

// Ends when it is killed. A program of its own, not a fork: the process of all these tests has
// threads, which a fork must not go on without.
[[noreturn]] void be_a_parent(const std::filesystem::path& folder) {
  asio::io_context io;
  const auto said = (folder / "pid").string();
  auto spec = shell("trap '' HUP TERM; echo $$ >" + said + ".new && mv " + said + ".new " + said +
                    "; kill -STOP $$");
  spec.ends_with_us = true;
  std::optional<Result<Child>> child;
  std::thread([&] { child = Child::spawn(io.get_executor(), spec); }).join();
  std::ofstream(folder / "held").flush();  // the child may be up before it is tied to us
  for (;;) ::pause();
}

TEST_CASE("a child that ends with us is killed when we are, whichever thread started it") {
  if (const char* given = std::getenv("MPS_TEST_PARENT")) be_a_parent(given);  // NOLINT
  asio::io_context io;
  const TempFolder folder;
  SpawnSpec spec;
  spec.program = std::filesystem::read_symlink("/proc/self/exe");
  spec.arguments = {"--test-case=a child that ends with us is killed when we are*"};
  spec.environment = {"MPS_TEST_PARENT=" + (folder / "").string()};
  auto parent = Child::spawn(io.get_executor(), spec);
  REQUIRE(parent);
  const auto stat_of_child = [said = folder / "pid"] {
    const auto pid = parse_number<pid_t>(trim(read_text(said)));
    return std::pair(pid, pid ? Proc().stat(*pid) : std::nullopt);
  };
  const bool stopped = run_until(io, [&] {
    const auto [pid, stat] = stat_of_child();
    return stat && stat->state == 'T' && std::filesystem::exists(folder / "held");
  });
  CHECK(parent->signal(SIGKILL));
  CHECK(finish(io, parent->wait()).describe() == "was killed by signal 9 (SIGKILL)");
  REQUIRE(stopped);
  CHECK(run_until(io, [&] {
    const auto [pid, stat] = stat_of_child();
    return pid && (!stat || stat->state == 'Z' || stat->state == 'X');
  }));
}

TEST_CASE("a child that ends with us has one descriptor more") {
  asio::io_context io;
  auto spec = shell("ls /proc/$$/fd");
  spec.ends_with_us = true;
  CHECK(split_whitespace(output_of(io, spec)) == std::vector<std::string_view>{"0", "1", "2", "3"});
}

TEST_CASE("the given descriptors may be 0 to 2 themselves, and crossed") {
  asio::io_context io;
  const TempFolder folder;
  const auto file = open_file(folder / "out", O_RDWR | O_CREAT | O_APPEND);
  const UniqueFd saved(::fcntl(0, F_DUPFD_CLOEXEC, 3));
  ::dup2(file.get(), 0);
  auto spec = shell("echo out; echo err >&2; readlink /proc/$$/fd/0");
  spec.stdout_fd = 0;
  spec.stderr_fd = 0;
  auto child = Child::spawn(io.get_executor(), spec);
  saved ? ::dup2(saved.get(), 0) : ::close(0);
  REQUIRE(child);
  CHECK(finish(io, child->wait()).success());
  CHECK(read_text(folder / "out") == "out\nerr\n/dev/null\n");
}

TEST_CASE("signals are as in a fresh process, whatever we block and ignore") {
  asio::io_context io;
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  REQUIRE(::pthread_sigmask(SIG_BLOCK, &blocked, &before) == 0);
  auto* const handler = std::signal(SIGPIPE, SIG_IGN);
  const SpawnSpec spec{.program = "/bin/grep", .arguments = {"^Sig", "/proc/self/status"}};
  const auto status = output_of(io, spec);
  std::signal(SIGPIPE, handler);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  CHECK(field(status, "SigBlk:") == "0000000000000000");
  // glibc's posix_spawn leaves its own two, 32 and 33, ignored; its threads install them afresh.
  const auto ignored = std::stoull(field(status, "SigIgn:"), nullptr, 16);
  CHECK((ignored & ~0x180000000ULL) == 0);
}

TEST_CASE("a session of its own, where asked for") {
  asio::io_context io;
  for (const bool own : {true, false}) {
    auto spec = sleeper();
    spec.new_session = own;
    auto child = Child::spawn(io.get_executor(), spec);
    REQUIRE(child);
    CHECK(::getsid(child->pid()) == (own ? child->pid() : ::getsid(0)));
    CHECK(child->signal(SIGKILL));
    CHECK(finish(io, child->wait()).signal == SIGKILL);
  }
}

TEST_CASE("the environment is the one given and nothing else") {
  asio::io_context io;
  const SpawnSpec spec{.program = "/usr/bin/env", .environment = {"A=1", "B=x y"}};
  CHECK(output_of(io, spec) == "A=1\nB=x y\n");
}

TEST_CASE("a wait can be cancelled, and begun again") {
  asio::io_context io;
  auto child = Child::spawn(io.get_executor(), sleeper());
  REQUIRE(child);
  asio::cancellation_signal cancel;
  bool done = false;
  boost::system::error_code outcome;
  const auto on_end = [&](const std::exception_ptr& exception, ExitStatus) {
    done = true;
    try {
      if (exception) std::rethrow_exception(exception);
    } catch (const boost::system::system_error& error) {
      outcome = error.code();
    }
  };
  asio::co_spawn(io, child->wait(), asio::bind_cancellation_slot(cancel.slot(), on_end));
  io.poll();
  CHECK_FALSE(done);
  cancel.emit(asio::cancellation_type::terminal);
  REQUIRE(run_until(io, [&] { return done; }));
  CHECK(outcome == asio::error::operation_aborted);
  CHECK(is_running(Proc{}, child->pid(), child->start_time()));
  CHECK(child->signal(SIGTERM));
  CHECK(finish(io, child->wait()).signal == SIGTERM);
}

TEST_CASE("a wait outlives its Child") {
  asio::io_context io;
  bool done = false;
  ExitStatus status;
  {
    auto child = Child::spawn(io.get_executor(), sleeper());
    REQUIRE(child);
    asio::co_spawn(io, child->wait(), [&](const std::exception_ptr&, ExitStatus value) {
      done = true;
      status = value;
    });
    io.poll();
    Child moved = std::move(*child);
    CHECK(moved.signal(SIGKILL));
  }
  REQUIRE(run_until(io, [&] { return done; }));
  CHECK(status.signal == SIGKILL);
  CHECK_FALSE(there_are_zombies());
}

TEST_CASE("destroying a Child leaves the process running") {
  asio::io_context io;
  pid_t pid = 0;
  std::uint64_t start_time = 0;
  {
    auto child = Child::spawn(io.get_executor(), sleeper());
    REQUIRE(child);
    pid = child->pid();
    start_time = child->start_time();
  }
  CHECK(is_running(Proc{}, pid, start_time));
  // Adopted, it is still our own child, and its status is known.
  auto again = Child::adopt(io.get_executor(), pid, start_time);
  REQUIRE(again);
  CHECK(again->signal(SIGTERM));
  CHECK(finish(io, again->wait()).describe() == "was killed by signal 15 (SIGTERM)");
  CHECK_FALSE(there_are_zombies());
}

TEST_CASE("an adopted stranger ends without a status") {
  asio::io_context io;
  Pipe pipe;
  const auto stranger = start_stranger(io, pipe.reader.get());
  auto child = Child::adopt(io.get_executor(), stranger.pid, stranger.start_time);
  REQUIRE(child);
  CHECK(child->pid() == stranger.pid);
  CHECK(child->start_time() == stranger.start_time);
  pipe.writer.reset();
  CHECK(finish(io, child->wait()).describe() == "ended (not our child)");
  CHECK_FALSE(child->signal(SIGTERM));
}

TEST_CASE("an adopted stranger takes signals") {
  asio::io_context io;
  const Pipe pipe;
  const auto stranger = start_stranger(io, pipe.reader.get());
  auto child = Child::adopt(io.get_executor(), stranger.pid, stranger.start_time);
  REQUIRE(child);
  CHECK(child->signal(SIGKILL));
  CHECK(finish(io, child->wait()) == ExitStatus{});
}

TEST_CASE("who is not the one that was meant is not adopted") {
  asio::io_context io;
  const auto own = Proc{}.stat(::getpid());
  REQUIRE(own);
  const auto self = std::to_string(::getpid());
  const auto start = std::to_string(own->start_time);
  const auto other = Child::adopt(io.get_executor(), ::getpid(), 5);
  REQUIRE_FALSE(other);
  CHECK(other.error().message == "adopt process " + self +
                                     ": another process has this pid now (started at tick " +
                                     start + ", not 5)");

  auto child = Child::spawn(io.get_executor(), shell("exit 0"));
  REQUIRE(child);
  const auto gone = std::to_string(child->pid());
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child->pid()), &info, WEXITED | WNOWAIT) == 0);
  const auto zombie = Child::adopt(io.get_executor(), child->pid(), child->start_time());
  REQUIRE_FALSE(zombie);
  CHECK(zombie.error().message == "adopt process " + gone + ": it has ended");
  CHECK(finish(io, child->wait()).success());
  const auto late = Child::adopt(io.get_executor(), child->pid(), child->start_time());
  REQUIRE_FALSE(late);
  CHECK(late.error().message == "adopt process " + gone + ": No such process");
  CHECK_FALSE(Child::adopt(io.get_executor(), 0, 0));
  CHECK_FALSE(Child::adopt(io.get_executor(), -1, 0));
}

TEST_CASE("a child that somebody else reaped has ended, as nobody's") {
  asio::io_context io;
  auto child = Child::spawn(io.get_executor(), shell("exit 3"));
  REQUIRE(child);
  REQUIRE(::waitpid(child->pid(), nullptr, 0) == child->pid());
  CHECK(finish(io, child->wait()) == ExitStatus{});
}

TEST_CASE("a stop and a continue are no end") {
  asio::io_context io;
  auto child = Child::spawn(io.get_executor(), sleeper());
  REQUIRE(child);
  CHECK(child->signal(SIGSTOP));
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child->pid()), &info, WSTOPPED) == 0);
  bool done = false;
  asio::co_spawn(io, child->wait(), [&](const std::exception_ptr&, ExitStatus) { done = true; });
  io.poll();
  CHECK_FALSE(done);
  CHECK(Proc{}.stat(child->pid())->state == 'T');
  CHECK(child->signal(SIGKILL));
  CHECK(run_until(io, [&] { return done; }));
}

TEST_CASE("where SIGCHLD is ignored, a child ends as nobody's or is said to have gone") {
  asio::io_context io;
  auto* const handler = std::signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < 50; ++i) {
    auto child = Child::spawn(io.get_executor(), {.program = "/bin/true"});
    if (child) {
      CHECK(finish(io, child->wait()) == ExitStatus{});
    } else {
      CHECK(child.error().message.starts_with("watch process "));
    }
  }
  std::signal(SIGCHLD, handler);
}
