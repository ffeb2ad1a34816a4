// Faults from before this supervisor: of instances that were taken over.
#include <doctest/doctest.h>

#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using Lines = Kit::Lines;

TEST_CASE("a fault from before this supervisor is gone on with") {
  Kit kit;
  Client client;
  client.pid = 900;
  client.connected = true;
  kit.machine.restore_client(client);
  kit.machine.restore_fault(500);
  auto lines = kit.give(DaemonFound{100, {500}});
  CHECK(std::count(lines.begin(), lines.end(), "watch-server 500") == 1);
  lines = kit.give(kit.configured(Kit::limits(), {"500"}, Lines{"900"}));
  CHECK(kit.machine.state() == State::faulted);
  CHECK(std::count(lines.begin(), lines.end(), "end-faulted-clients 1") == 1);
}

TEST_CASE("a fault while no supervisor ran, of which the log tells before the daemon is found") {
  for (const bool over : {false, true}) {
    CAPTURE(over);
    Kit kit;
    Client client;
    client.pid = 900;
    client.connected = true;
    kit.machine.restore_client(client);
    kit.server_line("Server is handling a fatal GPU error.");
    if (over) kit.server_line("Creating server context on device 0");
    kit.give(DaemonFound{100, {500}});
    const auto lines = kit.give(kit.configured(Kit::limits(), {"500"}, Lines{"900"}));
    CHECK(kit.machine.state() == (over ? State::ready : State::faulted));
    CHECK(std::count(lines.begin(), lines.end(), "end-faulted-clients 1") == (over ? 0 : 1));
  }
}

TEST_CASE("a fault from before this supervisor, drained before its daemon has answered") {
  for (const bool leftover : {false, true}) {
    CAPTURE(leftover);
    Kit kit;
    Client client;
    client.pid = 900;
    client.connected = true;
    kit.machine.restore_client(client);
    kit.machine.restore_fault(500);
    auto lines = kit.give(DaemonFound{100, {500}, leftover});
    if (!leftover) lines = kit.give(DrainWanted{});
    CHECK(kit.machine.state() == State::draining);
    CHECK(std::count(lines.begin(), lines.end(), "end-faulted-clients 1") == 1);
    CHECK(std::count(lines.begin(), lines.end(), "set fault_rung 30s") == 1);
  }
}

TEST_CASE("a fault from before this supervisor that is over by now") {
  Kit kit;
  kit.machine.restore_fault(500);
  kit.server_line("Creating server context on device 0");
  kit.give(DaemonFound{100, {500}});
  kit.give(kit.configured(Kit::limits(), {"500"}, Lines{}));
  CHECK(kit.machine.state() == State::ready);
}

TEST_CASE("a faulted server from before this supervisor that is gone by now") {
  Kit kit;
  kit.machine.restore_fault(500);
  kit.give(DaemonFound{100, {}});
  kit.give(kit.configured());
  CHECK(kit.machine.state() == State::ready);
}

namespace {

// Taken over in a fault, by a supervisor whom its daemon does not answer.
struct Silent : Kit {
  Silent() {
    Client client;
    client.pid = 900;
    client.connected = true;
    machine.restore_client(client);
    machine.restore_fault(500);
    give(DaemonFound{100, {500}});
    give(ConfigureDone{control::Unanswered{"no answer within 3s"}});
  }
  Lines not_within() {
    later(MachineSettings{}.start_deadline);
    return due(Timer::start_deadline);
  }
};

}  // namespace

TEST_CASE_FIXTURE(Silent, "a fault from before, and a daemon that does not answer") {
  CHECK(machine.state() == State::starting);
  CHECK(not_within() ==
        Lines{"set start_deadline 10s", "end-faulted-clients 1", "set fault_rung 30s"});
  CHECK(not_within() == Lines{"set start_deadline 10s"});
  give(FaultedClientsEnded{0, 0, "client 900: not answered"});
  give(ClientEnded{900});
  // That the server has recovered is no answer.
  CHECK(
      server_line("Creating server context on device 0") ==
      Lines{"emit fault_recovered: the server has recovered from a fault; its limits are read back "
            "next"});
  const auto lines = due(Timer::fault_rung);
  CHECK(lines.front() ==
        "emit fault_restart: after a client's fault the control daemon does not answer: it is "
        "ended and started again");
  CHECK(machine.state() == State::recovering);
  give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
  CHECK(machine.state() == State::starting);
}

TEST_CASE_FIXTURE(Silent, "one that answers at last, in its fault still") {
  not_within();
  give(configured(limits(), {"500"}, Lines{"900"}));
  CHECK(machine.state() == State::faulted);
  CHECK(give(FaultedClientsEnded{1, 0, {}}).front() == "set next_probe 1s");
}

TEST_CASE_FIXTURE(Silent, "one that answers when its fault is over") {
  not_within();
  give(FaultedClientsEnded{1, 0, {}});
  server_line("Creating server context on device 0");
  const auto lines = give(configured(limits(), {"500"}, Lines{}));
  CHECK(machine.state() == State::ready);
  CHECK(std::count(lines.begin(), lines.end(), "cancel fault_rung") == 1);
  CHECK(due(Timer::fault_rung).empty());
}

TEST_CASE_FIXTURE(Silent, "clients that may take their time are waited for there, too") {
  not_within();
  CHECK(give(FaultedClientsEnded{0, 1, {}}).front() == "set fault_rung 10m");
}

TEST_CASE("one that is taken over, and does not answer, while nobody is known to be there") {
  Kit kit;
  kit.give(DaemonFound{100, {500}});
  const auto not_within = [&kit] {
    kit.give(ConfigureDone{control::Stopped{}});
    return kit.due(Timer::start_deadline);
  };
  // Somebody might be whom only MPS's list would tell of.
  CHECK(not_within() == Lines{"set start_deadline 10s"});
  CHECK(not_within() == Lines{"set start_deadline 10s"});
  const auto lines = not_within();
  CHECK(std::count(lines.begin(), lines.end(), "signal-daemon 15") == 1);
  kit.give(DaemonEnded{"was killed by signal 15 (SIGTERM)"});
  CHECK(kit.machine.state() == State::backoff);
}
