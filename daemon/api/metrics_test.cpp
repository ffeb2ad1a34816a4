#include "api/metrics.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>

#include "api/test_support.h"

using namespace mps::api;
using mps::api::test::Reactor;
using mps::api::test::Socket;
using mps::api::test::TempDir;

namespace {

std::string get(std::uint16_t port, const std::string& path) {
  mps::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  Socket socket(std::move(fd));
  socket.send("GET " + path + " HTTP/1.1\r\nConnection: close\r\n\r\n");
  return socket.receive();
}

}  // namespace

TEST_CASE("the metrics, whole") {
  auto instance = test::sample_instance();
  instance.domain = "ns-\"a\\b\n";
  instance.limits_drifted = 3;
  instance.unknown_log_lines = 4;
  auto unlimited = test::sample_instance();
  unlimited.limits = {};
  PolicyStatus policies{test::generation_of({}), test::at("2026-11-20T09:00:00.500Z"), "", "no"};
  auto generation = *policies.generation;
  generation.number = 3;
  generation.hash = "0123456789ab";
  policies.generation = std::make_shared<const mps::policy::Generation>(generation);
  CHECK(
      render_metrics({"0.1.0", 1, {}, false, "x", "", ""}, {instance}, {17, 5}, policies, {}, {}) ==
      R"(# HELP mps_supervisor_build_info The version of the supervisor; always 1.
# TYPE mps_supervisor_build_info gauge
mps_supervisor_build_info{version="0.1.0"} 1
# HELP mps_supervisor_ready 1 if every device that is in service has an instance that serves.
# TYPE mps_supervisor_ready gauge
mps_supervisor_ready 0
# HELP mps_supervisor_instance_state 1 for the state that the instance is in.
# TYPE mps_supervisor_instance_state gauge
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="stopped"} 0
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="starting"} 0
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="ready"} 1
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="faulted"} 0
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="recovering"} 0
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="backoff"} 0
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="failed"} 0
mps_supervisor_instance_state{device="GPU-0a",domain="ns-\"a\\b\n",state="draining"} 0
# HELP mps_supervisor_channel_state 1 for the state of the instance's command channel.
# TYPE mps_supervisor_channel_state gauge
mps_supervisor_channel_state{device="GPU-0a",domain="ns-\"a\\b\n",state="ok"} 1
mps_supervisor_channel_state{device="GPU-0a",domain="ns-\"a\\b\n",state="busy"} 0
mps_supervisor_channel_state{device="GPU-0a",domain="ns-\"a\\b\n",state="blocked"} 0
mps_supervisor_channel_state{device="GPU-0a",domain="ns-\"a\\b\n",state="unanswered"} 0
# HELP mps_supervisor_gate_state 1 for what stands between programs and the instance.
# TYPE mps_supervisor_gate_state gauge
mps_supervisor_gate_state{device="GPU-0a",domain="ns-\"a\\b\n",state="standing"} 0
mps_supervisor_gate_state{device="GPU-0a",domain="ns-\"a\\b\n",state="direct"} 1
mps_supervisor_gate_state{device="GPU-0a",domain="ns-\"a\\b\n",state="down"} 0
# HELP mps_supervisor_instance_clients Processes that are clients of the instance.
# TYPE mps_supervisor_instance_clients gauge
mps_supervisor_instance_clients{device="GPU-0a",domain="ns-\"a\\b\n"} 1
# HELP mps_supervisor_instance_restarts_total Control daemons started again after one that was ready.
# TYPE mps_supervisor_instance_restarts_total counter
mps_supervisor_instance_restarts_total{device="GPU-0a",domain="ns-\"a\\b\n"} 2
# HELP mps_supervisor_limits_drifted_total Limits found changed by somebody else.
# TYPE mps_supervisor_limits_drifted_total counter
mps_supervisor_limits_drifted_total{device="GPU-0a",domain="ns-\"a\\b\n"} 3
# HELP mps_supervisor_unknown_log_lines_total Lines of the daemon's log with unknown wording.
# TYPE mps_supervisor_unknown_log_lines_total counter
mps_supervisor_unknown_log_lines_total{device="GPU-0a",domain="ns-\"a\\b\n"} 4
# HELP mps_supervisor_instance_thread_limit_percent What each client may have of the SMs; absent where there is no limit.
# TYPE mps_supervisor_instance_thread_limit_percent gauge
mps_supervisor_instance_thread_limit_percent{device="GPU-0a",domain="ns-\"a\\b\n"} 25
# HELP mps_supervisor_instance_memory_limit_bytes What each client may have of the memory; absent where there is no limit.
# TYPE mps_supervisor_instance_memory_limit_bytes gauge
mps_supervisor_instance_memory_limit_bytes{device="GPU-0a",domain="ns-\"a\\b\n"} 10737418240
# HELP mps_supervisor_instance_limits_confirmed 1 if the limits were read back since the daemon's start.
# TYPE mps_supervisor_instance_limits_confirmed gauge
mps_supervisor_instance_limits_confirmed{device="GPU-0a",domain="ns-\"a\\b\n"} 1
# HELP mps_supervisor_policy_generation The number of the policies in force.
# TYPE mps_supervisor_policy_generation gauge
mps_supervisor_policy_generation 3
# HELP mps_supervisor_policy_info The hash of the policies in force; always 1.
# TYPE mps_supervisor_policy_info gauge
mps_supervisor_policy_info{hash="0123456789ab"} 1
# HELP mps_supervisor_policy_files Files in the policy directory.
# TYPE mps_supervisor_policy_files gauge
mps_supervisor_policy_files 0
# HELP mps_supervisor_policy_bad_files Of these, files with errors.
# TYPE mps_supervisor_policy_bad_files gauge
mps_supervisor_policy_bad_files 0
# HELP mps_supervisor_policy_directory_readable 1 if the policy directory could be read.
# TYPE mps_supervisor_policy_directory_readable gauge
mps_supervisor_policy_directory_readable 0
# HELP mps_supervisor_policy_changed_timestamp_seconds When the policies in force came into force.
# TYPE mps_supervisor_policy_changed_timestamp_seconds gauge
mps_supervisor_policy_changed_timestamp_seconds 1795165200
# HELP mps_supervisor_events_total Events recorded in the life of the journal.
# TYPE mps_supervisor_events_total counter
mps_supervisor_events_total 17
# HELP mps_supervisor_journal_write_errors_total Writes to the journal that failed.
# TYPE mps_supervisor_journal_write_errors_total counter
mps_supervisor_journal_write_errors_total 5
)");
  const auto text = render_metrics({}, {unlimited}, {}, policies, {}, {});
  CHECK(text.find("thread_limit_percent{") == std::string::npos);
  CHECK(text.find("memory_limit_bytes{") == std::string::npos);
}

TEST_CASE("the metrics of admissions") {
  AdmissionStatus status;
  status.gated = true;
  status.places.push_back({"gpu0.shared", "GPU-0a", "shared", "team-a", 2, 3, 1});
  status.places.push_back({"gpu0.ns-b", "GPU-0a", "ns-b", "unit:a\\b.service", 0, 0, 4});
  status.namespaces.push_back({"team-a", "GPU-0a", {3, 62.5, 62.5, 2048}, 1, {}});
  status.devices.push_back({"GPU-0a", "gpu0", {5, 62.5, 62.5, 2048}, 2, 200, {}});
  status.refused[mps::share::Code::quota_clients] = 7;
  PolicyStatus policies{test::generation_of({}), {}, "", ""};
  const auto text = render_metrics({}, {}, {}, policies, status, {});
  const auto begin = text.find("# HELP mps_supervisor_admissions ");
  const auto end = text.find("# HELP mps_supervisor_policy_generation ");
  CHECK(text.substr(begin, end - begin) ==
        R"(# HELP mps_supervisor_admissions Containers that may have clients.
# TYPE mps_supervisor_admissions gauge
mps_supervisor_admissions{device="GPU-0a",domain="shared",namespace="team-a"} 2
mps_supervisor_admissions{device="GPU-0a",domain="ns-b",namespace="unit:a\\b.service"} 0
# HELP mps_supervisor_admitted_clients Processes that were let in and have not ended.
# TYPE mps_supervisor_admitted_clients gauge
mps_supervisor_admitted_clients{device="GPU-0a",domain="shared",namespace="team-a"} 3
mps_supervisor_admitted_clients{device="GPU-0a",domain="ns-b",namespace="unit:a\\b.service"} 0
# HELP mps_supervisor_waiting_clients Processes that wait to be let in.
# TYPE mps_supervisor_waiting_clients gauge
mps_supervisor_waiting_clients{device="GPU-0a",domain="shared",namespace="team-a"} 1
mps_supervisor_waiting_clients{device="GPU-0a",domain="ns-b",namespace="unit:a\\b.service"} 4
# HELP mps_supervisor_adopted_clients Clients that nothing explains, of an earlier supervisor.
# TYPE mps_supervisor_adopted_clients gauge
mps_supervisor_adopted_clients{device="GPU-0a"} 2
# HELP mps_supervisor_granted_thread_percent The sum of what clients may have of the SMs; one without a limit counts as 100.
# TYPE mps_supervisor_granted_thread_percent gauge
mps_supervisor_granted_thread_percent{device="GPU-0a",namespace="team-a"} 62.5
# HELP mps_supervisor_granted_memory_bytes The sum of what clients may have of the memory.
# TYPE mps_supervisor_granted_memory_bytes gauge
mps_supervisor_granted_memory_bytes{device="GPU-0a",namespace="team-a"} 2147483648
# HELP mps_supervisor_refused_total Requests to come in that were refused.
# TYPE mps_supervisor_refused_total counter
mps_supervisor_refused_total{code="not_ready"} 0
mps_supervisor_refused_total{code="draining"} 0
mps_supervisor_refused_total{code="failed"} 0
mps_supervisor_refused_total{code="device_out"} 0
mps_supervisor_refused_total{code="share_deleted"} 0
mps_supervisor_refused_total{code="no_policy"} 0
mps_supervisor_refused_total{code="unidentified"} 0
mps_supervisor_refused_total{code="quota_clients"} 7
mps_supervisor_refused_total{code="quota_threads"} 0
mps_supervisor_refused_total{code="quota_memory"} 0
mps_supervisor_refused_total{code="device_clients"} 0
mps_supervisor_refused_total{code="device_memory"} 0
mps_supervisor_refused_total{code="device_threads"} 0
mps_supervisor_refused_total{code="wrong_pod"} 0
mps_supervisor_refused_total{code="wrong_domain"} 0
mps_supervisor_refused_total{code="quarantined"} 0
mps_supervisor_refused_total{code="unknown_opening"} 0
mps_supervisor_refused_total{code="timeout"} 0
mps_supervisor_refused_total{code="uid_conflict"} 0
mps_supervisor_refused_total{code="too_many_waiting"} 0
)");
  status.gated = false;
  CHECK(render_metrics({}, {}, {}, policies, status, {}).find("refused_total") ==
        std::string::npos);
}

TEST_CASE("addresses to listen on") {
  const auto text = [](const std::string& given) {
    const auto address = parse_listen_address(given);
    return address ? address->host + " " + std::to_string(address->port) : address.error().message;
  };
  CHECK(text("127.0.0.1:9464") == "127.0.0.1 9464");
  CHECK(text("localhost:1") == "127.0.0.1 1");
  CHECK(text(":9464") == "0.0.0.0 9464");
  CHECK(text("[::1]:9464") == "::1 9464");
  CHECK(text("9464") == "metricsListen: must be ADDRESS:PORT: \"9464\"");
  CHECK(text("127.0.0.1:94640") ==
        "metricsListen: the port must be a number up to 65535: \"127.0.0.1:94640\"");
  CHECK(text("example.org:80") ==
        "metricsListen: the address must be numeric, such as 127.0.0.1:9464 or [::1]:9464: "
        "\"example.org:80\"");
}

TEST_CASE("health over TCP") {
  const TempDir directory;
  test::FakeAgent agent;
  const auto log = std::move(EventLog::open({directory.path(), 16, 1 << 20}).value());
  Reactor reactor;
  auto server = std::move(
      reactor
          .run([&] { return MetricsServer::open(reactor.executor(), "127.0.0.1:0", agent, *log); })
          .value());
  const auto response = [](const std::string& status, const std::string& body) {
    return "HTTP/1.1 " + status + "\r\nContent-Type: text/plain; charset=utf-8\r\n" +
           "Connection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           body;
  };
  CHECK(get(server->port(), "/healthz") == response("200 OK", "ok\n"));
  const std::string hash = agent.policies_.generation->hash;
  const std::string policies = "policies: generation 1, hash " + hash + ", 0 files\n";
  CHECK(get(server->port(), "/readyz") == response("200 OK", "ok\n" + policies));
  reactor.run([&] {
    agent.status_.ready = false;
    agent.status_.not_ready_because = "gpu0.shared is failed";
  });
  CHECK(get(server->port(), "/readyz") ==
        response("503 Service Unavailable", "gpu0.shared is failed\n" + policies));
  // A device that is out of service is said of whoever is ready.
  reactor.run([&] {
    agent.status_.ready = true;
    agent.faults_.devices_out_.apply(mps::fault::DeviceTakenOut{test::sample_device_out()});
  });
  CHECK(get(server->port(), "/readyz") ==
        response("200 OK",
                 "ok\nGPU-0a is out of service since 2026-11-20T10:00:00.000Z until it is reset: "
                 "Xid 46 (GPU timeout), incident f3\n" +
                     policies));
  CHECK(get(server->port(), "/metrics")
            .find("\r\nContent-Type: text/plain; version=0.0.4; "
                  "charset=utf-8\r\n") != std::string::npos);
  CHECK(get(server->port(), "/v1/status").starts_with("HTTP/1.1 404 Not Found\r\n"));

  const auto taken = "127.0.0.1:" + std::to_string(server->port());
  const auto second =
      reactor.run([&] { return MetricsServer::open(reactor.executor(), taken, agent, *log); });
  REQUIRE(!second);
  CHECK(second.error().message == "listen on " + taken + ": Address already in use");
  reactor.run([&] { server.reset(); });
  reactor.finish();
}

TEST_CASE("the metrics of the audit") {
  AuditStatus audit;
  audit.devices = {{"GPU-0a", true}, {"GPU-0b", false}};
  audit.counts = {{"GPU-0a", "outside_mps", 1, 4}, {"GPU-0b", "client_without_slot", 0, 0}};
  const PolicyStatus policies{test::generation_of({}), {}, "", ""};
  const auto text = render_metrics({}, {}, {}, policies, {}, audit);
  const auto begin = text.find("# HELP mps_supervisor_audit_known ");
  const auto end = text.find("# HELP mps_supervisor_policy_generation ");
  CHECK(
      text.substr(begin, end - begin) ==
      R"(# HELP mps_supervisor_audit_known 1 if NVML says who uses the device, so that all kinds can be found.
# TYPE mps_supervisor_audit_known gauge
mps_supervisor_audit_known{device="GPU-0a"} 1
mps_supervisor_audit_known{device="GPU-0b"} 0
# HELP mps_supervisor_audit_findings Processes that break the rules now.
# TYPE mps_supervisor_audit_findings gauge
mps_supervisor_audit_findings{device="GPU-0a",kind="outside_mps"} 1
mps_supervisor_audit_findings{device="GPU-0b",kind="client_without_slot"} 0
# HELP mps_supervisor_audit_found_total Processes found to break the rules.
# TYPE mps_supervisor_audit_found_total counter
mps_supervisor_audit_found_total{device="GPU-0a",kind="outside_mps"} 4
mps_supervisor_audit_found_total{device="GPU-0b",kind="client_without_slot"} 0
)");
}
