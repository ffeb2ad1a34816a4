#include "share/ledger.h"

#include <doctest/doctest.h>

#include "share/ledger_test_kit.h"

using namespace mps;
using namespace mps::share;
using namespace std::chrono_literals;
using Lines = Kit::Lines;

TEST_CASE("who is at its quota waits without being in others' way") {
  Kit kit;
  const auto one = Kit::clients(1);
  CHECK(kit.ask(with(kit.make(1), {}, one)) == Lines{"1 in slot 1"});
  kit.ask(with(kit.make(2), {}, one));
  CHECK(kit.ask(with(kit.make(3, "team-b"), {}, one)) == Lines{"3 in slot 2"});
  CHECK(kit.end(2).empty());
  CHECK(kit.end(1) == Lines{"2 in slot 3"});
}

TEST_CASE("nobody passes others of the same namespace") {
  Kit kit;
  kit.ask(with(kit.make(1), {100, 60 * 1024}));
  kit.ask(with(kit.make(2), {100, 60 * 1024}));
  const std::string why =
      "device_memory: others of team-a wait before this one on gpu0.shared; the first: gpu0 has "
      "granted 60Gi of 100Gi of memory, and this client needs 60Gi";
  CHECK(kit.ask(3) == Lines{"3 waits " + why});
  auto impatient = kit.make(4);
  impatient.may_wait = false;
  CHECK(kit.ask(impatient) == Lines{"4 refused " + why});
  CHECK(kit.ledger.waiting(9).at(1).why.sentence ==
        why.substr(std::string("device_memory: ").size()));
  CHECK(kit.ask(5, "team-b") == Lines{"5 in slot 2"});
  CHECK(kit.lines(kit.ledger.peer_gone(2, kit.now)) == Lines{"3 in slot 3"});
}

TEST_CASE("a process gets its slot again for each connection, up to a bound") {
  LedgerSettings settings;
  settings.bounds.connections_of_slot = 3;
  Kit kit(settings);
  auto again = [&kit](RequestId id) {
    auto request = kit.make(id);
    request.process = kit.make(1).process;
    return with(request, {10, 5}, Kit::clients(1));
  };
  CHECK(kit.ask(again(1)) == Lines{"1 in slot 1"});
  CHECK(kit.ask(again(2)) == Lines{"2 again slot 1"});
  kit.door(Closed{draining("gpu0.shared"), true});
  CHECK(kit.ask(again(3)) == Lines{"3 again slot 1"});
  CHECK(kit.ask(again(4)) ==
        Lines{"4 refused device_clients: process 101 has 3 of 3 connections to gpu0.shared"});
  CHECK(kit.ask(5).at(0).starts_with("5 refused draining"));
  kit.ledger.connection_closed(1);
  kit.door(Closed{draining("gpu0.shared")});
  CHECK(kit.ask(again(6)).at(0).starts_with("6 refused draining"));
  kit.door(NotReady{"recovering"});
  CHECK(kit.ask(again(7)).at(0).starts_with("7 waits not_ready"));
  CHECK(kit.ask(8).at(0).starts_with("8 waits not_ready"));
  CHECK(kit.door(Serving{}) == Lines{"7 again slot 1", "8 in slot 2"});
  CHECK(kit.ledger.slots(9).at(0).connections == 3);
  kit.end(1);
  CHECK(kit.ask(again(9)).at(0) == "9 waits quota_clients: team-a has 1 of 1 clients on gpu0");
}

TEST_CASE("connections of one process that wait come in together") {
  Kit kit;
  kit.door(NotReady{"starting"});
  auto second = with(kit.make(3), {}, Kit::clients(1));
  second.process = kit.make(1).process;
  kit.ask(with(kit.make(1), {}, Kit::clients(1)));
  kit.ask(with(kit.make(2), {}, Kit::clients(1)));
  kit.ask(second);
  CHECK(kit.door(Serving{}) == Lines{"1 in slot 1", "3 again slot 1"});
  CHECK(kit.ledger.waiting_count() == 1);
}

TEST_CASE("whose a process is, and which are a container's") {
  Kit kit;
  auto second = kit.make(2, "team-b");
  auto third = kit.make(3);
  third.container = "c1";
  kit.ask(1);
  kit.ask(second);
  kit.ask(third);
  CHECK(kit.ledger.processes_of("open", "c1", 8) ==
        std::vector{kit.make(1).process, third.process});
  CHECK(kit.ledger.processes_of("open", "c1", 1) == std::vector{kit.make(1).process});
  CHECK(kit.ledger.processes_of("open", "c9", 8).empty());
  CHECK(kit.ledger.processes_of("s1", "c1", 8).empty());
  CHECK(kit.ledger.admission_of(second.process).value().subject == "team-b");
  CHECK_FALSE(kit.ledger.admission_of({second.process.pid, 8}));
  (void)kit.ledger.adopt("gpu0.shared", {900, 7}, 0);
  CHECK_FALSE(kit.ledger.admission_of({900, 7}));
}

TEST_CASE("another share is another slot") {
  Kit kit;
  auto other = kit.make(2);
  other.process = kit.make(1).process;
  other.share = "s1";
  kit.ask(1);
  CHECK(kit.ask(other) == Lines{"2 in slot 2"});
  CHECK(kit.ledger.slots_of_share("s1") == std::vector<SlotId>{2});
  CHECK(kit.ledger.processes_of("s1", "c2", 8) == std::vector{other.process});
  CHECK(kit.ledger.slot_of("gpu0.shared", other.process) == SlotId{1});
  CHECK_FALSE(kit.ledger.slot_of("gpu1.shared", other.process));
}

TEST_CASE("an admission ends with its last slot and its cgroup, whichever comes last") {
  Kit kit;
  auto second = kit.make(2);
  second.container = kit.make(1).container;
  second.cgroup = kit.make(1).cgroup;
  kit.ask(1);
  kit.ask(second);
  CHECK(kit.ledger.admissions(9).at(0).slots == 2);
  kit.lines(kit.ledger.cgroup_empty(1));
  kit.end(1);
  CHECK(kit.ledger.admissions(9).size() == 1);
  kit.end(2);
  CHECK(kit.ledger.admissions(9).empty());
  kit.ask(3);
  kit.end(3);
  CHECK(kit.ledger.admissions(9).at(0).slots == 0);
  auto back = kit.make(4);
  back.container = kit.make(3).container;
  kit.ask(back);
  CHECK(kit.ledger.admissions(9).at(0).admission.id == 2);
  kit.end(4);
  kit.lines(kit.ledger.cgroup_empty(2));
  kit.lines(kit.ledger.cgroup_empty(2));
  CHECK(kit.ledger.admissions(9).empty());
}

TEST_CASE("who is let in after its cgroup was empty keeps the admission") {
  Kit kit;
  auto second = kit.make(2);
  second.container = kit.make(1).container;
  kit.ask(1);
  kit.lines(kit.ledger.cgroup_empty(1));
  kit.ask(second);
  kit.end(1);
  kit.end(2);
  CHECK(kit.ledger.admissions(9).size() == 1);
}

TEST_CASE("without a cgroup an admission ends with its last slot") {
  Kit kit;
  auto request = kit.make(1);
  request.cgroup.clear();
  kit.ask(request);
  kit.end(1);
  CHECK(kit.ledger.admissions(9).empty());
}

TEST_CASE("the bounds") {
  LedgerSettings settings;
  settings.bounds = {3, 2, 4, 3, 8};
  Kit kit(settings);
  kit.door(NotReady{"starting"});
  kit.ask(1);
  kit.ask(2);
  CHECK(kit.ask(3) == Lines{"3 refused too_many_waiting: team-a has 2 of 2 requests waiting"});
  kit.ask(4, "team-b");
  CHECK(kit.ask(5, "team-c") ==
        Lines{"5 refused too_many_waiting: this node has 3 of 3 requests waiting"});
  CHECK(kit.door(Serving{}) == Lines{"1 in slot 1", "4 in slot 2", "2 in slot 3"});
  CHECK(kit.ask(6) == Lines{"6 refused device_clients: this node has 3 of 3 admitted containers"});
  auto inside = kit.make(7);
  inside.container = kit.make(1).container;
  CHECK(kit.ask(inside) == Lines{"7 in slot 4"});
  inside.id = 8;
  inside.process.pid = 1;
  CHECK(kit.ask(inside) == Lines{"8 refused device_clients: this node has 4 of 4 clients"});
}

TEST_CASE("a deadline that has passed already is not waited for") {
  Kit kit;
  kit.door(NotReady{"starting"});
  auto late = kit.make(1);
  late.deadline = kit.now;
  CHECK(kit.ask(late) == Lines{"1 refused not_ready: gpu0.shared is not ready: it is starting"});
  CHECK_FALSE(kit.ledger.next_due());
  kit.ask(2);
  CHECK(kit.ledger.next_due() == kit.now + 60s);
}

TEST_CASE("an id that waits already is a mistake of ours") {
  Kit kit;
  kit.door(NotReady{"starting"});
  kit.ask(1);
  CHECK_THROWS_AS(kit.ask(1), std::logic_error);
}

TEST_CASE("a share is deleted, a policy changes, a container is quarantined") {
  Kit kit;
  kit.facts.max_clients = 1;
  kit.tell();
  kit.ask(1);
  auto shared = kit.make(2);
  shared.share = "s1";
  kit.ask(shared);
  kit.ask(with(kit.make(3, "team-b"), {}, Kit::clients(1)));
  kit.ask(4, "team-c");
  CHECK(kit.ledger.has_slot("open", kit.make(1).process));
  CHECK_FALSE(kit.ledger.has_slot("s1", kit.make(1).process));
  CHECK_FALSE(kit.ledger.has_slot("s1", kit.make(2).process));
  const std::vector<Revision> gone = {{2, share_deleted("s1")}};
  CHECK(kit.lines(kit.ledger.revise(gone, kit.now)) ==
        Lines{"2 refused share_deleted: share s1 was deleted"});
  const std::vector<Revision> revisions = {
      {3, Plan{{25, 512}, {}}}, {4, quarantined("team-c", 3, 60s)}, {99, Plan{}}};
  CHECK(kit.lines(kit.ledger.revise(revisions, kit.now)) ==
        Lines{"4 refused quarantined: team-c is kept out for another 1m, after 3 faults"});
  kit.end(1);
  CHECK(kit.ledger.slots(9).at(0).slot.grant == Grant{25, 512});
  CHECK(kit.ledger.namespaces().at(0).use == Use{1, 25, 25, 512});
}

TEST_CASE("larger limits let in who waits") {
  LedgerSettings settings;
  Kit kit(settings);
  kit.facts.max_clients = 2;
  kit.tell();
  kit.ask(with(kit.make(1), {90, {}}));
  kit.ask(with(kit.make(2), {90, {}}));
  kit.ask(with(kit.make(3), {90, {}}));
  kit.facts.max_clients = 3;
  CHECK(kit.tell().empty());
  settings.overcommit_threads = 3;
  CHECK(kit.lines(kit.ledger.settings_changed(settings, kit.now)) == Lines{"3 in slot 3"});
}

TEST_CASE("adopted clients count for the instance, and hold its uid") {
  Kit kit;
  kit.facts.max_clients = 2;
  kit.facts.single_uid = true;
  kit.tell();
  kit.lines(kit.ledger.adopt("gpu0.shared", {500, 7}, 1001));
  CHECK(kit.ask(1).at(0).starts_with("1 refused uid_conflict: gpu0.shared serves uid 1001"));
  kit.facts.single_uid = false;
  kit.tell();
  CHECK(kit.ask(2) == Lines{"2 in slot 2"});
  CHECK(kit.ask(3) == Lines{"3 waits device_clients: gpu0.shared has 2 of 2 clients"});
  CHECK(kit.ledger.adopt("gpu0.shared", {500, 7}, 1001).changes.empty());
  CHECK(kit.ledger.adopt("gpu9.shared", {501, 7}, 1001).changes.empty());
  CHECK(kit.ledger.namespaces().size() == 1);
  CHECK(kit.end(1) == Lines{"3 in slot 3"});
}

TEST_CASE("an adopted client that asks is explained") {
  Kit kit;
  kit.lines(kit.ledger.adopt("gpu0.shared", {101, 7}, 1000));
  CHECK(kit.ask(1) == Lines{"1 in slot 2"});
  CHECK(kit.ledger.slots(9).size() == 1);
  CHECK(kit.ledger.devices().at(0).use.clients == 1);
}

TEST_CASE("a new ledger goes on where the old one stopped") {
  Kit kit;
  kit.ask(with(kit.make(1), {25, 1024}));
  kit.ask(2, "team-b");
  kit.end(2);
  kit.lines(kit.ledger.adopt("gpu0.shared", {500, 7}, 1001));
  State state;
  for (const auto& change : kit.changes) REQUIRE(state.apply(change));

  Kit next;
  next.ledger.restore(state);
  CHECK(next.ledger.namespaces().at(0).use == Use{1, 25, 25, 1024});
  CHECK(next.ledger.devices().at(0).use == Use{2, 25, 25, 1024});
  CHECK(next.ledger.admissions(9).size() == 2);
  CHECK(next.ask(3) == Lines{"3 in slot 4"});
  CHECK(next.ledger.admissions(9).back().admission.id == 3);
  auto again = next.make(1);
  again.id = 4;
  CHECK(next.ask(again) == Lines{"4 again slot 1"});
  CHECK(next.end(1).empty());
  CHECK(next.ledger.slot_count() == 2);
}

TEST_CASE("slots of an instance that nobody speaks of any more end all the same") {
  Kit kit;
  kit.ask(1);
  State state;
  for (const auto& change : kit.changes) REQUIRE(state.apply(change));
  Ledger ledger;
  ledger.restore(state);
  CHECK(ledger.slot_ended(1, {}).changes.size() == 1);
  CHECK(ledger.slot_count() == 0);
}
