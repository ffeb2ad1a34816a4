#include "share/ledger.h"

#include <doctest/doctest.h>

#include <functional>
#include <stdexcept>

#include "share/ledger_test_kit.h"

using namespace mps;
using namespace mps::share;
using namespace std::chrono_literals;
using Lines = Kit::Lines;

namespace {

policy::Quota threads(double percentage) {
  policy::Quota quota;
  quota.active_thread_percentage = {percentage, {}};
  return quota;
}

policy::Quota memory(std::uint64_t mebibytes) {
  policy::Quota quota;
  quota.pinned_memory_mebibytes = {mebibytes, {}};
  return quota;
}

Request with(Request request, Grant grant, const policy::Quota& quota = {}) {
  request.grant = grant;
  request.quota = quota;
  return request;
}

Request of_uid(Request request, uid_t uid) {
  request.uid = uid;
  return request;
}

}  // namespace

TEST_CASE("each limit lets in what fits, and says in numbers what does not") {
  const struct {
    const char* name;
    Grant grant;
    policy::Quota quota;
    unsigned fit;
    const char* why;  // of the one that does not fit
  } cases[] = {
      {"clients of a namespace",
       {},
       Kit::clients(4),
       4,
       "quota_clients: team-a has 4 of 4 clients on gpu0"},
      {"threads of a namespace",
       {12.5, {}},
       threads(30),
       2,
       "quota_threads: team-a has 25 of 30 % of the SMs on gpu0, and this client needs 12.5 %"},
      {"clients without a limit count as 100 %",
       {},
       threads(250),
       2,
       "quota_threads: team-a has 200 of 250 % of the SMs on gpu0, and this client needs 100 %"},
      {"memory of a namespace",
       {100, 12 * 1024},
       memory(40 * 1024),
       3,
       "quota_memory: team-a has 36Gi of 40Gi of memory on gpu0, and this client needs 12Gi"},
      {"clients of an instance", {}, {}, 48, "device_clients: gpu0.shared has 48 of 48 clients"},
      {"memory of a device, less what is reserved",
       {100, 30 * 1024},
       {},
       3,
       "device_memory: gpu0 has granted 90Gi of 98Gi of memory, and this client needs 30Gi"},
      {"threads of a device",
       {60, {}},
       {},
       3,
       "device_threads: gpu0 has granted 180 of 200 % of the SMs, and this client needs 60 %"},
  };
  for (const auto& row : cases) {
    CAPTURE(row.name);
    const auto& [name, grant, quota, fit, why] = row;
    Kit kit;
    kit.facts.reserved_mebibytes = 2 * 1024;
    kit.tell();
    RequestId id = 1;
    for (; id <= fit; ++id) {
      CHECK(kit.ask(with(kit.make(id), grant, quota)) ==
            Lines{std::to_string(id) + " in slot " + std::to_string(id)});
    }
    const auto number = std::to_string(id);
    CHECK(kit.ask(with(kit.make(id), grant, quota)) == Lines{number + " waits " + why});
    auto impatient = with(kit.make(id + 1, "team-b"), grant, quota);
    if (std::string(why).starts_with("quota")) {
      CHECK(kit.ask(impatient) == Lines{std::to_string(id + 1) + " in slot " + number});
    } else {
      impatient.may_wait = false;
      CHECK(kit.ask(impatient) == Lines{std::to_string(id + 1) + " refused " + why});
    }
    CHECK(kit.after(59s).empty());
    CHECK(kit.after(1s) == Lines{number + " refused " + why + "; waited 1m"});
  }
}

TEST_CASE("what could never fit is refused at once") {
  const struct {
    Grant grant;
    policy::Quota quota;
    const char* why;
  } cases[] = {
      {{50, {}},
       threads(25),
       "quota_threads: this client needs 50 %, and team-a may have 25 % of the SMs on gpu0"},
      {{100, 12 * 1024},
       memory(10 * 1024),
       "quota_memory: this client needs 12Gi, and team-a may have 10Gi of memory on gpu0"},
      {{},
       memory(1024),
       "quota_memory: team-a has a memory quota on gpu0, and this client has no memory limit"},
      {{100, 200 * 1024},
       {},
       "device_memory: this client needs 200Gi, and gpu0 has 100Gi of memory to grant"},
      {{90, {}},
       {},
       "device_threads: this client needs 90 %, and gpu0 has 50 % of the SMs to grant"},
  };
  for (const auto& [grant, quota, why] : cases) {
    LedgerSettings settings;
    settings.overcommit_threads = 0.5;
    Kit kit(settings);
    CHECK(kit.ask(with(kit.make(1), grant, quota)) == Lines{"1 refused " + std::string(why)});
    CHECK(kit.ledger.waiting_count() == 0);
  }
}

TEST_CASE("only what is limited counts against a device") {
  Kit kit;
  for (RequestId id = 1; id <= 10; ++id) CHECK(kit.ask(id).size() == 1);
  CHECK(kit.ask(with(kit.make(11), {50, 100 * 1024})) == Lines{"11 in slot 11"});
  const auto device = kit.ledger.devices().at(0);
  CHECK(device.use == Use{11, 1050, 50, 100 * 1024});
  CHECK(device.name == "gpu0");
}

TEST_CASE("a device whose memory nobody knows has no limit of it") {
  Kit kit;
  kit.facts.memory_mebibytes = 0;
  kit.facts.max_clients.reset();
  kit.tell();
  for (RequestId id = 1; id <= 100; ++id) {
    CHECK(kit.ask(with(kit.make(id), {100, 1024 * 1024})).at(0).find(" in slot ") !=
          std::string::npos);
  }
}

TEST_CASE("instances of a device share its memory and the namespace's quota, not the clients") {
  Kit kit;
  kit.facts.max_clients = 1;
  kit.tell();
  auto dedicated = kit.facts;
  dedicated.id = "gpu0.ns-team-a";
  kit.ledger.instance_changed(dedicated, kit.now);
  CHECK(kit.ask(with(kit.make(1), {100, 60 * 1024}, Kit::clients(2))) == Lines{"1 in slot 1"});
  auto other = with(kit.make(2), {100, 60 * 1024}, Kit::clients(2));
  other.instance = dedicated.id;
  CHECK(kit.ask(other) == Lines{"2 waits device_memory: gpu0 has granted 60Gi of 100Gi of memory, "
                                "and this client needs 60Gi"});
  kit.lines(kit.ledger.peer_gone(2, kit.now));
  other = with(kit.make(3), {100, 1024}, Kit::clients(2));
  other.instance = dedicated.id;
  CHECK(kit.ask(other) == Lines{"3 in slot 2"});
  other = with(kit.make(4), {100, 1024}, Kit::clients(2));
  other.instance = dedicated.id;
  CHECK(kit.ask(other) == Lines{"4 waits quota_clients: team-a has 2 of 2 clients on gpu0"});
}

TEST_CASE("the state of the instance decides first") {
  Kit kit;
  kit.door(NotReady{"starting"});
  CHECK(kit.ask(1) == Lines{"1 waits not_ready: gpu0.shared is not ready: it is starting"});
  CHECK(kit.ask(2, "team-b") ==
        Lines{"2 waits not_ready: gpu0.shared is not ready: it is starting"});
  auto impatient = kit.make(3);
  impatient.may_wait = false;
  CHECK(kit.ask(impatient) ==
        Lines{"3 refused not_ready: gpu0.shared is not ready: it is starting"});
  CHECK(kit.door(NotReady{"recovering"}).empty());
  CHECK(kit.door(Serving{}) == Lines{"1 in slot 1", "2 in slot 2"});
  kit.door(NotReady{"faulted"});
  kit.ask(4);
  CHECK(kit.after(60s) ==
        Lines{"4 refused not_ready: gpu0.shared is not ready: it is faulted; waited 1m"});
  kit.ask(5);
  CHECK(kit.door(Closed{failed("gpu0.shared", "5 starts within 2m")}) ==
        Lines{"5 refused failed: gpu0.shared has failed: 5 starts within 2m"});
  CHECK(kit.ask(6) == Lines{"6 refused failed: gpu0.shared has failed: 5 starts within 2m"});
  kit.door(Closed{draining("gpu0.shared")});
  CHECK(kit.ask(7) ==
        Lines{"7 refused draining: gpu0.shared takes no new clients: it is draining"});
}

TEST_CASE("an instance that nobody knows, and one that goes") {
  Kit kit;
  auto stray = kit.make(1);
  stray.instance = "gpu9.shared";
  CHECK(kit.ask(stray) == Lines{"1 refused not_ready: gpu9.shared is not ready: it is unknown"});
  kit.ask(2);
  kit.door(NotReady{"starting"});
  kit.ask(3);
  CHECK(kit.lines(kit.ledger.instance_removed("gpu0.shared", kit.now)) ==
        Lines{"3 refused share_deleted: gpu0.shared is there no longer"});
  CHECK(kit.ask(4) == Lines{"4 refused share_deleted: gpu0.shared is there no longer"});
  CHECK(kit.ledger.slot_count() == 1);
  CHECK(kit.end(1).empty());
  CHECK(kit.ask(5) == Lines{"5 refused not_ready: gpu0.shared is not ready: it is unknown"});
}

TEST_CASE("facts of an earlier generation are passed over") {
  Kit kit;
  kit.facts.generation = 2;
  kit.tell();
  kit.facts.generation = 1;
  kit.door(Closed{draining("gpu0.shared")});
  CHECK(kit.ask(1) == Lines{"1 in slot 1"});
}

TEST_CASE("an instance on another device now") {
  Kit kit;
  kit.facts.max_clients = 1;
  kit.tell();
  kit.ask(1);
  kit.ask(2);
  kit.facts.device = "GPU-1";
  CHECK(kit.tell() ==
        Lines{"2 refused not_ready: gpu0.shared is not ready: it is on another device now"});
  kit.ask(3);
  CHECK(kit.end(1) == Lines{"3 in slot 2"});
  CHECK(kit.ledger.devices().at(0).use.clients == 0);
  CHECK(kit.ledger.devices().at(1).use.clients == 1);
}

TEST_CASE("a server of one uid") {
  LedgerSettings settings;
  Kit kit(settings);
  kit.facts.single_uid = true;
  kit.tell();
  const std::string why =
      "uid_conflict: gpu0.shared serves uid 1000 until its last client ends, and this client is of "
      "uid 1001";
  CHECK(kit.ask(1) == Lines{"1 in slot 1"});
  CHECK(kit.ask(2, "team-b") == Lines{"2 in slot 2"});
  CHECK(kit.ask(of_uid(kit.make(3), 1001)) == Lines{"3 refused " + why});
  settings.uid_conflict_waits = true;
  kit.ledger.settings_changed(settings, kit.now);
  CHECK(kit.ask(of_uid(kit.make(4), 1001)) == Lines{"4 waits " + why});
  CHECK(kit.end(1).empty());
  CHECK(kit.end(2) == Lines{"4 in slot 3"});
  CHECK(kit.ask(5, "team-b") ==
        Lines{"5 waits uid_conflict: gpu0.shared serves uid 1001 until its last client ends, and "
              "this client is of uid 1000"});
  settings.uid_conflict_waits = false;
  CHECK(kit.lines(kit.ledger.settings_changed(settings, kit.now))
            .at(0)
            .starts_with("5 refused uid_conflict: "));
  kit.facts.single_uid = false;
  kit.tell();
  CHECK(kit.ask(6, "team-b") == Lines{"6 in slot 4"});
}

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
