#include "fault/tracker.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "fault/tracker_kit.h"

using namespace mps::fault;
using namespace mps::fault::test;

namespace {

const FatalFaultLogged k_line{41};
const ServerStatusSeen k_fault_status;
const ServerEnded k_server_ended{41, "was killed by signal 9 (SIGKILL)"};
const DaemonEnded k_daemon_ended{"exited with status 1"};

}  // namespace

TEST_CASE("a fault from its first sign to serving again") {
  Watched watched;
  watched.clients({7, 8, 9})
      .on(k_line, 0)
      .on(CulpritNamed{8}, 1)
      .on(StickyClients{{7, 8, 9}}, 2)
      .on(XidReported{31}, 30)
      .on(XidReported{45}, 31)
      .on(StepTaken{"close the door", "done"}, 40)
      .on(StepTaken{"terminate_client 7", "answered"}, 60)
      .on(ClientWent{7, 70}, 80)
      .on(ContextRecreated{}, 90)
      .on(Serving{}, 100);
  CHECK(watched.story == "opened f1, attributed f1, closed f1");
  const auto& one = watched.one();
  CHECK(one.kind == Kind::app_fault);
  CHECK(one.noticed == at(0));
  CHECK(one.attributed == at(1));
  CHECK(one.serving == at(100));
  CHECK(one.end == End::serving);
  CHECK(one.faults == 1);
  CHECK(one.rounds == 1);
  CHECK(one.attribution == Attribution::named);
  CHECK(pids(one.culprits) == Pids{8});
  CHECK(one.culprits.front().client == client(8));
  CHECK(pids(one.victims) == Pids{7, 9});
  CHECK(one.victim_count == 2);
  CHECK(one.suspects.empty());
  CHECK(one.unattributed_rounds == 0);
  REQUIRE(one.xids.size() == 2);
  CHECK(one.xids[0] == XidSeen{31, 1, at(30)});
  CHECK(one.needs == Consequence::client_fault);
  REQUIRE(one.steps.size() == 2);
  CHECK(one.steps[1] == Step{at(60), "terminate_client 7", "answered", 1});
  CHECK(one.signals.size() == 7);
  CHECK(one.signals[0] == Note{at(0), "fatal_fault", "server 41 handles a fatal GPU error"});
  CHECK(one.signals.back() == Note{at(100), "serving", "newcomers are let in again"});
  CHECK(summary(one) == "a client's fault by pid 8 (train) of team-a, pod web-8");
}

TEST_CASE("one fault is one incident, whichever sign came first") {
  const std::vector<Signal> signs{k_line,          CulpritNamed{8}, StickyClients{{7, 8}},
                                  XidReported{31}, XidReported{45}, k_fault_status};
  std::vector<std::size_t> order{0, 1, 2, 3, 4, 5};
  do {
    Watched watched;
    watched.clients({7, 8});
    for (std::size_t i = 0; i < order.size(); ++i) {
      watched.on(signs[order[i]], static_cast<int>(i) * 300);
    }
    watched.on(Serving{}, 4000);
    const auto& one = watched.one();
    CHECK(watched.incidents.size() == 1);
    CHECK(one.kind == Kind::app_fault);
    CHECK(one.faults == 1);
    CHECK(one.rounds == 1);
    CHECK(pids(one.culprits) == Pids{8});
    CHECK(pids(one.victims) == Pids{7});
    CHECK(one.xids.size() == 2);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("which signals open an incident, and of which kind") {
  struct Case {
    Signal signal;
    std::optional<Kind> kind;
  };
  const std::vector<Case> cases{
      {k_line, Kind::app_fault},
      {CulpritNamed{7}, Kind::app_fault},
      {StickyClients{{7}}, Kind::app_fault},
      {k_fault_status, Kind::app_fault},
      {XidReported{13}, Kind::app_fault},
      {XidReported{94}, Kind::app_fault},
      {XidReported{95}, Kind::device_trouble},
      {XidReported{79}, Kind::device_trouble},
      {ActionReported{RecoveryAction::gpu_reset}, Kind::device_trouble},
      {k_server_ended, Kind::server_died},
      {k_daemon_ended, Kind::daemon_died},
      {Wedged{"no answer"}, Kind::wedged},
      {StartFailed{"no device"}, Kind::start_failure},
      {XidReported{43}, {}},
      {XidReported{45}, {}},
      {XidReported{63}, {}},
      {XidReported{999}, {}},
      {ActionReported{RecoveryAction::none}, {}},
      {ActionReported{RecoveryAction::unknown}, {}},
      {ClientStatusSeen{7, false}, {}},
      {ClientStatusSeen{7, true}, {}},
      {ContextRecreated{}, {}},
      {ServerEnded{41, "exited", true}, {}},
      {DaemonEnded{"exited", true}, {}},
      {StepTaken{"quit", "done"}, {}},
      {Serving{}, {}},
      {GivenUp{"budget spent"}, {}},
      {ClientWent{7, 70}, {}},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    Watched watched;
    watched.clients({7, 8}).on(cases[i].signal, 0);
    CHECK((watched.tracker.open() != nullptr) == cases[i].kind.has_value());
    if (cases[i].kind && watched.tracker.open() != nullptr) {
      CHECK(watched.tracker.open()->kind == *cases[i].kind);
    }
  }
}

TEST_CASE("a death within two seconds of a fault is the same incident, in either order") {
  for (const bool daemon : {false, true}) {
    const Signal death = daemon ? Signal(k_daemon_ended) : Signal(k_server_ended);
    const auto kind = daemon ? Kind::daemon_died : Kind::server_died;
    for (const bool death_first : {false, true}) {
      CAPTURE(daemon);
      CAPTURE(death_first);
      Watched watched;
      watched.clients({7, 8});
      watched.on(death_first ? death : Signal(k_line), 0)
          .on(death_first ? Signal(k_line) : death, 2000)
          .on(Serving{}, 3000);
      const auto& one = watched.one();
      CHECK(watched.story == "opened f1, closed f1");
      CHECK(one.kind == Kind::app_fault);
      REQUIRE(one.consequences.size() == 1);
      CHECK(one.consequences[0].kind == kind);
      CHECK(one.consequences[0].at == at(death_first ? 0 : 2000));
      CHECK(one.faults == 1);
      CHECK(one.attribution == Attribution::one_of);
      CHECK(one.cause == "");
    }
  }
  Watched later;
  later.on(k_server_ended, 0).on(k_line, 2001);
  CHECK(later.incidents.size() == 1);
  CHECK(later.one().kind == Kind::server_died);
  CHECK(later.one().faults == 1);
  CHECK(later.one().cause == "was killed by signal 9 (SIGKILL)");
}

TEST_CASE("a death right after serving again is the same incident still, a later one another") {
  Watched watched;
  watched.on(k_line, 0).on(Serving{}, 500).on(k_server_ended, 1500).on(Serving{}, 1800);
  CHECK(watched.story == "opened f1, closed f1, closed f1");
  CHECK(watched.one().serving == at(1800));
  Watched later;
  later.on(k_line, 0).on(Serving{}, 500).on(k_server_ended, 2001);
  CHECK(later.story == "opened f1, closed f1, opened f2");
}

TEST_CASE("a server and its daemon that die together") {
  Watched watched;
  watched.clients({7}).on(k_server_ended, 0).on(k_daemon_ended, 1).on(Serving{}, 100);
  CHECK(watched.one().kind == Kind::server_died);
  REQUIRE(watched.one().consequences.size() == 1);
  CHECK(watched.one().consequences[0] ==
        Aftermath{Kind::daemon_died, at(1), "exited with status 1"});
  CHECK(watched.one().attribution == Attribution::none);
  CHECK(pids(watched.one().victims) == Pids{7});
  Watched other;
  other.on(k_daemon_ended, 0).on(k_server_ended, 1).on(Serving{}, 100);
  CHECK(other.incidents.size() == 1);
  CHECK(other.one().kind == Kind::daemon_died);
  CHECK(other.one().consequences.empty());
}

TEST_CASE("an Xid within five seconds of a fault belongs to it") {
  Watched before;
  before.on(XidReported{45}, 0).on(k_line, 5000).on(Serving{}, 6000);
  REQUIRE(before.one().xids.size() == 1);
  CHECK(before.one().xids[0].number == 45);
  CHECK(before.one().signals[0].kind == "xid");
  Watched long_before;
  long_before.on(XidReported{45}, 0).on(k_line, 5001);
  CHECK(long_before.one().xids.empty());
  Watched after;
  after.on(k_line, 0).on(Serving{}, 100).on(XidReported{31}, 5000);
  CHECK(after.incidents.size() == 1);
  CHECK(after.one().xids.size() == 1);
  CHECK(after.one().end == End::serving);
  Watched long_after;
  long_after.on(k_line, 0).on(Serving{}, 100).on(XidReported{31}, 5001);
  CHECK(long_after.story == "opened f1, closed f1, opened f2");
}

TEST_CASE("an Xid that MPS shows no sign of was somebody else's") {
  Watched watched;
  watched.clients({7}).on(XidReported{31}, 0);
  CHECK(watched.tracker.deadline() == at(5000));
  CHECK(watched.one().attribution == Attribution::none);
  watched.tick(5000);
  CHECK(watched.tracker.open() != nullptr);
  watched.tick(5001);
  CHECK(watched.story == "opened f1, closed f1");
  CHECK(watched.one().end == End::unconfirmed);
  CHECK(watched.one().culprits.empty());
  CHECK(summary(watched.one()) == "a client's fault; MPS went on serving, so it was no client's");
  Watched confirmed;
  confirmed.clients({7}).on(XidReported{31}, 0).on(k_line, 300);
  CHECK_FALSE(confirmed.tracker.deadline());
  CHECK(confirmed.story == "opened f1, attributed f1");
}

TEST_CASE("a clock that is set back keeps no incident open") {
  const struct {
    int now;
    bool is_over;
  } cases[] = {{60000, false}, {59999, false}, {55000, false}, {54999, true},
               {0, true},      {65000, false}, {65001, true}};
  for (const auto& row : cases) {
    CAPTURE(row.now);
    Watched watched;
    watched.clients({7}).on(XidReported{31}, 60000).tick(row.now);
    CHECK((watched.tracker.open() == nullptr) == row.is_over);
  }
  // Of one that MPS shows signs of it is no reason.
  Watched confirmed;
  confirmed.clients({7}).on(k_line, 60000).tick(0);
  CHECK(confirmed.tracker.open() != nullptr);
}

TEST_CASE("a device in trouble") {
  Watched together;
  together.clients({7}).on(k_line, 0).on(CulpritNamed{7}, 1).on(XidReported{95}, 5000);
  CHECK(together.one().kind == Kind::device_trouble);
  CHECK(together.one().needs == Consequence::out_until_reset);
  CHECK(together.one().hardware);
  Watched other_order;
  other_order.clients({7}).on(XidReported{95}, 0).on(k_line, 1).on(CulpritNamed{7}, 2);
  CHECK(other_order.incidents.size() == 1);
  CHECK(other_order.one().kind == Kind::device_trouble);
  CHECK(other_order.one().hardware);
  CHECK(
      summary(other_order.one()) ==
      "the device is in trouble, with a client's fault by pid 7 (train) of team-a, pod web-7; the "
      "driver blames the device");
  Watched later;
  later.on(k_line, 0).on(XidReported{79}, 5001);
  CHECK(later.one().kind == Kind::app_fault);
  REQUIRE(later.one().consequences.size() == 1);
  CHECK(later.one().consequences[0].kind == Kind::device_trouble);
  CHECK(later.one().needs == Consequence::out_until_reboot);
}

TEST_CASE("the recovery action counts, where it knows of the Xid") {
  Watched harmless;
  harmless.on(ActionReported{RecoveryAction::none}, 0).on(XidReported{95}, 1000);
  CHECK(harmless.one().kind == Kind::app_fault);
  CHECK(harmless.one().needs == Consequence::client_fault);
  Watched stale;
  stale.on(ActionReported{RecoveryAction::none}, 0).on(XidReported{95}, 6000);
  CHECK(stale.one().kind == Kind::device_trouble);
  stale.on(ActionReported{RecoveryAction::none}, 7000);
  CHECK(stale.one().needs == Consequence::client_fault);
  CHECK(stale.one().action == RecoveryAction::none);
  Watched worse;
  worse.on(k_line, 0).on(XidReported{109}, 10).on(ActionReported{RecoveryAction::gpu_reset}, 20);
  CHECK(worse.one().kind == Kind::device_trouble);
  CHECK(worse.one().needs == Consequence::out_until_reset);
  CHECK_FALSE(worse.one().hardware);
}

TEST_CASE("a fault while another is recovered from is another round") {
  Watched watched;
  watched.clients({7, 8})
      .on(k_line, 0)
      .on(CulpritNamed{7}, 1)
      .on(StepTaken{"terminate_client 8", "answered"}, 50)
      .on(k_line, 100)
      .on(CulpritNamed{8}, 101)
      .on(Serving{}, 300);
  CHECK(watched.story == "opened f1, attributed f1, attributed f1, closed f1");
  const auto& one = watched.one();
  CHECK(one.rounds == 2);
  CHECK(one.faults == 2);
  CHECK(pids(one.culprits) == Pids{7, 8});
  CHECK(one.culprits[1].round == 2);
  CHECK(one.victims.empty());
  CHECK(one.attributed == at(1));
}

TEST_CASE("the driver's late word for a fault accuses nobody who came behind it") {
  Watched watched;
  watched.clients({7, 8})
      .on(k_line, 0)
      .on(ClientWent{7, 70}, 1000)
      .on(ClientWent{8, 80}, 1000)
      .on(ContextRecreated{}, 1500)
      .on(ClientCame{client(9, 3000)}, 3000);
  SUBCASE("of which MPS has told") {
    watched.on(XidReported{31}, 6000).on(Serving{}, 6100);
    CHECK(watched.one().rounds == 1);
    CHECK(watched.one().attribution == Attribution::one_of);
    CHECK(pids(watched.one().suspects) == Pids{7, 8});
    CHECK(watched.one().culprits.empty());
  }
  SUBCASE("but its fault is its fault, where MPS tells of that") {
    watched.on(XidReported{31}, 6000).on(CulpritNamed{9}, 6001).on(Serving{}, 6100);
    CHECK(watched.one().rounds == 2);
    CHECK(pids(watched.one().culprits) == Pids{9});
  }
}

TEST_CASE("the line of a fault whose recovery an Xid has begun is no other round") {
  Watched watched;
  watched.clients({7})
      .on(XidReported{31}, 0)
      .on(StepTaken{"close the door", "done"}, 5)
      .on(k_line, 100)
      .on(CulpritNamed{7}, 101)
      .on(k_fault_status, 8000)
      .on(k_fault_status, 20000);
  CHECK(watched.one().rounds == 1);
  CHECK(watched.one().faults == 1);
}

TEST_CASE("ten faults in a second are as few incidents as there were recoveries") {
  Watched watched;
  watched.clients({7, 8, 9});
  for (int i = 0; i < 10; ++i) {
    watched.on(k_line, i * 100).on(CulpritNamed{7 + i % 3}, i * 100 + 1);
    if (i == 4) watched.on(Serving{}, 450);
  }
  watched.on(Serving{}, 1000);
  CHECK(watched.story ==
        "opened f1, attributed f1, attributed f1, attributed f1, closed f1, "
        "opened f2, attributed f2, attributed f2, attributed f2, closed f2");
  CHECK(watched.incidents.at(1).faults == 5);
  CHECK(watched.incidents.at(2).faults == 5);
  CHECK(summary(watched.incidents.at(1)).starts_with("5 faults of clients by "));
}

TEST_CASE("who did it") {
  struct Case {
    std::vector<pid_t> clients;
    std::vector<Signal> signals;
    Attribution by;
    Pids culprits;
    Pids suspects;
  };
  const std::vector<Case> cases{
      {{7, 8}, {k_line, CulpritNamed{8}}, Attribution::named, {8}, {}},
      {{7}, {k_line}, Attribution::only_client, {7}, {}},
      {{7, 8}, {k_line}, Attribution::one_of, {}, {7, 8}},
      {{}, {k_line}, Attribution::nobody, {}, {}},
      {{7}, {k_line, CulpritNamed{99}}, Attribution::not_a_client, {}, {7}},
      {{7, 8}, {k_line, CulpritNamed{99}, CulpritNamed{8}}, Attribution::named, {8}, {}},
      {{7, 8}, {k_line, CulpritNamed{0}}, Attribution::one_of, {}, {7, 8}},
      {{7, 8}, {k_line, CulpritNamed{8}, CulpritNamed{7}}, Attribution::named, {8, 7}, {}},
      // One of whom nothing is known was there too.
      {{7}, {k_line, StickyClients{{7, 99}}}, Attribution::one_of, {}, {7, 99}},
      {{7}, {k_line, StickyClients{{7}}}, Attribution::only_client, {7}, {}},
      {{7}, {k_line, ClientStatusSeen{99, false}}, Attribution::one_of, {}, {7, 99}},
      // A probe may find it when whoever did it has long gone.
      {{7}, {k_fault_status}, Attribution::one_of, {}, {7}},
      // It has just ended; nobody gives that client for the other one.
      {{7, 8}, {ClientWent{7, 70}, k_line}, Attribution::one_of, {}, {8, 7}},
      {{7, 8}, {ClientWent{7, 70}, k_line, CulpritNamed{7}}, Attribution::named, {7}, {}},
      // It came before, and is heard of now.
      {{7}, {k_line, ClientCame{client(8, -5)}}, Attribution::one_of, {}, {7, 8}},
      {{7}, {k_line, ClientCame{client(8, 5)}}, Attribution::only_client, {7}, {}},
      {{7}, {k_server_ended}, Attribution::none, {}, {}},
      {{7}, {Wedged{"x"}}, Attribution::none, {}, {}},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    Watched watched;
    watched.clients(cases[i].clients);
    int when = 0;
    for (const auto& signal : cases[i].signals) watched.on(signal, when++);
    REQUIRE(watched.tracker.open() != nullptr);
    const auto& one = *watched.tracker.open();
    CHECK(one.attribution == cases[i].by);
    CHECK(pids(one.culprits) == cases[i].culprits);
    CHECK(pids(one.suspects) == cases[i].suspects);
    CHECK(one.suspect_count == cases[i].suspects.size());
    CHECK(one.attributed.has_value() == !cases[i].culprits.empty());
  }
}

TEST_CASE("one who went long ago is named, and one who went longer ago is a stranger") {
  Watched soon;
  soon.clients({7, 8}).on(ClientWent{7, 70}, 0).on(k_line, 9999).on(CulpritNamed{7}, 10000);
  CHECK(pids(soon.one().culprits) == Pids{7});
  Watched late;
  late.clients({7, 8}).on(ClientWent{7, 70}, 0).on(k_line, 9999).on(CulpritNamed{7}, 10001);
  CHECK(late.one().strangers == Pids{7});
  CHECK(summary(late.one()) == "a client's fault by pid 7, which is no client that we know of");
}

TEST_CASE("a culprit's line that comes late") {
  Watched watched;
  watched.clients({7, 8}).on(k_line, 0).on(Serving{}, 100).on(CulpritNamed{8}, 200);
  CHECK(watched.story == "opened f1, closed f1, attributed f1");
  CHECK(pids(watched.one().culprits) == Pids{8});
}

TEST_CASE("start failures are one incident, however often it is tried") {
  Watched watched;
  for (int i = 0; i < 100; ++i) watched.on(StartFailed{"no device is detected"}, i * 30);
  watched.on(Serving{}, 4000);
  CHECK(watched.story == "opened f1, closed f1");
  CHECK(watched.one().signals.size() == k_signal_limit);
  CHECK(watched.one().signals_left_out == 101 - k_signal_limit);
  CHECK(summary(watched.one()) == "the MPS server does not start: no device is detected");
}

TEST_CASE("given up") {
  Watched watched;
  watched.on(Wedged{"3 times"}, 0)
      .on(k_daemon_ended, 9000)
      .on(GivenUp{"the budget is spent"}, 9500);
  CHECK(watched.one().end == End::given_up);
  CHECK(watched.one().closed == at(9500));
  CHECK_FALSE(watched.one().serving);
  CHECK(watched.one().cause == "the budget is spent");
  CHECK(watched.one().consequences[0].kind == Kind::daemon_died);
}

TEST_CASE("what an earlier supervisor left open goes on") {
  Watched before;
  before.clients({7, 8}).on(k_line, 0).on(StepTaken{"close the door", "done"}, 10);
  Watched after;
  after.number = 1;
  after.tracker.restore(before.one());
  after.clients({8}).on(k_fault_status, 3000);
  CHECK(after.incidents.empty());
  CHECK(after.tracker.open()->attribution == Attribution::one_of);
  CHECK(pids(after.tracker.open()->suspects) == Pids{7, 8});
  after.on(CulpritNamed{8}, 3100);
  CHECK(after.one().attribution == Attribution::named);
  CHECK(pids(after.one().culprits) == Pids{8});
  CHECK(after.one().suspects.empty());
  CHECK(after.one().unattributed_rounds == 0);
  after.on(k_line, 9000).on(Serving{}, 9100);
  // In the second round it was the only one.
  CHECK(after.story == "attributed f1, attributed f1, closed f1");
  CHECK(after.one().rounds == 2);
  CHECK(after.one().faults == 2);
  CHECK(pids(after.one().culprits) == Pids{8, 8});
}

TEST_CASE("one that only the driver spoke of ends over a restart, too") {
  Watched before;
  before.clients({7}).on(XidReported{31}, 0);
  Watched after;
  after.tracker.restore(before.one());
  after.clients({7}).tick(60000);
  CHECK(after.story == "closed f1");
  CHECK(after.one().end == End::unconfirmed);
  CHECK(after.one().culprits.empty());
}

TEST_CASE("lists are bounded, and counted") {
  Watched watched;
  std::vector<pid_t> all;
  for (pid_t pid = 1; pid <= 100; ++pid) all.push_back(pid);
  watched.clients(all).on(k_line, 0);
  CHECK(watched.one().suspects.size() == k_people_limit);
  CHECK(watched.one().suspect_count == 100);
  CHECK(watched.one().victims.size() == k_people_limit);
  CHECK(watched.one().victim_count == 100);
  CHECK(summary(watched.one()) == "a client's fault by one of 100 clients, and nobody knows which");
  for (int i = 0; i < 200; ++i) watched.on(StepTaken{"wait", "still there"}, i);
  watched.on(Serving{}, 300);
  CHECK(watched.one().steps.size() == k_step_limit);
  CHECK(watched.one().steps_left_out == 200 - k_step_limit);
}
