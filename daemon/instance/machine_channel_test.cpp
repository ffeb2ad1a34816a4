// Probes, drift, and what is made of a missing answer.
#include <doctest/doctest.h>

#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using namespace std::chrono_literals;
using Lines = Kit::Lines;

TEST_CASE("a probe that finds all well asks for the next one") {
  Kit kit;
  kit.make_ready();
  CHECK(kit.due(Timer::next_probe) == Lines{"cancel next_probe", "run probe"});
  CHECK(kit.due(Timer::next_probe).empty());  // one batch at a time
  CHECK(kit.give(Kit::probed()) == Lines{"set next_probe 30s"});
}

TEST_CASE("limits changed behind our back are put right, counted and reported") {
  Kit kit;
  kit.make_ready();
  kit.due(Timer::next_probe);
  CHECK(kit.give(Kit::probed(Kit::limits("30.0"))) ==
        Lines{"set next_probe 30s",
              "emit limits_drifted: somebody changed the limits: active thread percentage: 100 % "
              "was set, the daemon says \"30.0\"; they are put right",
              "cancel configure_again", "run configure"});
  CHECK(kit.machine.drifted() == 1);
  CHECK_FALSE(kit.machine.limits_confirmed());
  CHECK(kit.give(kit.configured()) == Lines{"set next_probe 30s"});
  CHECK(kit.machine.limits_confirmed());
  CHECK(kit.machine.state() == State::ready);
}

TEST_CASE("a memory limit that appeared is drift too") {
  Kit kit;
  kit.make_ready();
  kit.due(Timer::next_probe);
  const auto lines = kit.give(Kit::probed(Kit::limits("100.0", {"5G"})));
  REQUIRE(lines.size() == 4);
  CHECK(lines[1] ==
        "emit limits_drifted: somebody changed the limits: pinned memory limit: no memory limit "
        "was set, the daemon says \"5G\"; they are put right");
}

TEST_CASE("a running server's own limits are watched too") {
  Kit kit;
  kit.make_busy();
  kit.due(Timer::next_probe);
  const auto lines =
      kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900"}, Kit::limits("100.0", {"1G"})));
  REQUIRE(lines.size() == 5);
  CHECK(lines[1] ==
        "emit limits_drifted: somebody changed the limits: server 500: pinned memory limit: no "
        "memory limit was set, the daemon says \"1G\"; they are put right");
  CHECK(lines[2] == "emit client_connected: client 900 is served");
  CHECK(lines[4] == "run configure");
  kit.give(kit.configured(Kit::limits(), {"500"}, Lines{"900"}));
  CHECK(kit.machine.limits_confirmed());
}

TEST_CASE("drift that setting does not cure is news once") {
  Kit kit;
  kit.make_ready();
  unsigned said = 0;
  for (int i = 0; i < 5; ++i) {
    kit.due(Timer::next_probe);
    for (const auto& line : kit.give(Kit::probed(Kit::limits("30.0")))) {
      if (line.starts_with("emit limits_drifted")) ++said;
    }
    kit.give(kit.configured(Kit::limits("30.0")));
  }
  CHECK(said == 1);
  CHECK_FALSE(kit.machine.limits_confirmed());
}

TEST_CASE("a front-end that cannot be run says nothing about the daemon") {
  Kit kit;
  kit.make_ready();
  for (int i = 0; i < 10; ++i) {
    kit.due(Timer::next_probe);
    kit.give(ProbeDone{control::Absent{"exec /x: No such file or directory", true}});
  }
  CHECK(kit.machine.state() == State::ready);
  CHECK(kit.machine.channel().state == ChannelState::unanswered);
  CHECK(kit.machine.last_error() == "exec /x: No such file or directory");
}

TEST_CASE("a server that the log did not tell of is corrected by the list") {
  Kit kit;
  kit.make_busy();
  kit.give(ServerEnded{500});
  kit.due(Timer::next_probe);
  kit.give(Kit::probed(Kit::limits(), {"501"}, Lines{}));
  CHECK(kit.machine.server()->pid == 501);
  CHECK(kit.machine.server()->status == ServerStatus::active);
}

TEST_CASE("answers that do not match the questions are no answers") {
  Kit kit;
  kit.make_ready();
  kit.due(Timer::next_probe);
  CHECK(kit.give(ProbeDone{control::Answered{}}) ==
        Lines{"set next_probe 1s",
              "emit channel_unanswered: the answers do not match the questions"});
}

TEST_CASE("a held session makes the channel busy, by name, and nothing is restarted") {
  Kit kit;
  kit.make_ready();
  for (int i = 0; i < 10; ++i) {
    kit.due(Timer::next_probe);
    const auto lines = kit.give(ProbeDone{control::Busy{4711, "bash"}});
    if (i == 0) {
      CHECK(lines ==
            Lines{"set next_probe 1s",
                  "emit channel_busy: the one command session is held by pid 4711 (bash)"});
    } else {
      CHECK(lines == Lines{"set next_probe 1s"});
    }
    CHECK(kit.machine.state() == State::ready);
  }
  CHECK(kit.machine.channel().holder == 4711);
  kit.due(Timer::next_probe);
  CHECK(kit.give(Kit::probed()) ==
        Lines{"emit channel_ok: commands are answered again", "set next_probe 30s"});
  CHECK(kit.machine.last_error().empty());
}

TEST_CASE("a silent peer blocks the channel, by name, and nothing is restarted") {
  Kit kit;
  kit.make_ready();
  for (int i = 0; i < 10; ++i) {
    kit.due(Timer::next_probe);
    kit.give(ProbeDone{control::Blocked{4712, "nc"}});
    CHECK(kit.machine.state() == State::ready);
  }
  CHECK(kit.machine.channel().state == ChannelState::blocked);
  CHECK(kit.machine.channel().detail ==
        "the control daemon waits for a connection that says nothing, of pid 4712 (nc)");
  kit.due(Timer::next_probe);
  kit.give(ProbeDone{control::Blocked{std::nullopt, ""}});
  CHECK(kit.machine.channel().detail ==
        "the control daemon waits for a connection that says nothing, of a process that cannot be "
        "seen from here");
}

TEST_CASE("the holder is ended where the settings say so") {
  MachineSettings settings;
  settings.end_channel_holder = true;
  Kit kit(settings);
  kit.make_ready();
  const auto found = [&kit](const control::Outcome& outcome) {
    kit.due(Timer::next_probe);
    return kit.give(ProbeDone{outcome}).back();
  };
  const control::Busy busy{4711, "bash"};
  SUBCASE("when it is found once more") {
    CHECK_FALSE(found(busy).starts_with("signal-holder"));
    CHECK(found(busy) == "signal-holder 4711 15");
    CHECK(found(control::Blocked{4711, "bash"}) == "signal-holder 4711 15");
  }
  SUBCASE("also where two take turns") {
    CHECK_FALSE(found(busy).starts_with("signal-holder"));
    CHECK(found(control::Blocked{4712, "bash"}) == "signal-holder 4712 15");
    CHECK(found(busy) == "signal-holder 4711 15");
  }
  SUBCASE("not when commands were answered in between") {
    CHECK_FALSE(found(busy).starts_with("signal-holder"));
    kit.due(Timer::next_probe);
    kit.give(Kit::probed());
    CHECK_FALSE(found(busy).starts_with("signal-holder"));
  }
  SUBCASE("unless it has turned out to be a client") {
    CHECK_FALSE(found(busy).starts_with("signal-holder"));
    kit.line("NEW CLIENT 4711 from user 1000: Server is not ready, push client to pending list");
    CHECK_FALSE(found(busy).starts_with("signal-holder"));
  }
}

TEST_CASE("a stopped daemon without clients is replaced after three probes in a row") {
  Kit kit;
  kit.make_ready();
  kit.due(Timer::next_probe);
  CHECK(kit.give(ProbeDone{control::Stopped{}}) ==
        Lines{"set next_probe 1s",
              "emit channel_blocked: the control daemon is stopped (state T in /proc)"});
  kit.due(Timer::next_probe);
  CHECK(kit.give(ProbeDone{control::Stopped{}}) == Lines{"set next_probe 1s"});
  kit.due(Timer::next_probe);
  const std::string wedged =
      "emit wedged: no answer 3 times in a row: the control daemon is stopped (state T in /proc); "
      "no "
      "clients run, it is replaced";
  CHECK(kit.give(ProbeDone{control::Stopped{}}) ==
        Lines{"set next_probe 1s", wedged, "cancel configure_again", "cancel start_deadline",
              "cancel next_probe", "close-door", "signal-daemon 15", "signal-daemon 18",
              "set stop_rung 2s"});
  CHECK(kit.machine.state() == State::recovering);
}

TEST_CASE("an answer in between starts the count again") {
  Kit kit;
  kit.make_ready();
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 2; ++i) {
      kit.due(Timer::next_probe);
      kit.give(ProbeDone{control::Unanswered{"no answer within 3s"}});
    }
    kit.due(Timer::next_probe);
    kit.give(Kit::probed());
    CHECK(kit.machine.state() == State::ready);
  }
}

TEST_CASE("a daemon with clients is left alone, however long it does not answer") {
  Kit kit;
  kit.make_busy();
  unsigned wedged = 0;
  for (int i = 0; i < 20; ++i) {
    kit.due(Timer::next_probe);
    for (const auto& line : kit.give(ProbeDone{control::Unanswered{"no answer within 3s"}})) {
      if (line ==
          "emit wedged: no answer 3 times in a row: no answer within 3s; it is left alone, since 1 "
          "clients run (`mps-ctl restart gpu0.shared --force` ends them)") {
        ++wedged;
      }
      CHECK_FALSE(line.starts_with("signal"));
    }
  }
  CHECK(wedged == 1);
  CHECK(kit.machine.state() == State::ready);
  // With its last client gone, the next missing answer is enough.
  kit.give(ClientEnded{900});
  kit.due(Timer::next_probe);
  kit.give(ProbeDone{control::Unanswered{"no answer within 3s"}});
  CHECK(kit.machine.state() == State::recovering);
}

TEST_CASE("a channel held while starting keeps the start waiting, and is named") {
  Kit kit;
  kit.give(StartWanted{});
  kit.give(DaemonSpawned{100});
  kit.due(Timer::configure_again);
  kit.give(ConfigureDone{control::Busy{4711, "bash"}});
  CHECK(kit.machine.channel().state == ChannelState::busy);
  CHECK(kit.due(Timer::start_deadline) == Lines{"set start_deadline 10s"});
  kit.due(Timer::configure_again);
  kit.give(kit.configured());
  CHECK(kit.machine.state() == State::ready);
  CHECK(kit.machine.channel().state == ChannelState::ok);
}

TEST_CASE("a connection that was accepted and says nothing is looked into after a second") {
  Kit kit;
  kit.make_ready();
  CHECK(kit.line("Accepting connection...") == Lines{"set accept_stuck 1s"});
  SUBCASE("it goes on") {
    CHECK(kit.line("NEW UI").empty());
    CHECK(kit.due(Timer::accept_stuck).empty());
  }
  SUBCASE("it does not") {
    CHECK(kit.due(Timer::accept_stuck) == Lines{"cancel next_probe", "run probe"});
  }
  SUBCASE("one timer is enough for many") {
    kit.line("NEW UI");
    CHECK(kit.line("Accepting connection...").empty());
  }
}

TEST_CASE("a server seen in the list is watched, and its clients are asked for next") {
  Kit kit;
  kit.make_ready();
  kit.due(Timer::next_probe);
  CHECK(kit.give(Kit::probed(Kit::limits(), {"500"})) ==
        Lines{"set next_probe 30s", "watch-server 500", "set next_probe 0s"});
  kit.due(Timer::next_probe);
  CHECK(kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900"})) ==
        Lines{"set next_probe 30s", "emit client_connected: client 900 is served",
              "watch-client 900"});
  CHECK(kit.machine.running_clients() == 1);
}
