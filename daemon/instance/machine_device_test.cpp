// A device that is out of service: what comes of an instance in each of its states.
#include <doctest/doctest.h>

#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using Lines = Kit::Lines;

namespace {

const std::string k_why = "GPU-0 is out of service since noon until it is reset: Xid 46";
const DeviceOut k_out{k_why};

bool has(const Lines& lines, const std::string& line) {
  return std::find(lines.begin(), lines.end(), line) != lines.end();
}

struct Node : Kit {
  using Kit::Kit;
  Lines ended(const std::string& how = "exited with status 0") { return give(DaemonEnded{how}); }
  // MPS was asked who is there, and nobody is.
  Lines empty() {
    due(Timer::next_probe);
    return give(probed());
  }
  // Nothing that anybody may ask for or that may happen starts a daemon.
  void check_nothing_starts() {
    for (const auto& input : std::vector<Input>{
             StartWanted{}, TimerDue{Timer::backoff_over}, TimerDue{Timer::start_deadline},
             TimerDue{Timer::configure_again}, TimerDue{Timer::stop_rung},
             TimerDue{Timer::fault_rung}, TimerDue{Timer::next_probe}, DrainWanted{},
             LimitsWanted{Limits{40.0, 512, 0}}, DeviceOut{"otherwise"}, k_out}) {
      CHECK_FALSE(has(give(input), "spawn-daemon"));
    }
    CHECK(machine.daemon() == 0);
  }
};

struct Busy : Node {
  Busy() {
    make_busy();
    server_line("Status of client {900, 1} is ACTIVE");
    due(Timer::next_probe);
    give(probed(limits(), {"500"}, Lines{"900"}));
  }
  // MPS was asked once more who is there.
  Lines last_client_goes() {
    due(Timer::next_probe);
    give(probed(limits(), {"500"}, Lines{"900"}));
    return give(ClientEnded{900});
  }
};

}  // namespace

TEST_CASE_FIXTURE(Node, "idle: newcomers are refused, and its daemon ends and stays down") {
  make_ready();
  CHECK(give(k_out) == Lines{"cancel start_deadline", "cancel configure_again", "close-door",
                             "emit draining: no newcomers; 0 running clients may finish",
                             "set next_probe 0s"});
  CHECK(machine.state() == State::draining);
  CHECK(machine.last_error() == k_why);
  CHECK(give(k_out).empty());
  CHECK(has(empty(), "run quit"));
  CHECK(ended().back() == "emit stopped: stopped: " + k_why);
  CHECK(machine.state() == State::stopped);
  CHECK(machine.restarts() == 0);
  check_nothing_starts();
}

TEST_CASE_FIXTURE(Busy, "with clients: they may finish") {
  give(k_out);
  CHECK(machine.state() == State::draining);
  const auto lines = last_client_goes();
  CHECK(has(lines, "emit client_gone: client 900 has gone"));
  CHECK(has(lines, "run quit"));
  ended();
  check_nothing_starts();
}

TEST_CASE_FIXTURE(Busy, "its daemon dies meanwhile") {
  give(k_out);
  const auto lines = ended("was killed by signal 9 (SIGKILL)");
  CHECK(lines.back() == "emit stopped: stopped: " + k_why);
  CHECK_FALSE(has(lines, "spawn-daemon"));
  check_nothing_starts();
}

TEST_CASE_FIXTURE(Busy, "its daemon had died just before") {
  give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
  CHECK(machine.state() == State::starting);
  give(k_out);
  CHECK(machine.state() == State::stopped);
  // It had been spawned, and that comes after.
  CHECK(has(give(DaemonSpawned{101}), "run quit"));
  CHECK(machine.state() == State::draining);
  ended();
  check_nothing_starts();
}

TEST_CASE("in each state that starts something") {
  Node node;
  SUBCASE("starting") {
    node.give(StartWanted{});
    node.give(DaemonSpawned{100});
    CHECK(has(node.give(k_out), "run quit"));
    CHECK(node.ended().back() == "emit stopped: stopped: " + k_why);
  }
  SUBCASE("backoff") {
    node.give(StartWanted{});
    node.give(DaemonNotSpawned{"no program"});
    CHECK(node.machine.state() == State::backoff);
    CHECK(node.give(k_out) ==
          Lines{"cancel backoff_over", "close-door", "emit stopped: not started: " + k_why});
  }
  SUBCASE("failed") {
    for (int i = 0; i < 5; ++i) {
      node.give(i == 0 ? Input(StartWanted{}) : Input(TimerDue{Timer::backoff_over}));
      node.give(DaemonNotSpawned{"no program"});
    }
    CHECK(node.machine.state() == State::failed);
    node.give(k_out);
  }
  SUBCASE("being restarted") {
    node.make_ready();
    node.give(RestartWanted{});
    CHECK(node.machine.state() == State::recovering);
    CHECK(node.give(k_out).empty());
    CHECK(node.ended().back() == "emit stopped: stopped: " + k_why);
  }
  SUBCASE("not begun") {
    CHECK(node.give(k_out).empty());
    CHECK(node.give(StartWanted{}) ==
          Lines{"cancel backoff_over", "close-door", "emit stopped: not started: " + k_why});
  }
  CHECK(node.machine.state() == State::stopped);
  node.check_nothing_starts();
}

TEST_CASE_FIXTURE(Node, "one that is found running is drained") {
  give(k_out);
  const auto lines = give(DaemonFound{100, {500}});
  CHECK(has(lines, "emit draining: no newcomers; 0 running clients may finish"));
  CHECK(machine.state() == State::draining);
  due(Timer::next_probe);
  give(probed(limits(), {"500"}, Lines{"900"}));
  CHECK(machine.clients().contains(900));
  CHECK(has(give(ClientEnded{900}), "run quit"));
  ended();
  check_nothing_starts();
}

TEST_CASE_FIXTURE(Node, "one that does not even end stays failed until it has") {
  make_ready();
  give(k_out);
  empty();
  for (int i = 0; i < 3; ++i) due(Timer::stop_rung);
  CHECK(machine.state() == State::failed);
  CHECK(machine.last_error() == k_why);
  give(DeviceBack{});
  CHECK(machine.state() == State::failed);
  CHECK(machine.last_error().starts_with("the control daemon, pid 100, does not end"));
}

TEST_CASE_FIXTURE(Busy, "a fault as well: its clients are ended, and nothing is restarted") {
  server_line("Server is handling a fatal GPU error.");
  CHECK(machine.state() == State::faulted);
  give(k_out);
  CHECK(machine.state() == State::draining);
  give(FaultedClientsEnded{1, 0, ""});
  CHECK(has(due(Timer::fault_rung), "set fault_rung 5s"));  // shutdown_server -f
  const auto lines = due(Timer::fault_rung);
  CHECK(has(lines, "run quit"));
  CHECK(machine.state() == State::draining);
  ended();
  check_nothing_starts();
}

TEST_CASE_FIXTURE(Busy, "a fault while it is out") {
  give(k_out);
  const auto lines = server_line("Server is handling a fatal GPU error.");
  CHECK(has(lines, "end-faulted-clients 1"));
  CHECK(machine.state() == State::draining);
  CHECK(has(last_client_goes(), "run quit"));
  ended();
  check_nothing_starts();
}

TEST_CASE_FIXTURE(Busy, "its device is back while it drains: its clients never noticed") {
  give(k_out);
  CHECK(give(DeviceBack{}) == Lines{"open-door", "emit undrained: newcomers are let in again"});
  CHECK(machine.state() == State::ready);
  CHECK(machine.last_error().empty());
}

TEST_CASE_FIXTURE(Busy, "its device is back while it drains in a fault") {
  give(k_out);
  server_line("Server is handling a fatal GPU error.");
  give(DeviceBack{});
  CHECK(machine.state() == State::faulted);
}

TEST_CASE("its device is back: what was meant to serve does") {
  Busy node;
  node.give(k_out);
  node.last_client_goes();
  SUBCASE("while its daemon ends") {
    CHECK(node.give(DeviceBack{}).empty());
    CHECK(node.machine.state() == State::recovering);
    CHECK(has(node.ended(), "spawn-daemon"));
  }
  SUBCASE("when it has stopped") {
    node.ended();
    CHECK(node.give(DeviceBack{}) == Lines{"cancel backoff_over", "spawn-daemon"});
  }
  CHECK(node.machine.state() == State::starting);
  CHECK(node.give(DeviceBack{}).empty());
}

TEST_CASE("its device is back: what was drained by an operator stays so") {
  Node node;
  node.make_ready();
  SUBCASE("before") {
    node.give(DrainWanted{});
    node.give(k_out);
  }
  SUBCASE("meanwhile") {
    node.give(k_out);
    node.give(DrainWanted{});
  }
  SUBCASE("it had stopped") {
    node.give(DrainWanted{});
    node.empty();
    node.ended();
    CHECK(node.give(k_out) == Lines{"emit stopped: stopped: " + k_why});
  }
  if (node.machine.daemon() != 0) {
    node.empty();
    node.ended();
  }
  CHECK(node.give(DeviceBack{}).empty());
  CHECK(node.machine.state() == State::stopped);
}

TEST_CASE("verbs while it is out") {
  Busy node;
  node.give(k_out);
  CHECK(node.machine.refuses(UndrainWanted{})->message ==
        "gpu0.shared cannot be undrained: " + k_why +
            " (`mps-ctl restart gpu0.shared --force` puts the device back in service)");
  CHECK(node.machine.refuses(RestartWanted{false})->message ==
        "gpu0.shared is not restarted: " + k_why +
            "; --force puts the device back in service and ends who runs on it");
  CHECK_FALSE(node.machine.refuses(RestartWanted{true}));
  CHECK_FALSE(node.machine.refuses(DrainWanted{}));
  Lines lines;
  SUBCASE("by force, with clients") {
    CHECK(has(node.give(RestartWanted{true}), "emit restarting: restart asked for"));
    CHECK(node.machine.state() == State::recovering);
    lines = node.ended();
  }
  SUBCASE("by force, while its daemon ends") {
    node.last_client_goes();
    CHECK(node.give(RestartWanted{true}) == Lines{"emit restarting: restart asked for"});
    lines = node.ended();
  }
  SUBCASE("by force, when it has stopped") {
    node.last_client_goes();
    node.ended();
    lines = node.give(RestartWanted{true});
  }
  // Once, also when the others on the device are told.
  CHECK(std::count(lines.begin(), lines.end(), "spawn-daemon") == 1);
  CHECK(node.give(DeviceBack{}).empty());
  CHECK(node.machine.state() == State::starting);
  CHECK_FALSE(node.machine.device_out());
}
