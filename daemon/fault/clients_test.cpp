#include "fault/clients.h"

#include <doctest/doctest.h>

using namespace mps::fault;
using namespace std::chrono_literals;

namespace {

Time at(int milliseconds) {
  return Time(std::chrono::milliseconds(1'000'000 + milliseconds));
}

ClientFacts client(pid_t pid, std::uint64_t ticks, Time since, std::string command = "train") {
  ClientFacts facts;
  facts.pid = pid;
  facts.start_ticks = ticks;
  facts.command = std::move(command);
  facts.since = since;
  return facts;
}

std::vector<pid_t> pids(const std::vector<ClientFacts>& list) {
  std::vector<pid_t> all;
  for (const auto& one : list) all.push_back(one.pid);
  return all;
}

using Pids = std::vector<pid_t>;

}  // namespace

TEST_CASE("who was there at a time") {
  Clients clients;
  clients.came(client(1, 7, at(0)), at(0));
  clients.came(client(2, 8, at(100)), at(100));
  clients.went(1, 7, at(1000));
  CHECK(pids(clients.at(at(50), 0ms)) == Pids{1});
  CHECK(pids(clients.at(at(1000), 0ms)) == Pids{2, 1});
  CHECK(pids(clients.at(at(1001), 0ms)) == Pids{2});
  CHECK(pids(clients.at(at(3000), 2s)) == Pids{2, 1});
  CHECK(pids(clients.at(at(3001), 2s)) == Pids{2});
}

TEST_CASE("who has gone is known for ten seconds") {
  Clients clients;
  clients.came(client(1, 7, at(0)), at(0));
  clients.went(1, 0, at(1000));  // whatever its start was
  clients.forget(at(11000));
  REQUIRE(clients.find(1) != nullptr);
  CHECK(clients.find(1)->start_ticks == 7);
  clients.forget(at(11001));
  CHECK(clients.find(1) == nullptr);
  CHECK(clients.find(2) == nullptr);
}

TEST_CASE("a pid that another has now") {
  Clients clients;
  clients.came(client(1, 7, at(0), "old"), at(0));
  clients.came(client(1, 9, at(500), "new"), at(500));
  CHECK(clients.find(1)->command == "new");
  CHECK(pids(clients.at(at(600), 2s)) == Pids{1, 1});
  clients.went(1, 7, at(700));  // long known
  CHECK(clients.find(1)->command == "new");
}

TEST_CASE("what is known of a client may grow, and is made safe") {
  Clients clients;
  clients.came(client(1, 7, at(100)), at(100));
  clients.came(client(1, 7, at(200), "a\nb" + std::string(1000, 'x')), at(200));
  CHECK(clients.size() == 1);
  CHECK(clients.find(1)->since == at(100));
  CHECK(clients.find(1)->command.starts_with("a\\x0abxxx"));
  CHECK(clients.find(1)->command.size() < 270);
}

TEST_CASE("a pid alone says nothing new of one who is known") {
  Clients clients;
  clients.came(client(1, 7, at(100)), at(100));
  clients.came(client(1, 0, at(200), ""), at(200));
  CHECK(clients.size() == 1);
  CHECK(clients.find(1)->command == "train");
  // And one of whom the pid alone was known is the one of whom more is.
  clients.came(client(2, 0, at(100), ""), at(100));
  clients.came(client(2, 9, at(200)), at(200));
  CHECK(clients.size() == 2);
  CHECK(clients.find(2)->start_ticks == 9);
}

TEST_CASE("clients are bounded") {
  Clients clients;
  for (int i = 1; i <= 200; ++i) clients.came(client(i, 1, at(0)), at(0));
  CHECK(clients.at(at(0), 0ms).size() == k_client_limit);
  CHECK(clients.left_out() == 200 - k_client_limit);
  for (int i = 1; i <= 200; ++i) clients.went(i, 1, at(1));
  CHECK(clients.left_out() == 0);
  CHECK(clients.size() == k_client_limit);
  clients.forget(at(20000));
  CHECK(clients.size() == 0);
}
