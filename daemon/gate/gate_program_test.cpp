// The program itself.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "gate/gate_kit.h"

using namespace mps;
using namespace mps::gate;
using namespace mps::gate::test;

extern char** environ;

namespace {

constexpr int k_deadline = 20000;  // milliseconds

bool wait_readable(const UniqueFd& socket) {
  pollfd look{socket.get(), POLLIN, 0};
  return ::poll(&look, 1, k_deadline) == 1;
}

std::string next(const UniqueFd& socket) {
  REQUIRE(wait_readable(socket));
  return heard(socket);
}

class Program {
 public:
  Program() {
    std::string name = "/tmp/mps-gate-test-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    const auto control = listening(folder + "/gate");
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, control.get(), 3);
    std::string program = MPS_GATE_PROGRAM;
    std::string argument = "gpu0.shared";
    std::array<char*, 3> arguments{program.data(), argument.data(), nullptr};
    REQUIRE(::posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments.data(), environ) ==
            0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  ~Program() {
    if (pid > 0) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // -1: it has not ended.
  int status(bool wait) {
    int value = 0;
    if (::waitpid(pid, &value, wait ? 0 : WNOHANG) != pid) return -1;
    pid = -1;
    return WIFEXITED(value) ? WEXITSTATUS(value) : 256 + WTERMSIG(value);
  }

  void supervise() { supervisor = connected(folder + "/gate"); }
  void say(const Message& message, std::vector<int> beside = {}) {
    Buffer buffer;
    const auto bytes = encode(message, buffer);
    REQUIRE(tell(supervisor, {bytes.data(), bytes.size()}, std::move(beside)));
  }
  std::uint64_t expect(Kind kind) {
    CAPTURE(static_cast<int>(kind));
    System plain;
    Buffer buffer;
    Received received;
    for (;;) {
      REQUIRE(wait_readable(supervisor));
      const auto got = plain.receive(supervisor.get(), buffer, received);
      REQUIRE(got > 0);
      const auto message = decode({buffer.data(), static_cast<std::size_t>(got)});
      REQUIRE(message.has_value());
      if (message->kind == kind) return message->peer;
    }
  }

  std::string folder;
  pid_t pid = -1;
  UniqueFd supervisor;
};

}  // namespace

TEST_CASE("the program outlives signals and supervisors, and ends by a supervisor's word") {
  Program program;
  program.supervise();
  program.expect(Kind::listed);
  auto listener = listening(program.folder + "/s");
  const auto packed = pack({k_greeting, k_opening[0], k_opening[1]});
  program.say({.kind = Kind::setup, .bytes = packed});
  program.say({.kind = Kind::listen, .share = "s"}, {listener.get()});
  listener.reset();

  const auto inside = connected(program.folder + "/s");
  CHECK(next(inside) == k_greeting);
  for (const auto& text : k_opening) tell(inside, text);
  const auto id = program.expect(Kind::ask);

  std::filesystem::create_directory(program.folder + "/daemon");
  const auto daemon = listening(program.folder + "/daemon/control");
  const UniqueFd directory(::open((program.folder + "/daemon").c_str(), O_PATH | O_CLOEXEC));
  program.say({.kind = Kind::daemon}, {directory.get()});
  program.say({.kind = Kind::let_in, .peer = id});
  REQUIRE(wait_readable(daemon));
  const UniqueFd end(::accept4(daemon.get(), nullptr, nullptr, SOCK_CLOEXEC));
  tell(end, k_greeting);
  CHECK(program.expect(Kind::inside) == id);
  CHECK(next(end) == k_opening[0]);
  CHECK(next(end) == k_opening[1]);

  program.supervisor.reset();
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGQUIT, SIGUSR1}) {
    ::kill(program.pid, signal);
  }
  const auto waits = connected(program.folder + "/s");
  CHECK(next(waits) == k_greeting);
  for (const auto& text : k_opening) tell(waits, text);
  tell(inside, "still here");
  CHECK(next(end) == "still here");
  CHECK(program.status(false) == -1);

  program.supervise();
  CHECK(program.expect(Kind::is_inside) == id);
  CHECK(program.expect(Kind::ask) != id);
  const auto silent = connected(program.folder + "/s");
  CHECK(next(silent) == k_greeting);
  program.say({.kind = Kind::end});
  CHECK(next(waits) == "(end)");
  CHECK(next(inside) == "(end)");
  CHECK(next(end) == "(end)");
  CHECK(program.status(false) == -1);
  for (const auto& text : k_opening) tell(silent, text);
  CHECK(next(silent) == "(end)");
  CHECK(program.status(true) == 0);
}

TEST_CASE("the program is not started by hand") {
  const auto command = std::string(MPS_GATE_PROGRAM) + " 2>&1 3>&-";
  FILE* output = ::popen(command.c_str(), "re");
  REQUIRE(output != nullptr);
  std::array<char, 128> line{};
  CHECK(std::fgets(line.data(), line.size(), output) != nullptr);
  CHECK(std::string(line.data()) == "mps-gate is started by mps-supervisor\n");
  CHECK(WEXITSTATUS(::pclose(output)) == 2);
}
