#include "app/journal_recorder.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

using namespace mps;
using namespace mps::app;

namespace {

api::Event event(const std::string& kind, const std::string& pid, const std::string& ticks = "7",
                 const std::string& instance = "gpu0.shared") {
  api::Event made;
  made.kind = kind;
  made.instance = instance;
  made.data = {{"pid", pid}, {"uid", "1000"}, {"command", "python3"}, {"startTicks", ticks}};
  return made;
}

}  // namespace

TEST_CASE("clients that had not gone are recalled, with who they were") {
  const std::deque<api::Event> events{
      event("client_asked", "1"),        event("client_asked", "2"),
      event("client_connected", "2"),    event("client_gone", "1"),
      event("client_asked", "3", "9"),   event("client_asked", "4", "7", "gpu1.shared"),
      event("client_asked", "not a pid")};
  const auto remembered = recall(events, "gpu0.shared");
  REQUIRE(remembered.clients.size() == 2);
  CHECK(remembered.clients[0].pid == 2);
  CHECK(remembered.clients[0].connected);
  CHECK(remembered.clients[0].uid == 1000);
  CHECK(remembered.clients[0].command == "python3");
  CHECK(remembered.clients[1].pid == 3);
  CHECK(remembered.clients[1].start_ticks == 9);
  CHECK_FALSE(remembered.clients[1].connected);
}

TEST_CASE("a failing server is recalled until one was ready") {
  auto failed = event("server_start_failed", "5");
  failed.data["cause"] = "no device";
  CHECK(recall({failed}, "gpu0.shared").start_failure == "no device");
  CHECK_FALSE(recall({failed, event("server_ready", "6")}, "gpu0.shared").start_failure);
  CHECK_FALSE(recall({failed, event("control_started", "6")}, "gpu0.shared").start_failure);
  CHECK_FALSE(recall({failed}, "gpu1.shared").start_failure);
}

TEST_CASE("a daemon is recalled until it has ended, also where its start is too old to be known") {
  CHECK_FALSE(recall({event("control_started", "9", "7", "gpu1.shared")}, "gpu0.shared").daemon);
  auto last = event("client_asked", "4");
  last.time = std::chrono::system_clock::time_point(std::chrono::seconds(30));
  const auto known = recall({event("control_started", "9"), last}, "gpu0.shared").daemon;
  REQUIRE(known);
  CHECK(known->pid == 9);
  CHECK(known->seen == last.time);
  CHECK(recall({event("control_adopted", "9")}, "gpu0.shared").daemon->pid == 9);
  for (const char* kind : {"client_asked", "client_connected", "server_ready", "ready"}) {
    const auto seen = recall({event(kind, "4")}, "gpu0.shared").daemon;
    REQUIRE(seen);
    CHECK(seen->pid == 0);
  }
  for (const char* kind : {"control_exited", "stopped"}) {
    CHECK_FALSE(recall({event("control_started", "9"), event(kind, "9")}, "gpu0.shared").daemon);
  }
  CHECK_FALSE(recall({event("client_gone", "4"), event("start_failed", "")}, "gpu0.shared").daemon);
}

TEST_CASE("a server's fault is recalled until it is over") {
  const auto told = [](const std::string& kind, const char* field, const char* value) {
    api::Event made;
    made.kind = kind;
    made.instance = "gpu0.shared";
    made.data = {{field, value}};
    return made;
  };
  const auto fault = told("fault", "server", "500");
  CHECK(recall({fault}, "gpu0.shared").faulted_server == 500);
  for (const std::string kind :
       {"fault_over", "fault_recovered", "server_exited", "server_ready", "control_started"}) {
    CAPTURE(kind);
    CHECK_FALSE(recall({fault, told(kind, "pid", "500")}, "gpu0.shared").faulted_server);
  }
  // The next supervisor found it so, or found that it was over.
  CHECK(recall({fault, told("ready", "faulted", "true")}, "gpu0.shared").faulted_server == 500);
  CHECK_FALSE(recall({fault, told("ready", "faulted", "false")}, "gpu0.shared").faulted_server);
}

TEST_CASE("what may begin an incident is told of before it is recorded, and the rest behind it") {
  std::string folder = "/tmp/mps-recorder-XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  auto log = api::EventLog::open({.directory = folder});
  REQUIRE(log.has_value());
  JournalRecorder recorder(**log);
  std::vector<std::string> told;
  recorder.on_event([&](const std::string&, const instance::Emit& event) {
    const bool recorded = !(*log)->ring().empty() && (*log)->ring().back().kind == event.kind;
    told.push_back(event.kind + (recorded ? " behind" : " before"));
  });
  for (const char* kind : {"fault", "server_exited", "fault_over", "ready"}) {
    recorder.record("gpu0.shared", {kind, "", {}}, std::nullopt);
  }
  CHECK(told == std::vector<std::string>{"fault before", "server_exited before",
                                         "fault_over behind", "ready behind"});
  std::filesystem::remove_all(folder);
}

TEST_CASE("an event and where its log was read to are one record") {
  std::string folder = "/tmp/mps-recorder-XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  {
    auto log = api::EventLog::open({.directory = folder});
    REQUIRE(log.has_value());
    JournalRecorder recorder(**log);
    recorder.record("gpu0.shared", {"client_asked", "client 1 asks", {{"pid", "1"}}},
                    instance::ReadPosition{"42-1.5", 4711});
  }
  auto log = api::EventLog::open({.directory = folder});
  REQUIRE(log.has_value());
  JournalRecorder recorder(**log);
  CHECK(recorder.position("gpu0.shared", "42-1.5") == 4711);
  CHECK_FALSE(recorder.position("gpu0.shared", "43-1.5"));
  CHECK(recorder.remember("gpu0.shared").clients.size() == 1);
  std::filesystem::remove_all(folder);
}
