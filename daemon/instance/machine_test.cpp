// The life of the control daemon, as tables: what happened, what is to be done, in which order.
#include "instance/machine.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using namespace std::chrono_literals;
using Lines = Kit::Lines;

namespace {

const Lines k_down{"cancel configure_again", "cancel start_deadline", "cancel next_probe",
                   "cancel accept_stuck",    "cancel stop_rung",      "cancel fault_rung"};

// What a daemon's end always brings, between its event and what follows from it.
Lines ended(const std::string& event, Lines rest) {
  Lines all{event, "close-door"};
  all.insert(all.end(), k_down.begin(), k_down.end());
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

bool has(const Lines& lines, const std::string& wanted) {
  return std::find(lines.begin(), lines.end(), wanted) != lines.end();
}

}  // namespace

TEST_CASE("a start: spawned, configured when it listens, ready when the limits are read back") {
  Kit kit;
  CHECK(kit.give(StartWanted{}) == Lines{"cancel backoff_over", "spawn-daemon"});
  CHECK(kit.machine.state() == State::starting);
  CHECK(kit.give(DaemonSpawned{100}) ==
        Lines{"set start_deadline 10s", "set configure_again 15ms",
              "emit control_started: started the control daemon, pid 100"});
  CHECK(kit.line("Starting control daemon using socket /x/control") ==
        Lines{"cancel configure_again", "run configure"});
  CHECK(kit.give(kit.configured()) ==
        Lines{"cancel start_deadline", "cancel configure_again", "open-door", "set next_probe 30s",
              "emit ready: serving; each client gets at most 100 % of the SMs, no memory limit"});
  CHECK(kit.machine.state() == State::ready);
  CHECK(kit.machine.limits_confirmed());
}

TEST_CASE("what is set is built from the settings, and asked for again") {
  MachineSettings settings;
  settings.limits = {
      .active_thread_percentage = 12.5, .pinned_memory_mebibytes = 1536, .client_priority = 1};
  Kit kit(settings);
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  const auto actions = kit.machine.on(TimerDue{Timer::configure_again}, kit.now);
  REQUIRE(actions.size() == 2);
  Lines commands;
  for (const auto& command : std::get<RunBatch>(actions[1]).commands) {
    commands.push_back(command.text);
  }
  commands.resize(7);
  CHECK(commands == Lines{"set_default_active_thread_percentage 12.5",
                          "set_default_device_pinned_mem_limit 0 1536M",
                          "set_default_client_priority 1", "get_default_active_thread_percentage",
                          "get_default_device_pinned_mem_limit 0", "get_default_client_priority",
                          "get_server_list"});
  auto read = Kit::limits("12.5", {"1G"});  // 1536M is printed rounded down
  read.answers[2] = Kit::reply({"1"});
  const auto lines = kit.give(kit.configured(read));
  CHECK(has(lines,
            "emit ready: serving; each client gets at most 12.5 % of the SMs, 1536Mi, "
            "below-normal priority"));
}

TEST_CASE("a daemon that does not listen yet is asked again, sooner first") {
  Kit kit;
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  CHECK(kit.due(Timer::configure_again) == Lines{"cancel configure_again", "run configure"});
  CHECK(kit.give(ConfigureDone{control::Absent{"Cannot find MPS control daemon process"}}) ==
        Lines{"set configure_again 30ms"});
  CHECK(kit.machine.channel().state == ChannelState::ok);
  for (int i = 0; i < 6; ++i) {
    kit.due(Timer::configure_again);
    kit.give(ConfigureDone{control::Absent{"no"}});
  }
  kit.due(Timer::configure_again);
  CHECK(kit.give(ConfigureDone{control::Absent{"no"}}) == Lines{"set configure_again 500ms"});
}

TEST_CASE("limits that were not taken are not believed, and say what stands instead") {
  MachineSettings settings;
  settings.limits.active_thread_percentage = 50;
  Kit kit(settings);
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  kit.due(Timer::configure_again);
  CHECK(kit.give(kit.configured()) == Lines{"set configure_again 30ms"});
  CHECK(kit.machine.last_error() ==
        "active thread percentage: 50 % was set, the daemon says \"100.0\"");
  CHECK(kit.machine.state() == State::starting);
  // Past the deadline it is ended and counts as a failed start.
  const auto lines = kit.due(Timer::start_deadline);
  CHECK(lines == Lines{"cancel configure_again", "cancel start_deadline", "cancel next_probe",
                       "close-door", "signal-daemon 15", "signal-daemon 18", "set stop_rung 2s"});
  const auto end = kit.give(DaemonEnded{"was killed by signal 15 (SIGTERM)"});
  CHECK(kit.machine.state() == State::backoff);
  CHECK(kit.machine.last_error() ==
        "not ready within 10s: active thread percentage: 50 % was set, the daemon says \"100.0\"");
}

TEST_CASE("an end after having been ready is followed by a start at once, without backoff") {
  Kit kit;
  kit.make_ready();
  CHECK(kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"}) ==
        ended("emit control_exited: the control daemon, pid 100, was killed by signal 9 (SIGKILL)",
              {"cancel backoff_over", "spawn-daemon"}));
  CHECK(kit.machine.state() == State::starting);
  CHECK(kit.machine.restarts() == 1);
  CHECK_FALSE(kit.machine.limits_confirmed());
}

TEST_CASE("a hundred kills in a row, each after more than a second, never spend the budget") {
  Kit kit;
  kit.make_ready();
  for (int i = 0; i < 100; ++i) {
    const auto lines = kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
    REQUIRE(lines.back() == "spawn-daemon");
    kit.give(DaemonSpawned{101 + i});
    kit.due(Timer::configure_again);
    kit.give(kit.configured());
    REQUIRE(kit.machine.state() == State::ready);
    kit.later(1500ms);
  }
  CHECK(kit.machine.restarts() == 100);
}

TEST_CASE("starts that never became ready back off, and give up with the reason") {
  Kit kit;
  kit.give(StartWanted{});
  for (int i = 0; i < 4; ++i) {
    const auto lines = kit.give(DaemonNotSpawned{"exec /x: No such file or directory"});
    CHECK(kit.machine.state() == State::backoff);
    REQUIRE(lines.size() == 2);
    CHECK(lines[1].starts_with(
        "emit start_failed: exec /x: No such file or directory; next start in "));
    CHECK(kit.machine.next_start());
    CHECK(kit.due(Timer::backoff_over) == Lines{"cancel backoff_over", "spawn-daemon"});
  }
  CHECK(kit.give(DaemonNotSpawned{"exec /x: No such file or directory"}) ==
        Lines{"close-door",
              "emit failed: gave up after 5 failed starts within 2m; the last: exec /x: No such "
              "file or directory; `mps-ctl restart gpu0.shared` tries again"});
  CHECK(kit.machine.state() == State::failed);
  CHECK_FALSE(kit.machine.refuses(RestartWanted{}));
  CHECK(kit.give(RestartWanted{}) == Lines{"cancel backoff_over", "spawn-daemon"});
  // The budget begins anew: the next failure is not the sixth.
  kit.give(DaemonNotSpawned{"x"});
  CHECK(kit.machine.state() == State::backoff);
}

TEST_CASE("a life of under a second counts as a failed start") {
  Kit kit;
  kit.make_ready();
  kit.give(DaemonEnded{"x"});
  kit.give(DaemonSpawned{101});
  kit.due(Timer::configure_again);
  kit.give(kit.configured());
  kit.later(900ms);
  const auto lines = kit.give(DaemonEnded{"exited with status 1"});
  CHECK(kit.machine.state() == State::backoff);
  CHECK(lines.back().starts_with(
      "emit start_failed: the control daemon exited with status 1; next start in "));
}

TEST_CASE("an early end is its own reason, whatever a command met before it was noticed") {
  Kit kit;
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  kit.due(Timer::configure_again);
  kit.give(ConfigureDone{control::Unanswered{"the front-end exited with status 7"}});
  kit.give(DaemonEnded{"exited with status 7"});
  CHECK(kit.machine.last_error() == "the control daemon exited with status 7");
}

TEST_CASE("a lock taken by somebody else is named") {
  Kit kit;
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  kit.give(
      LogLine{.event = control::parse_log_line("An instance of this daemon is already running"),
              .command = "",
              .start_ticks = 0,
              .at = {}});
  kit.give(DaemonEnded{"exited with status 1"});
  CHECK(kit.machine.last_error() ==
        "another control daemon, or a process that took its lock, uses the pipe directory; the "
        "control daemon exited with status 1");
}

TEST_CASE("a daemon of an earlier supervisor is taken over, not started anew") {
  Kit kit;
  CHECK(
      kit.give(DaemonFound{100, {500}}) ==
      Lines{"watch-server 500",
            "emit control_adopted: took over the control daemon of an earlier supervisor, pid 100",
            "set start_deadline 10s", "cancel configure_again", "run configure"});
  CHECK(kit.machine.adopted());
  const auto done = kit.configured(Kit::limits(), {"500"}, Lines{"900", "901"});
  CHECK(kit.give(done) ==
        Lines{"emit client_connected: client 900 is served", "watch-client 900",
              "emit client_connected: client 901 is served", "watch-client 901",
              "emit clients_listed: MPS lists its clients, 2", "cancel start_deadline",
              "cancel configure_again", "open-door", "set next_probe 30s",
              "emit ready: serving; each client gets at most 100 % of the SMs, no memory limit"});
  CHECK(kit.machine.running_clients() == 2);
  CHECK(kit.machine.clients().at(900).adopted);
}

TEST_CASE("one that is found only when another was to be started is taken over, too") {
  Kit kit;
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{99});
  kit.give(DaemonEnded{"exited with status 1"});
  REQUIRE(kit.due(Timer::backoff_over).back() == "spawn-daemon");
  SUBCASE("its clients are not known yet") {
    const auto lines = kit.give(DaemonFound{100, {500}});
    CHECK(lines.back() == "run configure");
    CHECK(kit.machine.adopted());
    CHECK(kit.machine.may_have_clients());
    kit.give(kit.configured(Kit::limits(), {"500"}, Lines{"900"}));
    CHECK(kit.machine.state() == State::ready);
    CHECK(kit.machine.running_clients() == 1);
  }
  SUBCASE("it is ended where the instance was stopped meanwhile") {
    kit.give(DrainWanted{});
    REQUIRE(kit.machine.state() == State::stopped);
    const auto lines = kit.give(DaemonFound{100, {}});
    CHECK(std::find(lines.begin(), lines.end(), "run quit") != lines.end());
    CHECK(kit.machine.state() == State::draining);
    kit.give(DaemonEnded{"exited with status 0"});
    CHECK(kit.machine.state() == State::stopped);
  }
}

TEST_CASE("an adopted daemon with clients is never ended for being late") {
  Kit kit;
  Client client;
  client.pid = 900;
  kit.machine.restore_client(client);
  kit.give(DaemonFound{100, {500}});
  kit.give(ConfigureDone{control::Unanswered{"no answer within 3s"}});
  CHECK(kit.due(Timer::start_deadline) == Lines{"set start_deadline 10s"});
  CHECK(kit.machine.state() == State::starting);
}

TEST_CASE("drain: no newcomers, MPS is asked once more, then the daemon is ended politely") {
  Kit kit;
  kit.make_busy();
  CHECK(kit.give(DrainWanted{}) ==
        Lines{"cancel start_deadline", "cancel configure_again", "close-door",
              "emit draining: no newcomers; 1 running clients may finish", "set next_probe 0s"});
  CHECK(kit.due(Timer::next_probe) == Lines{"cancel next_probe", "run probe"});
  CHECK(kit.machine.state() == State::draining);
  kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900"}));
  CHECK(kit.machine.state() == State::draining);
  SUBCASE("its last client goes") {
    CHECK(kit.give(ClientEnded{900}) == Lines{"emit client_gone: client 900 has gone",
                                              "cancel configure_again", "cancel start_deadline",
                                              "cancel next_probe", "close-door", "run quit",
                                              "set stop_rung 8s"});
    CHECK(kit.give(QuitDone{control::Absent{"gone"}}) == Lines{"set stop_rung 500ms"});
    const auto lines = kit.give(DaemonEnded{"exited with status 0"});
    CHECK(kit.machine.state() == State::stopped);
    CHECK(lines.back() == "emit stopped: stopped");
    CHECK(kit.machine.restarts() == 0);
    CHECK(kit.give(UndrainWanted{}) == Lines{"cancel backoff_over", "spawn-daemon"});
  }
  SUBCASE("it is undrained before") {
    CHECK(kit.give(UndrainWanted{}) ==
          Lines{"open-door", "emit undrained: newcomers are let in again"});
    CHECK(kit.machine.state() == State::ready);
  }
  SUBCASE("the daemon dies while draining") {
    kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
    CHECK(kit.machine.state() == State::stopped);
  }
}

TEST_CASE("an adopted daemon that does not answer yet is drained, not ended") {
  Kit kit;
  kit.give(DaemonFound{100, {500}});
  kit.give(ConfigureDone{control::Busy{4711, "bash"}});
  CHECK(kit.machine.refuses(RestartWanted{})->message ==
        "the clients of gpu0.shared are not known yet and might be ended; try again, or use "
        "--force");
  kit.give(DrainWanted{});
  CHECK(kit.machine.state() == State::draining);
  kit.due(Timer::next_probe);
  kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900"}));
  CHECK(kit.machine.state() == State::draining);
  CHECK(kit.machine.running_clients() == 1);
  const auto lines = kit.give(ClientEnded{900});
  CHECK(lines.back() == "set stop_rung 8s");
}

TEST_CASE("while nobody knows an adopted server's clients, it counts as used") {
  Kit kit;
  kit.give(DaemonFound{100, {500}});
  kit.give(ConfigureDone{control::Unanswered{"no answer within 3s"}});
  CHECK(kit.due(Timer::start_deadline) == Lines{"set start_deadline 10s"});
  kit.due(Timer::configure_again);
  kit.give(kit.configured(Kit::limits(), {"500"}, Lines{}));
  CHECK_FALSE(kit.machine.may_have_clients());
}

TEST_CASE("a daemon that cannot be ended is never joined by a second one") {
  Kit kit;
  kit.make_ready();
  kit.give(RestartWanted{});
  for (int rung = 0; rung < 4; ++rung) kit.due(Timer::stop_rung);
  REQUIRE(kit.machine.state() == State::failed);
  const auto lines = kit.give(DrainWanted{});
  CHECK(lines.back() == "set stop_rung 8s");  // another try at ending it
  CHECK(kit.machine.refuses(UndrainWanted{}));
  CHECK(kit.machine.daemon() == 100);
}

TEST_CASE("verbs are refused with a reason") {
  Kit kit;
  kit.make_busy();
  CHECK(kit.machine.refuses(RestartWanted{})->message ==
        "1 clients run on gpu0.shared and would be ended; drain it first, or use --force");
  CHECK_FALSE(kit.machine.refuses(RestartWanted{true}));
  CHECK(kit.machine.refuses(UndrainWanted{})->message == "gpu0.shared is not drained: it is ready");
  kit.give(DrainWanted{});
  CHECK(kit.machine.refuses(RestartWanted{true})->message ==
        "gpu0.shared is draining; undrain it first");
  kit.give(ShutdownWanted{});
  CHECK(kit.machine.refuses(UndrainWanted{})->message ==
        "gpu0.shared is ending its control daemon; undrain it when it is stopped");
}

TEST_CASE("a restart climbs the rungs: quit, TERM and CONT, KILL, and then says so") {
  Kit kit;
  kit.make_ready();
  CHECK(kit.give(RestartWanted{}) == Lines{"emit restarting: restart asked for",
                                           "cancel configure_again", "cancel start_deadline",
                                           "cancel next_probe", "close-door", "run quit",
                                           "set stop_rung 8s"});
  CHECK(kit.machine.state() == State::recovering);
  CHECK(kit.due(Timer::stop_rung) ==
        Lines{"signal-daemon 15", "signal-daemon 18", "set stop_rung 2s"});
  CHECK(kit.due(Timer::stop_rung) == Lines{"signal-daemon 9", "set stop_rung 5s"});
  SUBCASE("it ends") {
    const auto lines = kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
    CHECK(lines.back() == "spawn-daemon");
    CHECK(kit.machine.restarts() == 1);
  }
  SUBCASE("it does not") {
    const auto lines = kit.due(Timer::stop_rung);
    CHECK(lines ==
          Lines{"emit failed: the control daemon, pid 100, does not end, not even from SIGKILL: it "
                "hangs in the kernel; see `dmesg` for the driver's messages, the node may need a "
                "reboot"});
    CHECK(kit.machine.state() == State::failed);
  }
}

TEST_CASE("shutdown stays down") {
  Kit kit;
  kit.make_ready();
  kit.give(ShutdownWanted{});
  kit.give(DaemonEnded{"exited with status 0"});
  CHECK(kit.machine.state() == State::stopped);
  CHECK(kit.due(Timer::backoff_over).empty());
}

TEST_CASE("timers that lost their meaning do nothing") {
  Kit kit;
  for (const auto timer : {Timer::configure_again, Timer::start_deadline, Timer::next_probe,
                           Timer::accept_stuck, Timer::backoff_over, Timer::stop_rung}) {
    CHECK(kit.due(timer).empty());
  }
  kit.make_ready();
  for (const auto timer :
       {Timer::configure_again, Timer::start_deadline, Timer::backoff_over, Timer::stop_rung}) {
    CHECK(kit.due(timer).empty());
  }
}

TEST_CASE("the start budget doubles, is bounded, jitters downwards, and forgets with time") {
  StartBudget budget({.initial = 100ms, .max = 300ms, .budget_failures = 5, .budget_within = 10s});
  StartBudget::TimePoint now{1h};
  const std::vector<std::chrono::milliseconds> upper{100ms, 200ms, 300ms, 300ms};
  for (const auto limit : upper) {
    const auto delay = budget.failed(now);
    REQUIRE(delay);
    CHECK(*delay <= limit);
    CHECK(*delay >= limit * 3 / 4);
  }
  CHECK_FALSE(budget.failed(now));
  CHECK(budget.failed(now + 11s));  // the five are forgotten
  budget.reset();
  CHECK(*budget.failed(now) <= 100ms);
}
