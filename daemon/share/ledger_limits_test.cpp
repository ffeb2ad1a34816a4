#include <doctest/doctest.h>

#include "share/ledger.h"
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
