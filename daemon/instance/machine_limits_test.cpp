// Limits that change while an instance lives.
#include <doctest/doctest.h>

#include <algorithm>

#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using namespace std::chrono_literals;
using Lines = Kit::Lines;

namespace {

const Limits k_quarter{.active_thread_percentage = 25, .pinned_memory_mebibytes = 10240};

control::Answered quarter() {
  return Kit::limits("25.0", {"10G"});
}

bool has(const Lines& lines, const std::string& line) {
  return std::find(lines.begin(), lines.end(), line) != lines.end();
}

// The commands of the batch that this input starts; empty: none.
Lines batch_after(Kit& kit, const Input& input) {
  Lines commands;
  for (const auto& action : kit.machine.on(input, kit.now)) {
    const auto* run = std::get_if<RunBatch>(&action);
    if (run == nullptr) continue;
    for (const auto& command : run->commands) commands.push_back(command.text);
  }
  return commands;
}

constexpr auto k_changed =
    "emit limits_changed: each new client gets at most 25 % of the SMs, 10Gi; running clients keep "
    "what they have";

}  // namespace

TEST_CASE("new limits are set at once, read back, and said") {
  Kit kit;
  kit.make_ready();
  CHECK(kit.give(LimitsWanted{k_quarter}) == Lines{"cancel configure_again", "run configure"});
  CHECK_FALSE(kit.machine.limits_confirmed());
  CHECK(kit.give(kit.configured(quarter())) == Lines{"set next_probe 30s", k_changed});
  CHECK(kit.machine.limits_confirmed());
  CHECK(kit.machine.limits() == k_quarter);
  CHECK(kit.machine.drifted() == 0);
}

TEST_CASE("the limits that there are already change nothing") {
  Kit kit;
  kit.make_ready();
  CHECK(kit.give(LimitsWanted{{}}).empty());
  CHECK(kit.machine.limits_confirmed());
}

TEST_CASE("a running server gets them too, so that its next client has them") {
  Kit kit;
  kit.make_busy();
  const auto commands = batch_after(kit, LimitsWanted{k_quarter});
  for (const char* command :
       {"set_default_active_thread_percentage 25", "set_default_device_pinned_mem_limit 0 10240M",
        "set_active_thread_percentage 500 25", "set_device_pinned_mem_limit 500 0 10240M"}) {
    CAPTURE(command);
    CHECK(has(commands, command));
  }
  kit.give(kit.configured(quarter(), {"500"}, Lines{"900"}));
  CHECK(kit.machine.limits_confirmed());
  CHECK(kit.machine.running_clients() == 1);
}

TEST_CASE("a probe under way asked for the old limits: its answer is no drift") {
  Kit kit;
  kit.make_ready();
  CHECK(has(kit.due(Timer::next_probe), "run probe"));
  CHECK(kit.give(LimitsWanted{k_quarter}).empty());  // one batch at a time
  CHECK(kit.give(Kit::probed()) ==
        Lines{"set next_probe 30s", "cancel configure_again", "run configure"});
  CHECK(kit.machine.drifted() == 0);
  CHECK(has(kit.give(kit.configured(quarter())), k_changed));
}

TEST_CASE("a change while others are being set is set after them") {
  Kit kit;
  kit.make_ready();
  kit.give(LimitsWanted{Limits{70, std::nullopt, 0}});
  CHECK(kit.give(LimitsWanted{k_quarter}).empty());
  CHECK(kit.give(kit.configured(Kit::limits("70.0"))) ==
        Lines{"cancel configure_again", "run configure"});
  CHECK_FALSE(kit.machine.limits_confirmed());
  CHECK(has(kit.give(kit.configured(quarter())), k_changed));
}

TEST_CASE("a change while the daemon starts is in force before it serves") {
  Kit kit;
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  kit.line("Starting control daemon using socket /run/mps/gpu0.shared/pipe/control");
  kit.give(LimitsWanted{k_quarter});
  const auto first = kit.give(kit.configured());
  CHECK(first == Lines{"cancel configure_again", "run configure"});
  CHECK(kit.machine.state() == State::starting);
  const auto second = kit.give(kit.configured(quarter()));
  CHECK(has(second, "emit ready: serving; each client gets at most 25 % of the SMs, 10Gi"));
  CHECK_FALSE(has(second, k_changed));
}

TEST_CASE("without a daemon they wait for the next one") {
  Kit kit;
  CHECK(kit.give(LimitsWanted{k_quarter}).empty());
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  const auto commands =
      batch_after(kit, LogLine{.event = control::parse_log_line(
                                   "[2026-11-20 23:22:15.182 Control  3056] Starting control "
                                   "daemon using socket /run/mps/gpu0.shared/pipe/control")});
  CHECK(has(commands, "set_default_active_thread_percentage 25"));
}

TEST_CASE("a daemon that dies while they are being set starts again with them") {
  Kit kit;
  kit.make_ready();
  kit.give(LimitsWanted{k_quarter});
  CHECK(has(kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"}), "spawn-daemon"));
  kit.give(DaemonSpawned{101});
  kit.line("Starting control daemon using socket /run/mps/gpu0.shared/pipe/control");
  const auto lines = kit.give(kit.configured(quarter()));
  CHECK(has(lines, "emit ready: serving; each client gets at most 25 % of the SMs, 10Gi"));
  CHECK_FALSE(has(lines, k_changed));
  CHECK(kit.machine.limits_confirmed());
}

TEST_CASE("what was not answered is set when commands are answered again") {
  Kit kit;
  kit.make_ready();
  kit.give(LimitsWanted{k_quarter});
  kit.give(ConfigureDone{control::Busy{}});
  CHECK_FALSE(kit.machine.limits_confirmed());
  CHECK(has(kit.due(Timer::next_probe), "run probe"));
  const auto lines = kit.give(Kit::probed());
  CHECK(has(lines, "run configure"));
  CHECK(kit.machine.drifted() == 0);  // what was never set has not drifted
  CHECK(has(kit.give(kit.configured(quarter())), k_changed));
}

TEST_CASE("a server that was starting meanwhile gets them when it is ready") {
  Kit kit;
  kit.make_ready();
  kit.line("NEW CLIENT 900 from user 1000: Server is not ready, push client to pending list");
  kit.line("Starting new server 500 for user 1000");
  kit.give(LimitsWanted{k_quarter});
  kit.give(kit.configured(quarter(), {"500"}));
  const auto ready = kit.line("NEW SERVER 500: Ready");
  CHECK(has(ready, "run configure"));
  kit.give(kit.configured(quarter(), {"500"}, Lines{"900"}));
  CHECK(kit.machine.drifted() == 0);
  CHECK(kit.machine.limits_confirmed());
}

TEST_CASE("a draining instance takes them, and lets nobody in for it") {
  Kit kit;
  kit.make_busy();
  kit.give(DrainWanted{});
  const auto lines = kit.give(LimitsWanted{k_quarter});
  CHECK(has(lines, "run configure"));
  CHECK_FALSE(has(lines, "open-door"));
  CHECK(kit.machine.state() == State::draining);
}

TEST_CASE("a server that became ready while they were being set is set too, before they count") {
  Kit kit;
  kit.make_ready();
  kit.line("NEW CLIENT 900 from user 1000: Server is not ready, push client to pending list");
  kit.line("Starting new server 500 for user 1000");
  kit.give(LimitsWanted{k_quarter});
  kit.line("NEW SERVER 500: Ready");
  const auto again = kit.give(kit.configured(quarter(), {"500"}));
  CHECK(again == Lines{"cancel configure_again", "run configure"});
  CHECK_FALSE(kit.machine.limits_confirmed());
  // The probe that the server's start asked for is not put off by it.
  CHECK(kit.give(kit.configured(quarter(), {"500"}, Lines{"900"})) ==
        Lines{"set next_probe 1s", k_changed});
}

TEST_CASE("a server whose start is read after they were set may have missed them") {
  Kit kit;
  kit.make_ready();
  kit.give(LimitsWanted{k_quarter});
  kit.give(kit.configured(quarter()));
  kit.line("Starting new server 500 for user 1000");
  CHECK(has(kit.line("NEW SERVER 500: Ready"), "run configure"));
  kit.give(kit.configured(quarter(), {"500"}, Lines{"900"}));
  // The one after it starts with them.
  kit.line("Server 500 exited with status 0");
  kit.line("Starting new server 501 for user 1000");
  CHECK_FALSE(has(kit.line("NEW SERVER 501: Ready"), "run configure"));
  CHECK(kit.machine.drifted() == 0);
}

TEST_CASE("a daemon that does not take them is asked ever more rarely, and it is said once") {
  Kit kit;
  kit.make_ready();
  kit.give(LimitsWanted{k_quarter});
  CHECK(kit.give(kit.configured()) ==
        Lines{"set next_probe 1s",
              "emit limits_not_applied: active thread percentage: 25 % was set, the daemon says "
              "\"100.0\"; new clients may get what was in force before, and it is tried again"});
  for (const char* delay : {"2s", "4s", "8s", "16s", "30s", "30s"}) {
    kit.due(Timer::next_probe);
    CHECK(has(kit.give(Kit::probed()), "run configure"));
    CHECK(kit.give(kit.configured()) == Lines{std::string("set next_probe ") + delay});
  }
  CHECK(kit.machine.drifted() == 0);
  kit.due(Timer::next_probe);
  kit.give(Kit::probed());
  CHECK(has(kit.give(kit.configured(quarter())), k_changed));
}

TEST_CASE("an instance that is undrained serves once the limits of meanwhile are in force") {
  Kit kit;
  kit.make_busy();
  kit.give(DrainWanted{});
  kit.give(LimitsWanted{k_quarter});
  CHECK(kit.give(UndrainWanted{}) ==
        Lines{"cancel next_probe", "set start_deadline 10s",
              "emit undrained: newcomers are let in again once its limits are set"});
  SUBCASE("they are") {
    const auto lines = kit.give(kit.configured(quarter(), {"500"}, Lines{"900"}));
    CHECK(has(lines, "open-door"));
    CHECK(has(lines, "emit ready: serving; each client gets at most 25 % of the SMs, 10Gi"));
    CHECK_FALSE(has(lines, k_changed));
  }
  SUBCASE("nobody answers: its clients keep it from being ended") {
    kit.give(ConfigureDone{control::Busy{4711, "bash"}});
    CHECK(kit.due(Timer::start_deadline) == Lines{"set start_deadline 10s"});
    kit.give(DrainWanted{});
    CHECK(kit.machine.state() == State::draining);
    CHECK(kit.machine.running_clients() == 1);
  }
}

namespace {

NewcomerLimitsWanted newcomer(double percentage, std::uint64_t mebibytes) {
  return {NewcomerLimitsWanted::Own{percentage, mebibytes}};
}

}  // namespace

TEST_CASE("who comes in now gets limits of its own, and the drift check knows of them") {
  MachineSettings settings;
  settings.limits = {50.0, 10240, 1};
  Kit kit(settings);
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  kit.line("Starting control daemon using socket /run/mps/gpu0.shared/pipe/control");
  auto ceiling = Kit::limits("50.0", {"10G"});
  ceiling.answers[2] = Kit::reply({"1"});
  auto own = Kit::limits("20.0", {"1G"});
  own.answers[2] = Kit::reply({"1"});
  CHECK_FALSE(kit.machine.limits_in_force());
  kit.give(kit.configured(ceiling));
  CHECK(kit.machine.limits_in_force() == Limits{50.0, 10240, 1});
  const auto commands = batch_after(kit, newcomer(20.0, 1024));
  CHECK(has(commands, "set_default_active_thread_percentage 20"));
  CHECK(has(commands, "set_default_device_pinned_mem_limit 0 1024M"));
  CHECK(has(commands, "set_default_client_priority 1"));
  CHECK_FALSE(kit.machine.limits_in_force());
  CHECK(kit.give(kit.configured(own)) == Lines{"set next_probe 30s"});
  CHECK(kit.machine.limits_in_force() == Limits{20.0, 1024, 1});
  CHECK(kit.machine.limits() == Limits{50.0, 10240, 1});
  // A look finds them as they are meant to be.
  kit.due(Timer::next_probe);
  CHECK(kit.give(Kit::probed(own)) == Lines{"set next_probe 30s"});
  CHECK(kit.machine.drifted() == 0);
  SUBCASE("and somebody else's doing for what it is") {
    kit.due(Timer::next_probe);
    kit.give(Kit::probed(ceiling));
    CHECK(kit.machine.drifted() == 1);
    CHECK_FALSE(kit.machine.limits_in_force());
  }
  SUBCASE("afterwards it is as before") {
    kit.give(NewcomerLimitsWanted{});
    CHECK_FALSE(kit.machine.limits_in_force());
    kit.give(kit.configured(ceiling));
    CHECK(kit.machine.limits_in_force() == Limits{50.0, 10240, 1});
    CHECK(kit.give(NewcomerLimitsWanted{}) == Lines{});
  }
  SUBCASE("a change of mind while they are set") {
    kit.give(newcomer(30.0, 1024));
    kit.give(NewcomerLimitsWanted{});
    kit.give(kit.configured(Kit::limits("30.0", {"1G"})));
    CHECK_FALSE(kit.machine.limits_in_force());
    kit.give(kit.configured(ceiling));
    CHECK(kit.machine.limits_in_force() == Limits{50.0, 10240, 1});
  }
}

TEST_CASE("an undrain during a probe configures after it") {
  Kit kit;
  kit.make_busy();
  kit.give(DrainWanted{});
  kit.due(Timer::next_probe);
  kit.give(LimitsWanted{k_quarter});
  kit.give(UndrainWanted{});
  CHECK(has(kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900"})), "run configure"));
  CHECK(kit.machine.state() == State::starting);
}

TEST_CASE("what is only to be drained keeps its limits, whatever they are") {
  Kit kit;
  const auto found = kit.give(DaemonFound{100, {500}, true});
  CHECK(found.back() == "set next_probe 0s");
  CHECK_FALSE(has(found, "run configure"));
  CHECK(kit.machine.state() == State::draining);
  kit.due(Timer::next_probe);
  const auto probed = kit.give(Kit::probed(quarter(), {"500"}, Lines{"900"}));
  CHECK_FALSE(has(probed, "run configure"));
  CHECK(kit.machine.drifted() == 0);
  CHECK(kit.machine.running_clients() == 1);
  SUBCASE("its last client goes") {
    const auto lines = kit.give(ClientEnded{900});
    CHECK(lines.back() == "set stop_rung 8s");
  }
  SUBCASE("it is wanted again, with the limits that it was never given") {
    CHECK(has(kit.give(LimitsWanted{{}}), "run configure"));
    kit.give(UndrainWanted{});
    CHECK(kit.machine.state() == State::starting);
    CHECK(has(kit.give(kit.configured(Kit::limits(), {"500"}, Lines{"900"})), "open-door"));
  }
}

TEST_CASE("a daemon that is being ended is left to its end") {
  Kit kit;
  kit.make_ready();
  kit.give(RestartWanted{});
  CHECK(kit.give(LimitsWanted{k_quarter}).empty());
}
