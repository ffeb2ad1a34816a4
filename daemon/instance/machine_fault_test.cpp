#include <doctest/doctest.h>

#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using Lines = Kit::Lines;

namespace {

const std::string k_fault =
    "emit fault: a client's fault: the server refuses newcomers until its clients have gone";
const std::string k_recovered =
    "emit fault_recovered: the server has recovered from a fault; its limits are read back next";
const std::string k_over = "emit fault_over: the server takes newcomers again";
constexpr std::chrono::milliseconds k_none{0};

struct Faulted : Kit {
  Faulted() {
    make_busy();
    server_line("Status of client {900, 1} is ACTIVE");
    due(Timer::next_probe);
    give(probed(limits(), {"500"}, Lines{"900"}));
    told = server_line("Server is handling a fatal GPU error.");
  }
  Lines ended(unsigned ended, unsigned waited_for = 0, std::string trouble = {}) {
    return give(FaultedClientsEnded{ended, waited_for, std::move(trouble)});
  }
  // The server says that it has recovered, and the limits are as they should be.
  Lines recovers() {
    server_line("Creating server context on device 0");
    due(Timer::next_probe);
    return give(probed(limits(), {"500"}, Lines{}));
  }
  Lines told;
};

}  // namespace

TEST_CASE_FIXTURE(Faulted, "its clients are ended first") {
  CHECK(machine.state() == State::faulted);
  CHECK(machine.server()->status == ServerStatus::fault);
  CHECK(told == Lines{k_fault, "end-faulted-clients 1", "set fault_rung 30s"});
  CHECK(ended(1) == Lines{"set next_probe 1s", "set fault_rung 5s",
                          "emit fault_clients: 1 clients that hold the fault were ended, 0 are "
                          "waited for"});
}

TEST_CASE_FIXTURE(Faulted, "it serves again when its limits were read back") {
  ended(1);
  CHECK(server_line("Creating server context on device 0") ==
        Lines{k_recovered, "cancel fault_rung", "set next_probe 0s"});
  CHECK(machine.state() == State::faulted);
  due(Timer::next_probe);
  const auto lines = give(probed(limits(), {"500"}, Lines{}));
  CHECK(lines.back() == k_over);
  CHECK(machine.state() == State::ready);
  CHECK(server_line("Creating server context on device 0").empty());
}

TEST_CASE_FIXTURE(Faulted, "limits that are not what they should be are set before it serves") {
  ended(1);
  server_line("Creating server context on device 0");
  due(Timer::next_probe);
  auto lines = give(probed(limits("50.0"), {"500"}, Lines{}));
  CHECK(lines.back() == "run configure");
  CHECK(machine.state() == State::faulted);
  lines = give(configured(limits(), {"500"}, Lines{}));
  CHECK(machine.state() == State::ready);
}

TEST_CASE_FIXTURE(Faulted,
                  "limits that the daemon does not take keep it from serving, for a time") {
  ended(1);
  server_line("Creating server context on device 0");
  due(Timer::next_probe);
  give(probed(limits("50.0"), {"500"}, Lines{}));
  auto lines = give(configured(limits("50.0"), {"500"}, Lines{}));
  CHECK(lines.front() == "set next_probe 1s");
  CHECK(lines.back().starts_with("emit limits_not_applied: active thread percentage: 100 % was "));
  CHECK(machine.state() == State::faulted);
  CHECK(machine.last_error().starts_with("active thread percentage: 100 % was set"));
  CHECK(due(Timer::fault_rung).empty());
  due(Timer::next_probe);
  CHECK(give(probed(limits("50.0"), {"500"}, Lines{})).back() == "run configure");
  lines = give(configured(limits(), {"500"}, Lines{}));
  CHECK(std::count(lines.begin(), lines.end(), k_over) == 1);
  CHECK(machine.state() == State::ready);
}

TEST_CASE("an answer to what was asked before the fault says nothing of it") {
  Kit kit;
  kit.make_busy();
  kit.due(Timer::next_probe);
  kit.server_line("Server is handling a fatal GPU error.");
  kit.give(kit.probed(Kit::limits(), {"500"}, Lines{"900"}));
  CHECK(kit.machine.state() == State::faulted);
}

TEST_CASE_FIXTURE(Faulted, "a second fault while clients are being ended joins the first") {
  CHECK(server_line("Server is handling a fatal GPU error.") == Lines{k_fault});
  ended(1);
  CHECK(server_line("Server is handling a fatal GPU error.") == Lines{k_fault});
}

TEST_CASE_FIXTURE(Faulted, "a fault after the recovery, before the limits were read back") {
  ended(1);
  server_line("Creating server context on device 0");
  CHECK(server_line("Server is handling a fatal GPU error.") ==
        Lines{k_fault, "end-faulted-clients 1", "set fault_rung 30s"});
  CHECK(machine.state() == State::faulted);
}

TEST_CASE_FIXTURE(Faulted, "a server that stays as it is is ended, then its daemon") {
  ended(1);
  give(ClientEnded{900});
  CHECK(due(Timer::fault_rung) ==
        Lines{"set fault_rung 5s", "run shutdown_server",
              "emit fault_shutdown: server 500 refuses newcomers still: it is ended, with what "
              "clients it has"});
  CHECK(give(ServerShutDown{}) == Lines{"set next_probe 0s"});
  const auto lines = due(Timer::fault_rung);
  CHECK(lines.front() ==
        "emit fault_restart: the server does not end either: its control daemon "
        "is ended and started again");
  CHECK(machine.state() == State::recovering);
  give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
  CHECK(machine.state() == State::starting);
}

TEST_CASE_FIXTURE(Faulted, "one that ends makes room for the next") {
  ended(1);
  due(Timer::fault_rung);
  CHECK(line("Server 500 exited with status 0") ==
        Lines{"emit server_exited: server 500 exited with status 0, to end a fault",
              "cancel fault_rung", "set next_probe 0s"});
  CHECK(machine.state() == State::faulted);
  due(Timer::next_probe);
  CHECK(give(probed(limits())).back() == k_over);
}

TEST_CASE_FIXTURE(Faulted, "clients that may take their time are waited for, but not for ever") {
  CHECK(ended(0, 1) == Lines{"set next_probe 1s", "set fault_rung 10m",
                             "emit fault_clients: 0 clients that hold the fault were ended, 1 are "
                             "waited for"});
  // When the last one has gone it is the server's turn.
  const auto lines = give(ClientEnded{900});
  CHECK(std::count(lines.begin(), lines.end(), "set fault_rung 5s") == 1);
}

TEST_CASE_FIXTURE(Faulted, "what went wrong with ending them is said") {
  CHECK(ended(0, 0, "client 900: not answered").back() ==
        "emit fault_clients: 0 clients that hold the fault were ended, 0 are waited for; client "
        "900: not answered");
}

TEST_CASE_FIXTURE(Faulted, "who never says what became of the clients is not waited for") {
  CHECK(due(Timer::fault_rung).size() == 3);
  CHECK(ended(1).empty());
}

TEST_CASE_FIXTURE(Faulted, "the daemon's end ends the fault with it") {
  give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
  CHECK(machine.state() == State::starting);
  CHECK(due(Timer::fault_rung).empty());
  CHECK(ended(1).empty());
}

TEST_CASE_FIXTURE(Faulted, "while draining the clients are ended, too") {
  ended(1);
  give(DrainWanted{});
  CHECK(machine.state() == State::draining);
  CHECK(due(Timer::fault_rung).size() == 3);
  CHECK(due(Timer::fault_rung).front().starts_with("emit fault_restart"));
}

namespace {

// Of a daemon that knows get_server_status, with client 900 on server 500.
struct Telling : Kit {
  Telling() {
    give(StartWanted{});
    give(DaemonSpawned{100});
    line("Starting control daemon using socket /run/mps/gpu0.shared/pipe/control");
    auto known = configured();
    std::get<control::Answered>(known.outcome).answers[7] = control::Refusal{"Server 1 not found"};
    give(known);
    REQUIRE(machine.capabilities()->server_status);
    later(std::chrono::seconds{10});
    line("NEW CLIENT 900 from user 1000: Server is not ready, push client to pending list");
    line("Starting new server 500 for user 1000");
    line("NEW SERVER 500: Ready");
  }
  ProbeDone answers(const std::string& status) {
    auto answered = probed(limits(), {"500"}, Lines{"900"});
    std::get<control::Answered>(answered.outcome).answers.push_back(reply({status}));
    return answered;
  }
  Lines says(const std::string& status) {
    due(Timer::next_probe);
    return give(answers(status));
  }
};

}  // namespace

TEST_CASE_FIXTURE(Telling, "a fault, and its end, of which only the server's status tells") {
  const auto lines = says("FAULT");
  CHECK(machine.state() == State::faulted);
  CHECK(std::count(lines.begin(), lines.end(), k_fault) == 1);
  CHECK(std::count(lines.begin(), lines.end(), "end-faulted-clients 1") == 1);
  const auto again = says("FAULT");
  CHECK(std::count(again.begin(), again.end(), k_fault) == 0);
  CHECK(machine.state() == State::faulted);
  says("ACTIVE");
  CHECK(machine.state() == State::ready);
}

TEST_CASE_FIXTURE(Telling, "a status that was asked for before the fault says nothing of it") {
  says("ACTIVE");
  due(Timer::next_probe);
  server_line("Server is handling a fatal GPU error.");
  const auto lines = give(answers("ACTIVE"));
  CHECK(machine.state() == State::faulted);
  CHECK(machine.in_fault());
  CHECK(std::count(lines.begin(), lines.end(), k_over) == 0);
}

TEST_CASE_FIXTURE(Telling, "what was asked before the server had recovered says nothing of it") {
  says("ACTIVE");
  server_line("Server is handling a fatal GPU error.");
  give(FaultedClientsEnded{1, 0, {}});
  due(Timer::next_probe);
  server_line("Creating server context on device 0");
  // Neither a fault of its own nor the limits that the server has now.
  auto lines = give(answers("FAULT"));
  CHECK(machine.state() == State::faulted);
  CHECK_FALSE(machine.in_fault());
  CHECK(std::count(lines.begin(), lines.end(), k_fault) == 0);
  CHECK(lines.back() == "set next_probe 0s");
  lines = says("ACTIVE");
  CHECK(lines.back() == k_over);
}

TEST_CASE_FIXTURE(Telling, "the log says a fault and the server none") {
  says("ACTIVE");
  server_line("Server is handling a fatal GPU error.");
  give(FaultedClientsEnded{1, 0, {}});
  CHECK(says("ACTIVE").back() == k_over);
  CHECK(machine.state() == State::ready);
  CHECK(due(Timer::fault_rung).empty());
}

TEST_CASE_FIXTURE(Faulted, "what another server says of a fault is not of ours") {
  SUBCASE("a fault") {
    recovers();
    REQUIRE(machine.state() == State::ready);
    CHECK(written("Server is handling a fatal GPU error.", "Other  499").empty());
    CHECK(machine.state() == State::ready);
    CHECK(machine.server()->status == ServerStatus::active);
  }
  SUBCASE("its recovery") {
    ended(1);
    CHECK(written("Creating server context on device 0", "Other  499").empty());
    CHECK(machine.in_fault());
  }
}

TEST_CASE_FIXTURE(Faulted,
                  "an old server that ends while the next one starts is not the next one") {
  ended(1);
  due(Timer::fault_rung);
  CHECK(line("Starting new server 501 for user 1000") ==
        Lines{"watch-server 501", "cancel fault_rung", "set next_probe 0s"});
  written("Failed to start : its last words", "Other  500");
  CHECK(line("Server 500 exited with status 1") ==
        Lines{"emit server_exited: server 500 exited with status 1"});
  CHECK(give(ServerEnded{500}).empty());
  CHECK(machine.server()->pid == 501);
  CHECK(machine.server()->status == ServerStatus::starting);
  CHECK(line("Server 501 exited with status 1") ==
        Lines{"emit server_start_failed: the server does not start: exited with status 1"});
}

TEST_CASE_FIXTURE(Faulted,
                  "the next server is ready before anything was heard of the old one's end") {
  ended(1);
  due(Timer::fault_rung);
  const auto lines = line("NEW SERVER 501: Ready");
  CHECK(std::count(lines.begin(), lines.end(), "cancel fault_rung") == 1);
  due(Timer::next_probe);
  CHECK(give(probed(limits(), {"501"}, Lines{})).back() == k_over);
  CHECK(due(Timer::fault_rung).empty());
  CHECK(line("Server 500 exited with status 0") ==
        Lines{"emit server_exited: server 500 exited with status 0"});
  CHECK(machine.state() == State::ready);
}

TEST_CASE_FIXTURE(Faulted, "newcomers do not delay the look at a server that has recovered") {
  ended(1);
  server_line("Creating server context on device 0");
  const auto lines = line("NEW CLIENT 901 from user 1000: Server already exists");
  CHECK(std::none_of(lines.begin(), lines.end(),
                     [](const auto& one) { return one.starts_with("set next_probe"); }));
}

TEST_CASE_FIXTURE(Faulted, "limits that are being set when it recovers are read back at once") {
  give(LimitsWanted{Limits{25.0, std::nullopt, 0}});  // a batch is under way
  ended(1);
  server_line("Creating server context on device 0");
  const auto lines = give(configured(limits("25.0"), {"500"}, Lines{}));
  const auto last_probe = std::find_if(lines.rbegin(), lines.rend(), [](const auto& line) {
    return line.starts_with("set next_probe");
  });
  CHECK(*last_probe == "set next_probe 0s");
}

TEST_CASE_FIXTURE(Faulted, "who was to be waited for has gone while the others were ended") {
  give(ClientEnded{900});
  CHECK(ended(0, 1).at(1) == "set fault_rung 5s");
}

TEST_CASE_FIXTURE(Faulted, "words of a server that is not ours any more are no concern of ours") {
  const auto concerns = [this](const std::string& line) {
    return machine.concerns(control::parse_log_line(line));
  };
  for (const std::string text :
       {"Server is handling a fatal GPU error.", "Client process 7 encountered a fatal GPU error.",
        "The following clients have a sticky error set:", "Status of client {7, 1} is INACTIVE",
        "Creating server context on device 0"}) {
    CAPTURE(text);
    CHECK(concerns("[2026-11-20 10:00:00.000 Other 500] " + text));
    CHECK_FALSE(concerns("[2026-11-20 10:00:00.000 Other 499] " + text));
  }
  CHECK(
      concerns("[2026-11-20 10:00:00.000 Control 100] NEW CLIENT 901 from user 1000: Server "
               "already exists"));
}

TEST_CASE_FIXTURE(Faulted, "drained and undrained in the fault, newcomers wait for its end") {
  ended(0, 1);
  give(DrainWanted{});
  due(Timer::next_probe);
  give(probed(limits(), {"500"}, Lines{"900"}));
  SUBCASE("which is still to come") {
    CHECK(give(UndrainWanted{}) ==
          Lines{"open-door",
                "emit undrained: newcomers are let in again once its server has recovered from a "
                "fault"});
    CHECK(machine.state() == State::faulted);
    CHECK(server_line("Creating server context on device 0") ==
          Lines{k_recovered, "cancel fault_rung", "set next_probe 0s"});
  }
  SUBCASE("which came then") {
    CHECK(server_line("Creating server context on device 0") ==
          Lines{"emit fault_recovered: the server has recovered from a fault; no newcomers are let "
                "in",
                "cancel fault_rung"});
    CHECK(machine.state() == State::draining);
    CHECK(give(UndrainWanted{}).back() == "set next_probe 0s");
    CHECK(machine.state() == State::faulted);
  }
  due(Timer::next_probe);
  CHECK(give(probed(limits(), {"500"}, Lines{"900"})).back() == k_over);
  CHECK(machine.state() == State::ready);
}

TEST_CASE_FIXTURE(Faulted, "who has only asked for a server keeps nobody waiting") {
  ended(0, 1);
  line("NEW CLIENT 901 from user 1000: Server already exists");
  const auto lines = give(ClientEnded{900});
  CHECK(std::count(lines.begin(), lines.end(), "set fault_rung 5s") == 1);
}

TEST_CASE_FIXTURE(Faulted, "a server that ends from nothing is killed when its daemon has gone") {
  ended(1);
  due(Timer::fault_rung);
  due(Timer::fault_rung);
  const auto lines = give(DaemonEnded{"exited with status 0"});
  CHECK(std::count(lines.begin(), lines.end(), "signal-server 500 9") == 1);
}

TEST_CASE_FIXTURE(Faulted, "a restart by force in the fault asks its server to end") {
  ended(1);
  give(RestartWanted{true});
  const auto lines = give(DaemonEnded{"exited with status 0"});
  CHECK(std::count(lines.begin(), lines.end(), "signal-server 500 15") == 1);
  CHECK(machine.state() == State::starting);
  CHECK(due(Timer::fault_rung).empty());
}

TEST_CASE_FIXTURE(Faulted, "a server's end that is asked for and not answered is given its time") {
  ended(1);
  due(Timer::fault_rung);
  // Whatever came of the command: the server is looked at, and then its daemon is ended.
  CHECK(give(ServerShutDown{}) == Lines{"set next_probe 0s"});
  due(Timer::next_probe);
  give(ProbeDone{control::Unanswered{"no answer within 3s"}});
  CHECK(machine.state() == State::faulted);
  CHECK(server_line("Server is handling a fatal GPU error.") == Lines{k_fault});
  CHECK(due(Timer::fault_rung).front().starts_with("emit fault_restart"));
}
