#include <doctest/doctest.h>

#include <algorithm>
#include <utility>

#include "instance/line_time.h"
#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using Lines = Kit::Lines;
using namespace std::chrono_literals;

namespace {

const std::string k_fault =
    "emit fault: a client's fault: the server refuses newcomers until its clients have gone";

struct Busy : Kit {
  explicit Busy(MachineSettings settings = {}) : Kit(settings) {
    make_busy();
    server_line("Status of client {900, 1} is ACTIVE");
    due(Timer::next_probe);
    give(probed(limits(), {"500"}, Lines{"900"}));
  }
};

// The daemon's server has a client; its control daemon can be asked how it is.
struct Asked : Kit {
  Asked() {
    give(StartWanted{});
    give(DaemonSpawned{100});
    line("Starting control daemon using socket /run/mps/gpu0.shared/pipe/control");
    auto done = configured();
    auto& answers = std::get<control::Answered>(done.outcome).answers;
    for (std::size_t i = 0; i < control::capability_probe().size(); ++i) {
      answers[answers.size() - 1 - i] = control::Refusal{"Server 1 not found"};
    }
    give(done);
    REQUIRE(machine.capabilities()->server_status);
    later(10s);
    line("NEW CLIENT 900 from user 1000: Server is not ready, push client to pending list");
    line("Starting new server 500 for user 1000");
    line("NEW SERVER 500: Ready");
    due(Timer::next_probe);
    status("ACTIVE");
  }
  Lines status(const std::string& what) {
    auto done = probed(limits(), {"500"}, Lines{"900"});
    std::get<control::Answered>(done.outcome).answers.push_back(reply({what}));
    return give(done);
  }
};

bool has(const Lines& lines, const std::string& one) {
  return std::find(lines.begin(), lines.end(), one) != lines.end();
}

std::string exited(const Lines& lines) {
  for (const auto& line : lines) {
    if (line.starts_with("emit server_exited: ")) return line.substr(20);
  }
  return "";
}

// Whether somebody is said to have asked for the daemon's end.
std::string asked_in(const std::vector<Action>& actions) {
  for (const auto& action : actions) {
    const auto* event = std::get_if<Emit>(&action);
    if (event == nullptr || event->kind != "control_exited") continue;
    for (const auto& [key, value] : event->data) {
      if (key == "asked") return value;
    }
  }
  return "";
}

LogLine sticky(pid_t pid) {
  LogLine line;
  line.event.role = "Other";
  line.event.pid = 500;
  line.event.kind = control::StickyClient{pid};
  return line;
}

}  // namespace

TEST_CASE("each sign of a fault is enough by itself") {
  for (const std::string sign : {"Server is handling a fatal GPU error.",
                                 "Client process 900 encountered a fatal GPU error.",
                                 "The following clients have a sticky error set:",
                                 "Volta MPS: The following clients have a sticky error set:"}) {
    CAPTURE(sign);
    Busy busy;
    CHECK(busy.server_line(sign) == Lines{k_fault, "end-faulted-clients 1", "set fault_rung 30s"});
    CHECK(busy.machine.state() == State::faulted);
    CHECK(busy.machine.server()->status == ServerStatus::fault);
    // The others that follow are of the same one.
    CHECK(busy.server_line("Client process 900 encountered a fatal GPU error.").empty());
    CHECK(busy.server_line("The following clients have a sticky error set:").empty());
    CHECK(busy.give(sticky(900)).empty());
  }
  Busy numbers;
  CHECK(has(numbers.give(sticky(900)), k_fault));
}

TEST_CASE("what is no sign of a fault") {
  for (const std::string line :
       {"Status of client {900, 1} is INACTIVE", "The following devices will be reset:", "0", "900",
        "Destroy server context on device 0", "Creating server context on device 0"}) {
    CAPTURE(line);
    Busy busy;
    CHECK(busy.server_line(line).empty());
    CHECK(busy.machine.state() == State::ready);
  }
  // The control daemon speaks of no client's fault.
  for (const std::string line : {"Server is handling a fatal GPU error.",
                                 "Client process 900 encountered a fatal GPU error.",
                                 "The following clients have a sticky error set:"}) {
    CAPTURE(line);
    Busy busy;
    CHECK(busy.line(line).empty());
    CHECK(busy.machine.state() == State::ready);
  }
}

TEST_CASE("a fault that is read of before its daemon is taken up is known then") {
  Kit kit;
  kit.server_line("Server is handling a fatal GPU error.");
  kit.give(DaemonFound{100, {500}});
  CHECK(kit.machine.server()->pid == 500);
  CHECK(kit.machine.server()->status == ServerStatus::fault);
  Kit other;
  other.server_line("Server is handling a fatal GPU error.");
  other.give(DaemonFound{100, {600}});  // it has ended since
  CHECK(other.machine.server()->pid == 600);
  CHECK(other.machine.server()->status == ServerStatus::active);
}

TEST_CASE_FIXTURE(Asked, "MPS is asked at once where the driver speaks of a fault") {
  CHECK(give(FaultSuspected{}) == Lines{"set next_probe 0s"});
  CHECK(give(FaultSuspected{}).empty());  // is being looked into
  due(Timer::next_probe);
  CHECK(has(status("FAULT"), k_fault));
  CHECK(machine.state() == State::faulted);
  CHECK(give(FaultSuspected{}).empty());
}

TEST_CASE_FIXTURE(Asked, "and again, since it may be behind the driver, and then no more") {
  give(FaultSuspected{});
  due(Timer::next_probe);
  CHECK(has(status("ACTIVE"), "set next_probe 100ms"));
  due(Timer::next_probe);
  CHECK(has(status("ACTIVE"), "set next_probe 200ms"));
  due(Timer::next_probe);
  CHECK(status("ACTIVE") == Lines{"set next_probe 30s"});
  later(999ms);
  CHECK(give(FaultSuspected{}).empty());
  later(1ms);
  CHECK(give(FaultSuspected{}) == Lines{"set next_probe 0s"});
}

TEST_CASE_FIXTURE(Asked, "a batch that is under way may have asked before: then behind it") {
  due(Timer::next_probe);
  CHECK(give(FaultSuspected{}).empty());
  CHECK(status("ACTIVE").back() == "set next_probe 0s");
}

TEST_CASE_FIXTURE(Asked, "what was asked before the log told of a change is not believed") {
  due(Timer::next_probe);
  server_line("Server is handling a fatal GPU error.");
  status("ACTIVE");
  CHECK(machine.state() == State::faulted);
  CHECK(machine.server()->status == ServerStatus::fault);
  due(Timer::next_probe);
  server_line("Creating server context on device 0");
  CHECK_FALSE(has(status("FAULT"), k_fault));
  CHECK(machine.server()->status == ServerStatus::active);
  due(Timer::next_probe);
  status("ACTIVE");
  CHECK(machine.state() == State::ready);
}

TEST_CASE("where MPS cannot be asked nothing is") {
  Busy busy;
  CHECK(busy.give(FaultSuspected{}).empty());
  Kit kit;
  CHECK(kit.give(FaultSuspected{}).empty());
}

TEST_CASE("which ends of a server are orderly") {
  struct Case {
    const char* what;
    Lines before;
    bool connected;
    std::chrono::milliseconds later;
    const char* why;
  };
  const std::vector<Case> cases{
      {"killed", {}, true, 0s, ""},
      {"killed while nobody was on it", {}, false, 0s, ""},
      {"shut down by an operator",
       {"Cmd:shutdown_server 500 -f"},
       true,
       1s,
       ", as the command shutdown_server asked"},
      {"what that comes to on 550",
       {"Cmd:shutdown_server 500", "Try shutting down server 500, backoff is disabled"},
       true,
       1s,
       ", as the command shutdown_server asked"},
      {"it took longer, and its clients died with it", {"Cmd:shutdown_server 500"}, true, 11s, ""},
      {"it waited for its clients",
       {"Cmd:shutdown_server 500"},
       false,
       600s,
       ", as the command shutdown_server asked"},
      {"another one was to be shut down", {"Cmd:shutdown_server 999 -f"}, false, 0s, ""},
      {"nobody knows which", {"Cmd:shutdown_server"}, false, 0s, ""},
      {"quit", {"Cmd:quit"}, false, 0s, ", as the command quit asked"},
      {"a quit that was refused",
       {"Cmd:quit", "Not enough privilege to execute quit command"},
       false,
       0s,
       ""},
      {"another command", {"Cmd:get_server_list"}, false, 0s, ""},
      {"550 has it end",
       {"Try shutting down server 500, backoff is disabled"},
       true,
       1s,
       ", as its control daemon asked"},
      {"550 has another one end",
       {"Try shutting down server 600, backoff is disabled"},
       true,
       1s,
       ""},
      {"550 has it stay",
       {"Try shutting down server 500, backoff is disabled",
        "Server 500 has 2 active worker threads. Server will not shutdown."},
       true,
       1s,
       ""},
      {"a client of another uid waits",
       {"NEW CLIENT 901 from user 1001: Server is not ready, push client to pending list"},
       false,
       1s,
       ", to make room for a client of another uid"},
      {"it waits, but somebody was on it",
       {"NEW CLIENT 901 from user 1001: Server is not ready, push client to pending list"},
       true,
       1s,
       ""},
      {"a client of the same uid waits",
       {"NEW CLIENT 901 from user 1000: Server is not ready, push client to pending list"},
       false,
       1s,
       ""},
  };
  for (const auto& one : cases) {
    CAPTURE(one.what);
    Busy busy;
    if (!one.connected) busy.give(ClientEnded{900});
    for (const auto& line : one.before) busy.line(line);
    busy.later(one.later);
    CHECK(exited(busy.line("Server 500 exited with status 0")) ==
          std::string("server 500 exited with status 0") + one.why);
  }
}

TEST_CASE("a server that we end, with its daemon or for a fault") {
  Busy stopped;
  stopped.give(ShutdownWanted{});
  CHECK(exited(stopped.line("Server 500 exited with status 0")) ==
        "server 500 exited with status 0, with its control daemon, which we end");
  Busy faulted;
  faulted.server_line("Server is handling a fatal GPU error.");
  faulted.due(Timer::fault_rung);
  CHECK(exited(faulted.line("Server 500 exited with status 0")) ==
        "server 500 exited with status 0, to end a fault");
}

TEST_CASE("a daemon's end that somebody asked for") {
  struct Case {
    const char* what;
    std::vector<std::string> before;
    std::chrono::milliseconds later;
    const char* asked;
  };
  const std::vector<Case> cases{
      {"nothing was asked", {}, 0s, "false"},
      {"quit", {"Cmd:quit"}, 10s, "true"},
      {"quit, and its server ends first",
       {"Cmd:quit -t 5", "Try shutting down server 500"},
       10s,
       "true"},
      {"quit, long ago", {"Cmd:quit"}, 10001ms, "false"},
      {"a quit that was refused",
       {"Cmd:quit", "Not enough privilege to execute quit command"},
       0s,
       "false"},
      {"its server alone", {"Cmd:shutdown_server 500"}, 0s, "false"},
      {"its server, since MPS says so", {"Try shutting down server 500"}, 0s, "false"},
  };
  // What it is given to start in has nothing to do with it.
  for (const auto start_deadline : {1s, 60s}) {
    for (const auto& one : cases) {
      CAPTURE(one.what);
      MachineSettings settings;
      settings.start_deadline = start_deadline;
      Busy busy(settings);
      for (const auto& line : one.before) busy.line(line);
      busy.later(one.later);
      CHECK(asked_in(busy.machine.on(DaemonEnded{"exited with status 0"}, busy.now)) == one.asked);
    }
  }
}

TEST_CASE("what was asked of one server says nothing of the next") {
  Busy busy;
  busy.line("Cmd:shutdown_server 500");
  busy.line("Server 500 exited with status 0");
  busy.line("Starting new server 600 for user 1000");
  busy.line("NEW SERVER 600: Ready");
  CHECK(exited(busy.line("Server 600 exited with status 0")) == "server 600 exited with status 0");
}

TEST_CASE("a daemon that ended while no supervisor ran is told of before the next one starts") {
  SUBCASE("by whatever") {
    Kit kit;
    const auto lines = kit.give(DaemonGone{100});
    CHECK(lines == Lines{"emit control_exited: the control daemon, pid 100, ended while no "
                         "supervisor ran"});
    CHECK(has(kit.give(StartWanted{}), "spawn-daemon"));
  }
  SUBCASE("one of which its start is not known any more") {
    Kit kit;
    CHECK(kit.give(DaemonGone{}) ==
          Lines{"emit control_exited: the control daemon ended while no supervisor ran"});
  }
  SUBCASE("by a quit that its log tells of, and that is nobody else's excuse") {
    Kit kit;
    const auto asked = [&kit] {
      const auto actions = kit.machine.on(DaemonGone{100}, kit.now);
      REQUIRE(actions.size() == 1);
      return std::get<Emit>(actions[0]).data.back();
    };
    kit.line("Cmd:quit");
    CHECK(asked() == std::pair<std::string, std::string>{"asked", "true"});
    CHECK(asked() == std::pair<std::string, std::string>{"asked", "false"});
  }
}

TEST_CASE("MPS's list tells of clients that nobody saw come") {
  Kit kit;
  kit.give(DaemonFound{100, {500}});
  kit.give(kit.configured(Kit::limits(), {"500"}, Lines{"41", "42"}));
  kit.due(Timer::next_probe);
  const auto lines = kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"41", "42", "43"}));
  CHECK(has(lines, "emit client_connected: client 43 is served"));
  CHECK(has(lines, "watch-client 43"));
  CHECK_FALSE(has(lines, "emit client_connected: client 42 is served"));
}

TEST_CASE("when a line of the log came about") {
  const SystemTime now{100h};
  struct Case {
    std::optional<SystemTime> said;
    bool reading_on;
    SystemTime at;
  };
  for (const auto& one : std::vector<Case>{{now - 5ms, false, now - 5ms},
                                           {now - 60s, false, now - 60s},
                                           {now - 61s, false, now},
                                           {now - 1h, true, now - 1h},
                                           {now + 1ms, false, now},
                                           {now + 1h, true, now},
                                           {{}, true, now}}) {
    CHECK(time_of_line(one.said, now, one.reading_on) == one.at);
  }
}
