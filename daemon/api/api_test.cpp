#include "api/api.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "api/event_stream.h"
#include "api/json.h"
#include "api/test_support.h"

using namespace mps::api;
using nlohmann::json;

namespace {

struct Fixture {
  Fixture() {
    auto opened = EventLog::open({directory.path(), 8, 1 << 20});
    log = std::move(opened.value());
    api.emplace(agent, *log, gid_t{500});
  }

  Answer ask(const std::string& method, const std::string& target, const std::string& body = "",
             std::optional<Peer> peer = Peer{1, 0, 0, {}}) {
    auto parsed = parse_target(target).value();
    return api->handle({method, parsed.path, parsed.query, body, std::move(peer)});
  }
  Reply reply(const std::string& method, const std::string& target, const std::string& body = "",
              std::optional<Peer> peer = Peer{1, 0, 0, {}}) {
    return std::get<Reply>(ask(method, target, body, std::move(peer)));
  }

  mps::api::test::TempDir directory;
  mps::api::test::FakeAgent agent;
  std::unique_ptr<EventLog> log;
  std::optional<Api> api;
};

std::string error(const std::string& code, const std::string& message) {
  return R"({"error":{"code":")" + code + R"(","message":)" + json(message).dump() + "}}";
}

std::vector<std::uint64_t> ids(const Reply& reply) {
  std::vector<std::uint64_t> list;
  for (const auto& event : json::parse(reply.body)) list.push_back(event["id"]);
  return list;
}

using Ids = std::vector<std::uint64_t>;

}  // namespace

TEST_CASE_FIXTURE(Fixture, "an instance shows all that the contract names") {
  auto& one = agent.instances_[0];
  one.server = mps::instance::Server{0, 1000, mps::instance::ServerStatus::start_failed, "805", 5};
  one.channel = {mps::instance::ChannelState::blocked, 77, "nc", "silent on control"};
  one.percentage_from = "a.yaml:7:9 (spec.client)";
  one.last_error = "start failed";
  one.next_start = test::at("2026-11-20T10:00:05.000Z");
  const auto answer = reply("GET", "/v1/instances/gpu0.shared");
  CHECK(answer.status == 200);
  CHECK(json::parse(answer.body) == json::parse(R"j({
    "id": "gpu0.shared", "device": "GPU-0a", "domain": "shared", "state": "ready",
    "stateSince": "2026-11-20T10:00:00.000Z",
    "control": {"pid": 41, "startedAt": "2026-11-20T09:59:59.500Z", "adopted": false},
    "server": {"pid": null, "uid": 1000, "status": "startFailed", "cause": "805",
               "failedStarts": 5},
    "channel": "blocked",
    "channelDetail": {"holder": 77, "holderName": "nc", "detail": "silent on control"},
    "restarts": 2, "gate": "direct", "bypass": "open",
    "limits": {"activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 10240,
               "clientPriority": "below-normal", "confirmed": true,
               "from": {"activeThreadPercentage": "a.yaml:7:9 (spec.client)",
                        "pinnedDeviceMemoryMiB": null}},
    "limitsDrifted": 0, "clients": 1, "lastError": "start failed", "outOfService": null,
    "pipeDirectory": "/run/mps/gpu0.shared/open/pipe", "unknownLogLines": 0,
    "nextStart": "2026-11-20T10:00:05.000Z", "serverStatusKnown": false})j"));
}

TEST_CASE_FIXTURE(Fixture, "what is not there is null") {
  agent.instances_[0].control.reset();
  agent.instances_[0].limits.pinned_memory_mebibytes.reset();
  const auto list = json::parse(reply("GET", "/v1/instances").body);
  REQUIRE(list.size() == 1);
  for (const char* field : {"control", "server", "lastError", "nextStart"}) {
    CHECK(list[0][field].is_null());
  }
  CHECK(list[0]["limits"]["pinnedDeviceMemoryMiB"].is_null());
}

TEST_CASE_FIXTURE(Fixture, "devices and clients are arrays") {
  mps::device::Device device;
  device.uuid = "MIG-1";
  device.kind = mps::device::Kind::mig;
  device.mig_index = 3;
  device.name = "NVIDIA H200";
  device.memory_mebibytes = 1024;
  device.compute_capability_major = 9;
  device.compute_capability_minor = 0;
  device.not_capable = "too small";
  agent.inventory_.devices.push_back(device);
  CHECK(json::parse(reply("GET", "/v1/devices").body) == json::parse(R"([{
    "uuid": "MIG-1", "id": "gpu0-mig3", "kind": "mig", "index": 0, "migIndex": 3,
    "name": "NVIDIA H200", "pciBusId": null, "memoryMiB": 1024, "reservedMemoryMiB": 0,
    "smCount": null, "computeCapability": "9.0", "computeMode": null, "migEnabled": false,
    "declared": false, "mpsCapable": false, "notCapableBecause": "too small", "error": null,
    "maxClients": null, "exclusive": null, "outOfService": null}])"));
  mps::policy::DeviceFacts facts;
  facts.uuid = "MIG-1";
  facts.max_clients = 7;
  agent.facts_.push_back(facts);
  const auto known = json::parse(reply("GET", "/v1/devices").body)[0];
  CHECK(known["maxClients"] == 7);
  CHECK(known["exclusive"] == false);
  agent.faults_.devices_out_.apply(mps::fault::DeviceTakenOut{test::sample_device_out("MIG-1")});
  CHECK(json::parse(reply("GET", "/v1/devices").body)[0]["outOfService"] == json::parse(R"j({
    "device": "MIG-1", "gpu": "MIG-1", "needs": "reset", "reason": "Xid 46 (GPU timeout)",
    "xid": 46, "action": null, "since": "2026-11-20T10:00:00.000Z", "incident": "f3",
    "message": "MIG-1 is out of service since 2026-11-20T10:00:00.000Z until it is reset: Xid 46 (GPU timeout), incident f3"})j"));
  CHECK(json::parse(reply("GET", "/v1/status").body)["outOfService"].size() == 1);
  CHECK(reply("GET", "/v1/clients?instance=gpu0.shared").body ==
        R"([{"admission":null,"adopted":false,"command":"train","connected":true,)"
        R"("container":null,"description":null,"instance":"gpu0.shared","limits":null,)"
        R"("namespace":null,"pid":100,"share":null,"since":"2026-11-20T10:00:01.000Z",)"
        R"("uid":1000}])");
  CHECK(reply("GET", "/v1/clients?instance=gpu0.sharde").body ==
        error("not_found", R"(no instance "gpu0.sharde"; did you mean "gpu0.shared"?)"));
}

TEST_CASE_FIXTURE(Fixture, "status sums up") {
  agent.status_.ready = false;
  agent.status_.not_ready_because = "gpu0.shared is failed";
  agent.instances_[0].state = mps::instance::State::failed;
  agent.instances_[0].last_error = "no program";
  agent.inventory_.error = "NVML: not there";
  agent.policies_.generation = test::generation_of({{"a.yaml", ""}});
  agent.policies_.error = "cannot read it";
  agent.audit_.counts = {{"GPU-0a", "client_without_slot", 0, 3}, {"GPU-0a", "outside_mps", 2, 2}};
  log->append(test::event("control_started", ""));
  CHECK(json::parse(reply("GET", "/v1/status").body) == json::parse(R"({
    "version": "0.1.0", "pid": 12, "startedAt": "2026-11-20T09:00:00.000Z", "ready": false,
    "notReadyBecause": "gpu0.shared is failed", "runDirectory": "/run/mps",
    "stateDirectory": "/var/lib/mps-supervisor", "driverVersion": null, "devices": 0,
    "devicesError": "NVML: not there", "instances": 1, "instancesByState": {"failed": 1},
    "clients": 1, "lastErrors": [{"instance": "gpu0.shared", "message": "no program"}],
    "outOfService": [], "noCeiling": [],
    "findings": [{"device": "GPU-0a", "kind": "outside_mps", "processes": 2}],
    "policies": {"generation": 1, "hash": ")" + agent.policies_.generation->hash +
                                                                    R"(",
                 "changedAt": "2026-11-20T09:00:00.000Z",
                 "directory": "/etc/mps-supervisor/policies", "files": 1, "badFiles": 1,
                 "error": "cannot read it"},
    "lastEventId": 1, "journalWriteErrors": 0})"));
}

TEST_CASE_FIXTURE(Fixture, "status says which ceilings there are not, and because of whom") {
  auto& one = agent.instances_[0];
  one.limits.active_thread_percentage = 100.0;
  one.percentage_from = "default.yaml:17:29 (spec.client)";
  auto second = one;
  second.id = "gpu1.shared";
  second.limits = {50.0, std::nullopt, 0};
  agent.instances_.push_back(second);
  CHECK(json::parse(reply("GET", "/v1/status").body)["noCeiling"] == json::parse(R"j([
    {"instance": "gpu0.shared", "limit": "activeThreadPercentage",
     "from": "default.yaml:17:29 (spec.client)"},
    {"instance": "gpu1.shared", "limit": "pinnedDeviceMemory", "from": null}])j"));
}

TEST_CASE_FIXTURE(Fixture, "policies, in force and refused") {
  const std::string good = test::document(
      "team-a",
      "  devices: [0]\n  client: {activeThreadPercentage: 12.5, pinnedDeviceMemory: 1Gi}\n"
      "  quota: {clients: 4}\n"
      "  overrides: [{match: {podLabels: {app: nb}}, client: {priority: below-normal}}]\n"
      "  onFault: {quarantine: {after: 3, within: 10m, for: 1h}}\n");
  agent.policies_.generation = test::generation_of(
      {{"a.yaml", good}, {"b.yaml", test::document("team-b", "  clint: {}\n")}, {"c.yaml", "["}});
  const auto list = json::parse(reply("GET", "/v1/policies").body);
  REQUIRE(list.size() == 3);
  CHECK(list[0] == json::parse(R"({
    "namespace": "team-a", "file": "a.yaml", "line": 4, "column": 14, "state": "good",
    "isolation": "shared", "devices": ["0"],
    "client": {"activeThreadPercentage": 12.5, "pinnedDeviceMemoryMiB": 1024, "priority": null},
    "quota": {"clients": 4, "activeThreadPercentage": null, "pinnedDeviceMemoryMiB": null},
    "overrides": [{"match": {"podLabels": {"app": "nb"}},
                   "client": {"activeThreadPercentage": null, "pinnedDeviceMemoryMiB": null,
                              "priority": "below-normal"}}],
    "onViolation": "report",
    "onFault": {"clients": "terminate",
                "quarantine": {"after": 3, "withinSeconds": 600, "forSeconds": 3600,
                               "onSuspicion": false}},
    "errors": []})"));
  CHECK(list[1] == json::parse(R"({
    "namespace": "team-b", "file": "b.yaml", "line": 4, "column": 14, "state": "refused",
    "isolation": null, "devices": null, "client": null, "quota": null, "overrides": null,
    "onViolation": null, "onFault": null,
    "errors": ["b.yaml:6:3: spec.clint: unknown key, did you mean client: \"clint\""]})"));
  CHECK(list[2]["namespace"].is_null());
  CHECK(list[2]["file"] == "c.yaml");
  CHECK(json::parse(reply("GET", "/v1/policies/team%2Db").body) == list[1]);
  CHECK(reply("GET", "/v1/policies/team-c").body ==
        error("not_found", R"(no policy for namespace "team-c"; did you mean "team-a"?)"));

  const auto before = *agent.policies_.generation;
  agent.policies_.generation = test::generation_of({{"a.yaml", "["}}, {}, before);
  const auto last = json::parse(reply("GET", "/v1/policies/team-a").body);
  CHECK(last["state"] == "lastGood");
  CHECK(last["errors"].size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "an explanation is for a namespace, labels and devices") {
  mps::policy::DeviceFacts facts;
  facts.name = "gpu0";
  facts.uuid = "GPU-0a";
  agent.facts_.push_back(facts);
  agent.policies_.generation =
      test::generation_of({{"a.yaml", test::document("team-a", "  client: {priority: normal}\n")}});
  const auto answer = reply("GET", "/v1/explain?namespace=team-a&labels=a=b,c=&device=0");
  CHECK(answer.status == 200);
  const auto explained = json::parse(answer.body);
  CHECK(explained["labels"] == json{{"a", "b"}, {"c", ""}});
  CHECK(explained["devices"][0]["admitted"] == true);
  const auto wrong = [this](const std::string& query) {
    return reply("GET", "/v1/explain?" + query).body;
  };
  CHECK(wrong("") == error("bad_request", "parameter namespace is missing"));
  CHECK(wrong("namespace=Team") ==
        error("bad_request",
              "parameter namespace must be a namespace, docker:NAME, unit:NAME, "
              "user:LOGIN, or \"*\" for a kind's default: \"Team\""));
  CHECK(wrong("namespace=a&labels=b") ==
        error("bad_request", "parameter labels must be KEY=VALUE: \"b\""));
  CHECK(wrong("namespace=a&labels=b=1,b=2") ==
        error("bad_request", "parameter labels has a key twice: \"b\""));
  CHECK(wrong("namespace=a&labels=-=1") ==
        error("bad_request", "parameter labels is no key of a label: \"-\""));
  CHECK(wrong("namespace=a&labels=b=c%20d") ==
        error("bad_request", "parameter labels is no value of a label: \"c d\""));
  CHECK(wrong("namespace=a&device=gpu1") ==
        error("not_found", R"(no device "gpu1"; did you mean "gpu0"?)"));
}

TEST_CASE_FIXTURE(Fixture, "errors say what is wrong") {
  struct Case {
    const char* method;
    const char* target;
    const char* body;
    unsigned status;
    std::string expected;
  };
  const std::vector<Case> cases{
      {"GET", "/", "", 404, error("not_found", "there is nothing at /")},
      {"GET", "/v1/instances/", "", 404, error("not_found", "there is nothing at /v1/instances/")},
      {"GET", "/v1/instances/a/b", "", 404,
       error("not_found", "there is nothing at /v1/instances/a/b")},
      {"POST", "/v1/instances/a:reboot", "", 404,
       error("not_found", "there is nothing at /v1/instances/a:reboot")},
      {"GET", "/v1/instances/gpu7", "", 404, error("not_found", "no instance \"gpu7\"")},
      {"GET", "/v1/instances/gpu0%2Eshare", "", 404,
       error("not_found", R"(no instance "gpu0.share"; did you mean "gpu0.shared"?)")},
      {"GET", "/v1/admissions/7", "", 404,
       error("not_found", "there is nothing at /v1/admissions/7")},
      {"GET", "/v1/admissions?namspace=a", "", 400,
       error("bad_request", R"(unknown parameter "namspace"; did you mean "namespace"?)")},
      {"DELETE", "/v1/status", "", 405,
       error("method_not_allowed", "DELETE is not for /v1/status, use GET")},
      {"GET", "/v1/instances/gpu0.shared:drain", "", 405,
       error("method_not_allowed", "GET is not for /v1/instances/gpu0.shared:drain, use POST")},
      {"GET", "/v1/events?sinc=1", "", 400,
       error("bad_request", R"(unknown parameter "sinc"; did you mean "since"?)")},
      {"GET", "/v1/events?since=1x", "", 400,
       error("bad_request", "parameter since must be a whole number: \"1x\"")},
      {"GET", "/v1/events?follow=maybe", "", 400,
       error("bad_request", "parameter follow must be 0 or 1: \"maybe\"")},
      {"POST", "/v1/instances/gpu0.shared:restart", "{", 400,
       error("bad_request", "the body must be a JSON object")},
      {"POST", "/v1/instances/gpu0.shared:restart", R"({"forc":true})", 400,
       error("bad_request", "unknown field \"forc\" in the body")},
      {"POST", "/v1/instances/gpu0.shared:drain", R"({"force":true})", 400,
       error("bad_request", "unknown field \"force\" in the body")},
      {"POST", "/v1/instances/gpu0.shared:restart", R"({"force":1})", 400,
       error("bad_request", "field \"force\" must be true or false")},
  };
  for (const auto& one : cases) {
    CAPTURE(one.target);
    const auto answer = reply(one.method, one.target, one.body);
    CHECK(answer.status == one.status);
    CHECK(answer.body == one.expected);
  }
  CHECK(agent.calls_.empty());
  CHECK(reply("DELETE", "/v1/status").allow == "GET");
}

TEST_CASE_FIXTURE(Fixture, "verbs reach the agent") {
  const auto done = reply("POST", "/v1/instances/gpu0.shared:drain", "{}");
  CHECK(done.status == 202);
  CHECK(done.body == R"({"instance":"gpu0.shared","message":"drain gpu0.shared: accepted"})");
  reply("POST", "/v1/instances/gpu0.shared:undrain");
  reply("POST", "/v1/instances/gpu0.shared:restart");
  reply("POST", "/v1/instances/gpu0.shared:restart?force=1");
  reply("POST", "/v1/instances/gpu0.shared:restart", R"({"force":true})");
  CHECK(agent.calls_ == std::vector<std::string>{"drain gpu0.shared", "undrain gpu0.shared",
                                                 "restart gpu0.shared", "restart gpu0.shared force",
                                                 "restart gpu0.shared force"});
  agent.refusal_ = VerbError{VerbError::Kind::conflict, "2 clients run; use --force"};
  CHECK(reply("POST", "/v1/instances/gpu0.shared:restart").status == 409);
  CHECK(reply("POST", "/v1/instances/gpu0.shared:restart").body ==
        error("conflict", "2 clients run; use --force"));
  agent.refusal_ = VerbError{VerbError::Kind::failed, "no"};
  CHECK(reply("POST", "/v1/instances/gpu0.shared:drain").status == 500);
  agent.refusal_ = VerbError{VerbError::Kind::not_found, "gone"};
  CHECK(reply("POST", "/v1/instances/gpu0.shared:drain").status == 404);
}

TEST_CASE_FIXTURE(Fixture, "shares are listed, made and ended") {
  ShareView view;
  view.share = {0, "open", "gpu0.shared"};
  view.is_open_share = true;
  agent.shares_.push_back(view);
  view.share = {7, "s7", "gpu1.shared"};
  view.is_open_share = false;
  agent.shares_.push_back(view);
  const auto count = [this](const char* target) {
    return nlohmann::json::parse(reply("GET", target).body).size();
  };
  CHECK(count("/v1/shares") == 2);
  CHECK(count("/v1/shares?instance=gpu1.shared") == 1);
  CHECK(nlohmann::json::parse(reply("GET", "/v1/shares/s7").body)["id"] == "s7");
  CHECK(reply("GET", "/v1/shares/open").body == error("not_found", "no share \"open\""));
  CHECK(reply("GET", "/v1/shares/s77").body ==
        error("not_found", R"(no share "s77"; did you mean "s7"?)"));
  const auto made = reply("POST", "/v1/shares", R"({"device": 0, "namespace": "team-a"})");
  CHECK(made.status == 201);
  CHECK(nlohmann::json::parse(made.body)["namespace"] == "team-a");
  CHECK(reply("POST", "/v1/shares", "{}").body == error("bad_request", "device: is missing"));
  CHECK(reply("DELETE", "/v1/shares/s7").body ==
        R"({"message":"delete s7: accepted","share":"s7"})");
  CHECK(reply("DELETE", "/v1/shares/s7?drain=1").status == 202);
  CHECK(reply("DELETE", "/v1/shares/s7?drain=yes").body ==
        error("bad_request", "parameter drain must be 0 or 1: \"yes\""));
  CHECK(agent.calls_ == std::vector<std::string>{"delete s7", "delete s7 drain"});
  agent.refusal_ = VerbError{VerbError::Kind::not_found, "gone"};
  CHECK(reply("DELETE", "/v1/shares/s9").body ==
        error("not_found", R"(no share "s9"; did you mean "s7"?)"));
  agent.refusal_ = VerbError{VerbError::Kind::conflict, "share s7 has 1 client"};
  CHECK(reply("DELETE", "/v1/shares/s7").status == 409);
  CHECK(reply("POST", "/v1/shares", R"({"device": 0})").status == 409);
  CHECK(reply("POST", "/v1/shares", "{}", Peer{9, 4000000, 7, {8}}).body ==
        error("forbidden", "only root and operators may create a share"));
  CHECK(reply("DELETE", "/v1/shares/s7", "", Peer{9, 4000000, 7, {8}}).body ==
        error("forbidden", "only root and operators may delete a share"));
}

TEST_CASE_FIXTURE(Fixture, "a client is terminated, and the reply is what came of it") {
  const auto terminate = [this](const std::string& target, const std::string& body = "",
                                std::optional<Peer> peer = Peer{9, 0, 0, {}}) {
    auto answer = ask("POST", target, body, std::move(peer));
    if (const auto* at_once = std::get_if<Reply>(&answer)) return *at_once;
    Reply come;
    std::get<Later>(answer)([&come](Reply reply) { come = std::move(reply); });
    return come;
  };
  const auto done = terminate("/v1/clients/100:terminate");
  CHECK(done.status == 200);
  CHECK(done.body == R"({"message":"terminate 100: accepted","pid":100})");
  agent.refusal_ = VerbError{VerbError::Kind::unanswered, "not known"};
  CHECK(terminate("/v1/clients/100:terminate", "{}").status == 504);
  CHECK(terminate("/v1/clients/100:terminate").body == error("not_answered", "not known"));
  CHECK(agent.calls_.size() == 3);
  CHECK(terminate("/v1/clients/1x:terminate").body ==
        error("bad_request", "a client is named by its pid: \"1x\""));
  CHECK(terminate("/v1/clients/0:terminate").status == 400);
  CHECK(terminate("/v1/clients/100:terminate", R"({"force":true})").body ==
        error("bad_request", "unknown field \"force\" in the body"));
  CHECK(terminate("/v1/clients/100:terminate", "", std::nullopt).body ==
        error("forbidden", "only root and operators may terminate a client"));
  CHECK(agent.calls_.size() == 3);
}

TEST_CASE_FIXTURE(Fixture, "only root, ourselves and operators use verbs") {
  const auto status = [this](std::optional<Peer> peer) {
    return reply("POST", "/v1/instances/gpu0.shared:drain", "", std::move(peer)).status;
  };
  CHECK(status(Peer{9, 0, 0, {}}) == 202);
  CHECK(status(Peer{9, geteuid(), 7, {}}) == 202);
  CHECK(status(Peer{9, 4000000, 500, {}}) == 202);
  CHECK(status(Peer{9, 4000000, 7, {8, 500}}) == 202);
  CHECK(status(Peer{9, 4000000, 7, {8}}) == 403);
  CHECK(status(std::nullopt) == 403);
  CHECK(reply("POST", "/v1/instances/gpu0.shared:drain", "", std::nullopt).body ==
        error("forbidden", "only root and operators may drain an instance"));
}

TEST_CASE_FIXTURE(Fixture, "events by id, kind, instance and number") {
  for (int i = 1; i <= 10; ++i) {
    log->append(
        test::event(i % 2 == 0 ? "even" : "odd", "", i > 8 ? "gpu1.shared" : "gpu0.shared"));
  }
  CHECK(ids(reply("GET", "/v1/events")) == Ids{3, 4, 5, 6, 7, 8, 9, 10});
  CHECK(ids(reply("GET", "/v1/events?limit=2")) == Ids{9, 10});
  CHECK(ids(reply("GET", "/v1/events?since=4&limit=2")) == Ids{5, 6});
  CHECK(ids(reply("GET", "/v1/events?since=0&kind=even")) == Ids{4, 6, 8, 10});
  CHECK(ids(reply("GET", "/v1/events?instance=gpu1.shared")) == Ids{9, 10});
  CHECK(reply("GET", "/v1/events?since=10").body == "[]");
  CHECK(reply("GET", "/v1/events?since=9").body ==
        R"([{"data":{},"id":10,"instance":"gpu1.shared","kind":"even","message":"",)"
        R"("time":"2026-11-20T10:00:00.000Z"}])");
}

TEST_CASE_FIXTURE(Fixture, "a stream gives what was and what comes, each once") {
  log->append(test::event("a", ""));
  log->append(test::event("b", ""));
  auto answer = ask("GET", "/v1/events?follow=1&since=1");
  auto stream = std::get<std::unique_ptr<LineSource>>(std::move(answer));
  int woken = 0;
  stream->on_more([&woken] { ++woken; });
  const auto line = [](int id, const std::string& kind) {
    return R"({"data":{},"id":)" + std::to_string(id) + R"(,"instance":"gpu0.shared","kind":")" +
           kind + R"(","message":"","time":"2026-11-20T10:00:00.000Z"})" + "\n";
  };
  CHECK(stream->take(1000) == line(2, "b"));
  CHECK(stream->take(1000).empty());
  log->append(test::event("c", ""));
  log->append(test::event("d", ""));
  CHECK(woken == 2);
  CHECK(stream->take(1) == line(3, "c"));
  CHECK(stream->take(1) == line(4, "d"));
  CHECK(!stream->ended());
}

TEST_CASE_FIXTURE(Fixture, "a stream from now on, and one that begins too early") {
  for (int i = 0; i < 10; ++i) log->append(test::event("a", ""));
  auto now = std::get<std::unique_ptr<LineSource>>(ask("GET", "/v1/events?follow=1"));
  CHECK(now->take(1000).empty());
  EventStream early(*log, {"none", ""}, 0);
  CHECK(
      early.take(1000) ==
      R"({"count":2,"kind":"events_missed","lastId":2,"message":"events 1 to 2 are no longer kept"})"
      "\n");
  CHECK(!early.ended());
}

TEST_CASE_FIXTURE(Fixture, "a reader that falls out of the ring is told so and goes on") {
  EventStream stream(*log, {}, 0);
  log->append(test::event("a", ""));
  CHECK(!stream.take(1000).empty());
  for (int i = 0; i < 10; ++i) log->append(test::event("a", ""));
  const std::string lagged =
      R"({"count":2,"kind":"stream_lagged","lastId":3,"message":"read too slowly, )"
      "events 2 to 3 were missed\"}\n";
  CHECK(stream.take(1) == lagged);
  CHECK(stream.take(1).find(R"("id":4,)") != std::string::npos);
  CHECK(stream.take(100000).find(R"("id":11,)") != std::string::npos);
  CHECK(!stream.ended());
}

TEST_CASE_FIXTURE(Fixture, "an id that is not known yet is of a journal that is gone") {
  for (int i = 0; i < 3; ++i) log->append(test::event("a", ""));
  const std::string most = "18446744073709551615";
  CHECK(ids(reply("GET", "/v1/events?since=3")).empty());
  CHECK(ids(reply("GET", "/v1/events?since=4")) == Ids{1, 2, 3});
  CHECK(ids(reply("GET", "/v1/events?since=" + most)) == Ids{1, 2, 3});
  auto stream = std::get<std::unique_ptr<LineSource>>(
      ask("GET", "/v1/events?follow=1&kind=none&since=" + most));
  CHECK(stream->take(1000) ==
        R"({"kind":"ids_restarted","lastId":0,"message":"event 18446744073709551615 is not known: )"
        "ids began anew, and all events that are kept follow\"}\n");
  CHECK(stream->take(1000).empty());
  for (int i = 0; i < 8; ++i) log->append(test::event("b", ""));
  EventStream behind(*log, {}, 99);
  const auto lines = behind.take(1);
  CHECK(lines.find(R"("kind":"ids_restarted")") == 1);
  CHECK(lines.find(R"("kind":"events_missed","lastId":3)") != std::string::npos);
  CHECK(behind.take(1).find(R"("id":4,)") != std::string::npos);
}

TEST_CASE("targets") {
  CHECK(!parse_target(""));
  CHECK(!parse_target("v1"));
  CHECK(!parse_target("/a?b=%0"));
  CHECK(!parse_target("/a?b=%00"));
  const auto target = parse_target("/a%20b?x=1%202&y&&z=");
  REQUIRE(target);
  CHECK(target->path == "/a%20b");
  CHECK(target->query == decltype(target->query){{"x", "1 2"}, {"y", ""}, {"z", ""}});
  CHECK(percent_encode("a b/c:d.e") == "a%20b%2Fc%3Ad.e");
  CHECK(percent_decode(percent_encode("é%")) == "é%");
}
