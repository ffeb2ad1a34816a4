#include "api/faults.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "api/api.h"
#include "api/metrics.h"
#include "api/test_support.h"
#include "fault/incident_json.h"

using namespace mps;
using namespace mps::api;
using nlohmann::json;

namespace {

fault::Incident incident(std::uint64_t number, const std::string& instance,
                         const std::string& noticed) {
  fault::Incident one;
  one.number = number;
  one.instance = instance;
  one.device = "GPU-0a";
  one.domain = "shared";
  one.noticed = fault::time_of(test::at(noticed));
  one.faults = 1;
  return one;
}

struct Fixture {
  Fixture() {
    log = std::move(EventLog::open({directory.path(), 8, 1 << 20}).value());
    api.emplace(agent, *log, gid_t{500});
    agent.faults_.incidents_ = {incident(3, "gpu0.shared", "2026-11-20T10:00:00.000Z"),
                                incident(4, "gpu1.shared", "2026-11-20T11:00:00.000Z"),
                                incident(9, "gpu0.shared", "2026-11-20T12:00:00.000Z")};
  }
  Reply reply(const std::string& method, const std::string& target, const std::string& body = "",
              std::optional<Peer> peer = Peer{1, 0, 0, {}}) {
    auto parsed = parse_target(target).value();
    return std::get<Reply>(api->handle({method, parsed.path, parsed.query, body, std::move(peer)}));
  }
  std::string ids(const std::string& target) {
    const auto answer = reply("GET", target);
    std::string list;
    for (const auto& one : json::parse(answer.body)) {
      list += (list.empty() ? "" : " ") + one.at("id").get<std::string>();
    }
    return list;
  }

  test::TempDir directory;
  test::FakeAgent agent;
  std::unique_ptr<EventLog> log;
  std::optional<Api> api;
};

std::string error(const std::string& code, const std::string& message) {
  return R"({"error":{"code":")" + code + R"(","message":)" + json(message).dump() + "}}";
}

constexpr const char* k_order =
    R"({"namespace": "team-a", "owner": "Job/x", "for": "1h", "reason": "broken"})";

}  // namespace

TEST_CASE_FIXTURE(Fixture, "faults, the newest first") {
  CHECK(ids("/v1/faults") == "f9 f4 f3");
  CHECK(ids("/v1/faults?instance=gpu0.shared") == "f9 f3");
  CHECK(ids("/v1/faults?instance=gpu7.shared") == "");
  CHECK(ids("/v1/faults?limit=1") == "f9");
  CHECK(ids("/v1/faults?since=f3") == "f9 f4");
  CHECK(ids("/v1/faults?since=2026-11-20T11:00:00.000Z") == "f9 f4");
  CHECK(
      reply("GET", "/v1/faults?since=yesterday").body ==
      error("bad_request",
            "parameter since must be an incident's id or a time such as 2026-11-20T23:22:15.000Z: "
            "\"yesterday\""));
  CHECK(reply("GET", "/v1/faults?limit=-1").body ==
        error("bad_request", "parameter limit must be a whole number: \"-1\""));
}

TEST_CASE_FIXTURE(Fixture, "one fault") {
  const auto answer = reply("GET", "/v1/faults/f4");
  CHECK(answer.status == 200);
  CHECK(json::parse(answer.body) == fault::to_json(agent.faults_.incidents_[1]));
  const auto none = reply("GET", "/v1/faults/f5");
  CHECK(none.status == 404);
  CHECK(none.body == error("not_found", "no incident \"f5\""));
  CHECK(reply("GET", "/v1/faults/4").status == 404);
}

TEST_CASE_FIXTURE(Fixture, "the quarantine is listed, added to and taken from") {
  CHECK(reply("GET", "/v1/quarantine").body == "[]");
  const auto made = reply("POST", "/v1/quarantine", k_order, Peer{7, 1000, 500, {}});
  CHECK(made.status == 201);
  const auto entry = json::parse(R"({
    "id": "q1", "namespace": "team-a", "owner": "Job/x", "command": null, "faults": 0,
    "since": "2026-11-20T10:00:00.000Z", "until": "2026-11-20T11:00:00.000Z",
    "reason": "broken", "by": "uid 1000"})");
  CHECK(json::parse(made.body) == entry);
  CHECK(json::parse(reply("GET", "/v1/quarantine").body) == json::array({entry}));
  const auto removed = reply("DELETE", "/v1/quarantine/q1");
  CHECK(removed.status == 200);
  CHECK(json::parse(removed.body) ==
        json::parse(R"({"entry": "q1", "message": "Job/x in team-a is kept out no longer"})"));
  const auto again = reply("DELETE", "/v1/quarantine/q1");
  CHECK(again.status == 404);
  CHECK(again.body == error("not_found", "no entry \"q1\""));
}

TEST_CASE_FIXTURE(Fixture, "what is wrong with an order is said") {
  CHECK(reply("POST", "/v1/quarantine", "{}").body ==
        error("bad_request", "namespace: is missing"));
  CHECK(
      reply("POST", "/v1/quarantine", R"({"namespace": "a", "for": "10ms", "reason": "x"})").body ==
      error("bad_request", "for: must be 1s at least and 8784h at most"));
  CHECK(agent.faults_.quarantine_.entries.empty());
}

TEST_CASE_FIXTURE(Fixture, "only operators keep somebody out") {
  const Peer stranger{7, 1000, 1000, {}};
  const auto added = reply("POST", "/v1/quarantine", k_order, stranger);
  CHECK(added.status == 403);
  CHECK(added.body == error("forbidden", "only root and operators may keep somebody out"));
  const auto removed = reply("DELETE", "/v1/quarantine/q1", "", stranger);
  CHECK(removed.status == 403);
  CHECK(removed.body == error("forbidden", "only root and operators may end a quarantine"));
}

TEST_CASE_FIXTURE(Fixture, "an agent that keeps none of this") {
  agent.keeps_faults_ = false;
  CHECK(reply("GET", "/v1/faults").body == "[]");
  CHECK(reply("GET", "/v1/faults/f4").status == 404);
  CHECK(reply("GET", "/v1/quarantine").body == "[]");
  CHECK(reply("POST", "/v1/quarantine", k_order).body ==
        error("conflict", "this agent keeps no history of faults and no quarantine"));
  CHECK(reply("DELETE", "/v1/quarantine/q1").status == 409);
}

TEST_CASE_FIXTURE(Fixture, "metrics of faults") {
  agent.faults_.counts_ = {{{"GPU-0a", "shared", fault::Kind::app_fault}, 3},
                           {{"GPU-0a", "ns-team-a", fault::Kind::wedged}, 1}};
  auto& times = agent.faults_.times_[{"GPU-0a", "shared", fault::Kind::app_fault}];
  times.add(std::chrono::milliseconds{250});
  times.add(std::chrono::seconds{700});
  (void)reply("POST", "/v1/quarantine", k_order);
  (void)reply("POST", "/v1/quarantine", R"({"namespace": "team-a", "for": "1h", "reason": "x"})");
  agent.faults_.devices_out_.apply(fault::DeviceTakenOut{test::sample_device_out()});
  const auto text = render_metrics(agent.status_, {}, {}, agent.policies_, {}, {}, &agent.faults_);
  for (
      const auto* line :
      {"mps_supervisor_incidents_total{device=\"GPU-0a\",domain=\"shared\",kind=\"app_fault\"} 3\n",
       "mps_supervisor_incidents_total{device=\"GPU-0a\",domain=\"ns-team-a\",kind=\"wedged\"} 1\n",
       "# TYPE mps_supervisor_recovery_seconds histogram\n",
       "mps_supervisor_recovery_seconds_bucket{device=\"GPU-0a\",domain=\"shared\","
       "kind=\"app_fault\",le=\"0.01\"} 0\n",
       "mps_supervisor_recovery_seconds_bucket{device=\"GPU-0a\",domain=\"shared\","
       "kind=\"app_fault\",le=\"0.3\"} 1\n",
       "mps_supervisor_recovery_seconds_bucket{device=\"GPU-0a\",domain=\"shared\","
       "kind=\"app_fault\",le=\"600\"} 1\n",
       "mps_supervisor_recovery_seconds_bucket{device=\"GPU-0a\",domain=\"shared\","
       "kind=\"app_fault\",le=\"+Inf\"} 2\n",
       "mps_supervisor_recovery_seconds_sum{device=\"GPU-0a\",domain=\"shared\","
       "kind=\"app_fault\"} 700.25\n",
       "mps_supervisor_recovery_seconds_count{device=\"GPU-0a\",domain=\"shared\","
       "kind=\"app_fault\"} 2\n",
       "mps_supervisor_quarantined{namespace=\"team-a\"} 2\n",
       "mps_supervisor_device_out_of_service{device=\"GPU-0a\",needs=\"reset\"} 1\n"}) {
    CAPTURE(line);
    CHECK(text.find(line) != std::string::npos);
  }
}
