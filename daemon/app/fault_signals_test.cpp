#include "app/fault_signals.h"

#include <doctest/doctest.h>

using namespace mps;
using namespace mps::app;

namespace {

template <typename T>
std::optional<T> signal_as(const instance::Emit& event, bool shut_down = false) {
  const auto signal = signal_of(event, shut_down);
  const auto* found = signal ? std::get_if<T>(&*signal) : nullptr;
  return found == nullptr ? std::nullopt : std::optional<T>(*found);
}

}  // namespace

TEST_CASE("events that are signs of a fault") {
  // Its lines have been told of; what was asked for has not.
  CHECK_FALSE(signal_of({"fault", "…", {{"server", "500"}, {"sign", "log"}}}, false));
  CHECK_FALSE(signal_of({"fault", "…", {{"server", "500"}, {"sign", "culprit"}}}, false));
  CHECK(signal_as<fault::ServerStatusSeen>({"fault", "…", {{"sign", "status"}}}));
  CHECK(signal_as<fault::Wedged>({"wedged", "no answer", {}})->why == "no answer");
  CHECK(signal_as<fault::StartFailed>({"server_start_failed", "…", {{"cause", "no device"}}})
            ->cause == "no device");
  CHECK(signal_as<fault::StartFailed>({"start_failed", "exec: gone", {}})->cause == "exec: gone");
  const auto server = signal_as<fault::ServerEnded>(
      {"server_exited", "server 500 exited with status 1", {{"pid", "500"}, {"status", "1"}}});
  CHECK(server->pid == 500);
  CHECK(server->how == "server 500 exited with status 1");
  CHECK_FALSE(server->asked);
  CHECK(signal_as<fault::ServerEnded>({"server_exited", "", {{"pid", "500"}}}, true)->asked);
  CHECK(signal_as<fault::ServerEnded>({"server_exited", "", {{"asked", "as quit asked"}}})->asked);
  CHECK_FALSE(signal_as<fault::ServerEnded>({"server_exited", "", {{"asked", ""}}})->asked);
  CHECK(signal_as<fault::DaemonEnded>(
            {"control_exited", "", {{"expected", "false"}, {"asked", "true"}}})
            ->asked);
  CHECK_FALSE(
      signal_as<fault::DaemonEnded>({"control_exited", "", {{"expected", "false"}}})->asked);
  CHECK(signal_as<fault::DaemonEnded>({"control_exited", "", {{"expected", "true"}}})->asked);
}

TEST_CASE("events of recovery") {
  CHECK(signal_as<fault::Serving>({"fault_over", "", {}}));
  CHECK(signal_as<fault::Serving>({"ready", "", {{"pid", "1"}, {"faulted", "false"}}}));
  CHECK_FALSE(signal_of({"ready", "", {{"pid", "1"}, {"faulted", "true"}}}, false));
  CHECK(signal_as<fault::Serving>({"server_ready", "", {}}));
  CHECK(signal_as<fault::Serving>({"undrained", "", {{"serving", "true"}}}));
  CHECK_FALSE(signal_of({"undrained", "", {{"serving", "false"}}}, false));
  CHECK(signal_as<fault::AnswersAgain>({"channel_ok", "", {}}));
  CHECK(signal_as<fault::GivenUp>({"failed", "gave up", {}})->why == "gave up");
  const auto step = signal_as<fault::StepTaken>({"fault_shutdown", "server 500 …", {}});
  CHECK(step->name == "end the server");
  CHECK(step->outcome == "server 500 …");
  for (const char* kind :
       {"fault_clients", "fault_clients_signalled", "fault_restart", "restarting"}) {
    CHECK(signal_as<fault::StepTaken>({kind, "x", {}}));
  }
  CHECK_FALSE(signal_of({"limits_drifted", "", {}}, false));
}

TEST_CASE("clients that events tell of") {
  const fault::Time at{std::chrono::milliseconds{5}};
  const auto client =
      client_of({"client_asked",
                 "…",
                 {{"pid", "900"}, {"uid", "1000"}, {"command", "python3"}, {"startTicks", "77"}}},
                at);
  REQUIRE(client);
  CHECK(client->pid == 900);
  CHECK(client->uid == 1000);
  CHECK(client->command == "python3");
  CHECK(client->start_ticks == 77);
  CHECK(client->since == at);
  CHECK_FALSE(client_of({"client_gone", "", {{"pid", "900"}}}, at));
  CHECK(signal_as<fault::ClientWent>({"client_gone", "", {{"pid", "900"}}})->pid == 900);
  // One that is only said to be served came at a time that nobody knows.
  const auto served = client_of({"client_connected", "…", {{"pid", "900"}}}, at);
  REQUIRE(served);
  CHECK(served->since == fault::Time{});
  CHECK_FALSE(served->uid);
}

TEST_CASE("whether all clients are known") {
  CHECK(signal_as<fault::ClientsKnown>({"clients_listed", "", {}})->all);
  CHECK(signal_as<fault::ClientsKnown>({"control_started", "", {}})->all);
  CHECK_FALSE(signal_as<fault::ClientsKnown>({"log_lost", "", {}})->all);
}

TEST_CASE("clients that were let in") {
  admission::LetIn in;
  in.instance = "gpu0.shared";
  in.share = "open";
  in.process = {900, 77};
  in.who.subject = "team-a";
  in.who.container = "/kubepods/x 5";
  in.who.container_name = "cuda";
  in.who.pod = "web-0";
  in.who.owner = "Deployment/web";
  in.who.uid = 1000;
  in.grant.active_thread_percentage = 25;
  in.grant.pinned_memory_mebibytes = 1024;
  in.command = "python3 train.py";
  auto facts = facts_of(in, {});
  CHECK(facts.pid == 900);
  CHECK(facts.start_ticks == 77);
  CHECK(facts.container == "cuda");
  CHECK(facts.pod == "web-0");
  CHECK(facts.owner == "Deployment/web");
  CHECK(facts.subject == "team-a");
  CHECK(facts.command == "python3 train.py");
  CHECK(facts.share == "open");
  CHECK(facts.active_thread_percentage == 25);
  CHECK(facts.pinned_memory_mebibytes == 1024);
  in.explained = false;
  CHECK_FALSE(facts_of(in, {}).active_thread_percentage);
  in.who.container_name.clear();
  CHECK(facts_of(in, {}).container == "/kubepods/x 5");
}

TEST_CASE("lines of the log that count before the instance has dealt with them") {
  const auto line = [](const std::string& text) {
    return signal_of(control::parse_log_line("[2026-11-20 23:22:15.182 Other  500] " + text));
  };
  const auto culprit = line("Client process 900 encountered a fatal GPU error.");
  REQUIRE(culprit);
  CHECK(std::get<fault::CulpritNamed>(*culprit).pid == 900);
  const auto status = line("Status of client {900, 1} is INACTIVE");
  REQUIRE(status);
  CHECK(std::get<fault::ClientStatusSeen>(*status).pid == 900);
  CHECK_FALSE(std::get<fault::ClientStatusSeen>(*status).active);
  const auto fatal = line("Server is handling a fatal GPU error.");
  REQUIRE(fatal);
  CHECK(std::get<fault::FatalFaultLogged>(*fatal).server == 500);
  CHECK(std::get<fault::StickyClients>(*line("The following clients have a sticky error set:"))
            .pids.empty());
  CHECK(std::holds_alternative<fault::ContextRecreated>(
      *line("Creating server context on device 0")));
  CHECK_FALSE(line("The following devices will be reset:"));
  control::LogEvent listed;
  listed.kind = control::StickyClient{900};
  CHECK(std::get<fault::StickyClients>(*signal_of(listed)).pids == std::vector<pid_t>{900});
  listed.kind = control::ClientAsked{0, 1000, false};
  CHECK_FALSE(std::get<fault::ClientsKnown>(*signal_of(listed)).all);
  listed.kind = control::ClientAsked{900, 1000, false};
  CHECK_FALSE(signal_of(listed));
}
