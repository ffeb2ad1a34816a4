#include "api/admissions.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <vector>

#include "api/admission_json.h"
#include "api/json.h"
#include "api/test_support.h"
#include "share/ledger_test_kit.h"

using namespace mps::api;
using mps::share::Code;
using nlohmann::json;

namespace {

// Process 101 of team-a is let in with a quarter of the threads, 102 waits behind it. Process 103
// of user:ann is let in without limits, and 200 is found inside.
struct Fixture : mps::share::Kit {
  Fixture() {
    auto first = from(1, "team-a", "pod web-0, container cuda");
    ask(first);
    now += std::chrono::seconds(10);
    auto second = from(2, "team-a", "pod web-1");
    ask(second);
    ask(from(3, "user:ann", "user ann"));
    ledger.adopt(facts.id, {200, 9}, 1000);
    devices[0].uuid = "GPU-0";
    devices[0].name = "gpu0";
    devices[0].memory_mebibytes = 100 * 1024;
    instances[0].device = "GPU-0";
  }

  mps::share::Request from(mps::share::RequestId id, const std::string& subject,
                           const std::string& description) const {
    auto request = make(id, subject);
    request.share = facts.id + "/open";
    request.description = description;
    if (subject != "team-a") return request;
    request.grant = {25.0, 2048};
    request.quota = clients(1);
    return request;
  }

  [[nodiscard]] AdmissionStatus status(const AdmissionBounds& bounds = {}) const {
    return admission_status({ledger, *generation, devices, instances, refused, 2.0, 0.9, now,
                             test::at("2026-11-20T12:00:00.000Z")},
                            bounds);
  }

  std::vector<mps::policy::DeviceFacts> devices{1};
  std::vector<mps::instance::Snapshot> instances{test::sample_instance()};
  std::shared_ptr<const mps::policy::Generation> generation = test::generation_of(
      {{"a.yaml", test::document("team-a",
                                 "  client: {activeThreadPercentage: 25, pinnedDeviceMemory: 2Gi}\n"
                                 "  quota: {clients: 1}\n")}});
  std::map<Code, std::uint64_t> refused{{Code::no_policy, 3}};
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "admissions, each with its clients") {
  ask(from(1, "team-a", "pod web-0, container cuda"));
  CHECK(admissions_to_json(status()) == json::parse(R"([
    {"id": 1, "instance": "gpu0.shared", "device": "GPU-0", "share": "open",
     "namespace": "team-a", "container": "c1", "description": "pod web-0, container cuda",
     "limits": {"activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 2048},
     "clients": 1, "pids": [101]},
    {"id": 2, "instance": "gpu0.shared", "device": "GPU-0", "share": "open",
     "namespace": "user:ann", "container": "c3", "description": "user ann",
     "limits": {"activeThreadPercentage": 100.0, "pinnedDeviceMemoryMiB": null},
     "clients": 1, "pids": [103]}])"));
  CHECK(admissions_to_json(status(), "user:ann").size() == 1);
  CHECK(admissions_to_json(status(), "user:bob") == json::array());
  end(1);
  const auto idle = admissions_to_json(status(), "team-a");
  // Its container may have clients for as long as it is there; now the other's has one.
  CHECK(idle[0]["clients"] == 0);
  CHECK(idle[0]["pids"] == json::array());
  CHECK(idle[1]["pids"] == json::array({102}));
}

TEST_CASE_FIXTURE(Fixture, "who waits, since when, until when, and why") {
  now += std::chrono::milliseconds(2500);
  CHECK(waiting_to_json(status()) == json::parse(R"([
    {"instance": "gpu0.shared", "share": "open", "namespace": "team-a", "container": "c2",
     "description": "pod web-1", "pid": 102, "uid": 1000,
     "limits": {"activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 2048},
     "since": "2026-11-20T11:59:57.500Z", "deadline": "2026-11-20T12:00:57.500Z",
     "code": "quota_clients", "message": "team-a has 1 of 1 clients on gpu0",
     "roomIsKept": false}])"));
  CHECK(waiting_to_json(status(), "user:ann") == json::array());
}

TEST_CASE_FIXTURE(Fixture, "what it comes to, against quotas and the devices' limits") {
  CHECK(use_to_json(status()) == json::parse(R"({
    "gated": true, "admissions": 2, "clients": 3, "waiting": 1,
    "leftOut": {"admissions": 0, "clients": 0, "waiting": 0},
    "namespaces": [
      {"namespace": "team-a", "device": "GPU-0", "clients": 1, "activeThreadPercentage": 25.0,
       "pinnedDeviceMemoryMiB": 2048, "waiting": 1,
       "quota": {"clients": 1, "activeThreadPercentage": null, "pinnedDeviceMemoryMiB": null}},
      {"namespace": "user:ann", "device": "GPU-0", "clients": 1, "activeThreadPercentage": 100.0,
       "pinnedDeviceMemoryMiB": 0, "waiting": 0, "quota": null}],
    "devices": [
      {"device": "GPU-0", "id": "gpu0", "clients": 3, "adopted": 1,
       "activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 2048,
       "limits": {"activeThreadPercentage": 200.0, "pinnedDeviceMemoryMiB": 92160}}],
    "refused": {"no_policy": 3}})"));
  generation = test::generation_of(
      {{"a.yaml", test::document("team-a", "  devices: [7]\n  quota: {clients: 1}\n")}});
  devices[0].memory_mebibytes = 0;
  const auto unknown = use_to_json(status());
  CHECK(unknown["namespaces"][0]["quota"].is_null());
  CHECK(unknown["devices"][0]["limits"]["pinnedDeviceMemoryMiB"].is_null());
}

TEST_CASE_FIXTURE(Fixture, "places: an instance and a namespace, counted whole") {
  const auto places = status({0, 0, 0}).places;
  REQUIRE(places.size() == 2);
  CHECK(places[0].subject == "team-a");
  CHECK(places[0].device == "GPU-0");
  CHECK(places[0].domain == "shared");
  CHECK(places[0].admissions == 1);
  CHECK(places[0].clients == 1);
  CHECK(places[0].waiting == 1);
  CHECK(places[1].subject == "user:ann");
  CHECK(places[1].waiting == 0);
  instances[0].domain = "ns-team-a";
  CHECK(status().places[0].domain == "ns-team-a");
  instances.clear();
  CHECK(status().places[0].domain == "shared");
  CHECK(status().places[0].device == "GPU-0");
}

TEST_CASE_FIXTURE(Fixture, "what is beyond the bounds is counted") {
  const auto few = status({1, 2, 0});
  CHECK(few.admissions.size() == 1);
  CHECK(few.slots.size() == 2);
  CHECK(few.waiting.empty());
  const auto use = use_to_json(few);
  CHECK(use["leftOut"] == json::parse(R"({"admissions": 1, "clients": 1, "waiting": 1})"));
  CHECK(use["admissions"] == 2);
  CHECK(use["clients"] == 3);
  CHECK(use["waiting"] == 1);
  CHECK(use_to_json({}) == json::parse(R"({
    "gated": false, "admissions": 0, "clients": 0, "waiting": 0,
    "leftOut": {"admissions": 0, "clients": 0, "waiting": 0},
    "namespaces": [], "devices": [], "refused": {}})"));
}

TEST_CASE_FIXTURE(Fixture, "a client has the fields of its slot: by instance, pid and start") {
  const auto current = status();
  const SlotsByProcess slots(current);
  auto& one = instances[0];
  one.clients[0].pid = 101;
  const auto shown = [&](std::uint64_t start_ticks) {
    one.clients[0].start_ticks = start_ticks;
    return clients_to_json(one, slots).at(0);
  };
  const auto let_in = shown(7);
  CHECK(let_in["admission"] == 1);
  CHECK(let_in["namespace"] == "team-a");
  CHECK(let_in["container"] == "c1");
  CHECK(let_in["description"] == "pod web-0, container cuda");
  CHECK(let_in["share"] == "open");
  CHECK(let_in["limits"] ==
        json{{"activeThreadPercentage", 25.0}, {"pinnedDeviceMemoryMiB", 2048}});
  const auto nothing = [](const json& client) {
    for (const char* name :
         {"admission", "namespace", "container", "description", "share", "limits"}) {
      CAPTURE(name);
      CHECK(client.at(name).is_null());
    }
  };
  nothing(shown(8));  // another process with that pid
  nothing(shown(0));  // nobody knows which process it was
  one.clients[0].pid = 200;
  nothing(shown(9));  // adopted
  one.clients[0].pid = 101;
  one.id = "gpu1.shared";
  nothing(shown(7));
}
