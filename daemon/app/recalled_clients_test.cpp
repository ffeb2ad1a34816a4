#include "app/recalled_clients.h"

#include <doctest/doctest.h>

using namespace mps;
using namespace mps::app;

namespace {

admission::LetIn recorded(pid_t pid, std::uint64_t ticks, std::int64_t since,
                          std::int64_t until = 0) {
  admission::LetIn in;
  in.instance = "gpu0.shared";
  in.share = "open";
  in.process = {pid, ticks};
  in.who.subject = "team-a";
  in.who.pod = "web-0";
  in.who.container_name = "cuda";
  in.who.owner = "Deployment/web";
  in.who.uid = 1000;
  in.grant.active_thread_percentage = 25;
  in.command = "python3 train.py";
  in.since = since;
  in.until = until;
  return in;
}

fault::Time at(std::int64_t milliseconds) {
  return fault::Time(std::chrono::milliseconds(milliseconds));
}

api::Event event(const std::string& kind, pid_t pid, std::int64_t when, const char* ticks = "7") {
  api::Event made;
  made.kind = kind;
  made.instance = "gpu0.shared";
  made.time = at(when);
  if (pid != 0) made.data = {{"pid", std::to_string(pid)}};
  if (kind == "client_asked") {
    made.data["uid"] = "1001";
    made.data["command"] = "python3";
    made.data["startTicks"] = ticks;
  }
  return made;
}

using Desk = std::vector<admission::LetIn>;

}  // namespace

TEST_CASE("with a gate: as the desk has recorded them") {
  const auto recalled = recall_clients(
      Desk{recorded(41, 7, 5000), recorded(42, 8, 6000, 7000)}, true,
      {event("client_asked", 41, 5050), event("client_gone", 42, 7100)}, "gpu0.shared");
  REQUIRE(recalled.clients.size() == 2);
  const auto& first = recalled.clients[0].facts;
  CHECK(first.pid == 41);
  CHECK(first.start_ticks == 7);
  CHECK(first.uid == 1000);
  CHECK(first.command == "python3 train.py");
  CHECK(first.container == "cuda");
  CHECK(first.pod == "web-0");
  CHECK(first.subject == "team-a");
  CHECK(first.owner == "Deployment/web");
  CHECK(first.share == "open");
  CHECK(first.active_thread_percentage == 25);
  CHECK(first.since == at(5000));
  CHECK_FALSE(recalled.clients[0].until);
  CHECK(recalled.clients[1].until == at(7000));
  CHECK(recalled.all);
  CHECK_FALSE(recall_clients(Desk{}, false, {}, "gpu0.shared").all);
  CHECK(recall_clients(Desk{recorded(41, 7, 5000)}, true, {}, "gpu1.shared").clients.empty());
}

TEST_CASE("what was not recorded is not known") {
  auto adopted = recorded(41, 7, 0);
  adopted.explained = false;
  adopted.command.clear();
  adopted.who = {};
  adopted.who.uid = 1000;
  const auto recalled = recall_clients(Desk{adopted}, true, {}, "gpu0.shared");
  REQUIRE(recalled.clients.size() == 1);
  const auto& facts = recalled.clients[0].facts;
  CHECK(facts.uid == 1000);
  CHECK(facts.command.empty());
  CHECK(facts.subject.empty());
  CHECK_FALSE(facts.active_thread_percentage);
  CHECK(facts.since == fault::Time{});
}

TEST_CASE("without a gate: as the journal has them") {
  const auto recalled =
      recall_clients({}, false,
                     {event("server_ready", 500, 4000), event("client_asked", 41, 5000),
                      event("client_asked", 42, 6000, "8"), event("client_connected", 42, 6001),
                      event("client_gone", 41, 7000), event("client_asked", 41, 8000, "9"),
                      event("client_asked", 0, 8500)},
                     "gpu0.shared");
  REQUIRE(recalled.clients.size() == 3);
  CHECK(recalled.clients[0].facts.pid == 41);
  CHECK(recalled.clients[0].until == at(7000));
  CHECK(recalled.clients[1].facts.pid == 42);
  CHECK(recalled.clients[1].facts.uid == 1001);
  CHECK(recalled.clients[1].facts.command == "python3");
  CHECK(recalled.clients[1].facts.since == at(6000));
  CHECK_FALSE(recalled.clients[1].facts.active_thread_percentage);
  CHECK_FALSE(recalled.clients[1].until);
  CHECK(recalled.clients[2].facts.start_ticks == 9);
  CHECK_FALSE(recalled.clients[2].until);
  CHECK(recalled.all);
}

TEST_CASE("a journal that does not reach back, or a log that was lost, may lack some") {
  CHECK_FALSE(recall_clients({}, false, {event("client_asked", 41, 1)}, "gpu0.shared").all);
  CHECK_FALSE(recall_clients({}, false, {event("server_ready", 500, 1), event("log_lost", 0, 2)},
                             "gpu0.shared")
                  .all);
}

TEST_CASE("so many are recalled at most, the last ones of those who have gone") {
  Desk desk;
  for (int i = 1; i <= 300; ++i) desk.push_back(recorded(i, 7, i, i + 1));
  desk.push_back(recorded(1000, 7, 1000));
  const auto recalled = recall_clients(desk, true, {}, "gpu0.shared");
  REQUIRE(recalled.clients.size() == 129);
  CHECK(recalled.clients.front().facts.pid == 173);
  CHECK(recalled.all);
  for (int i = 0; i < 200; ++i) desk.push_back(recorded(2000 + i, 7, 1));
  CHECK_FALSE(recall_clients(desk, true, {}, "gpu0.shared").all);
}
