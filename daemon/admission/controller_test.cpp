#include "admission/controller.h"

#include <sys/resource.h>

#include "admission/controller_kit.h"

using namespace mps;
using namespace mps::admission;
using namespace mps::admission::test;

TEST_CASE("within its quota it is let in; its end lets the next one in") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  first.end();
  kit.until([&] { return kit.answers[1] == "in"; });
  CHECK(kit.desk->ledger().slot_count() == 1);
}

TEST_CASE("who may not wait is refused, and it is said whom") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.ask(second, false);
  kit.until_told(1, "refused quota_clients");
  REQUIRE(kit.said.size() == 1);
  CHECK(kit.said[0] ==
        "refused gpu0.shared: unit:a.service was refused, quota_clients: unit:a.service has 1 of "
        "1 clients on gpu0");
}

TEST_CASE("who cannot be told is refused") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.ask(program);
  kit.until_told(0, "refused unidentified");
}

TEST_CASE("an instance that is not known yet makes nobody wait for nothing") {
  Kit kit;
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "refused not_ready");
}

TEST_CASE("while the instance starts it waits, and is let in when that serves") {
  Kit kit;
  kit.door(share::NotReady{"starting"});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "waits not_ready");
  kit.door(share::Serving{});
  kit.until([&] { return kit.answers[0] == "in"; });
}

TEST_CASE("who leaves while it waits is forgotten; who leaves when just let in has its slot") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  const auto request = kit.ask(first);
  kit.until([&] { return kit.desk->ledger().slot_count() == 1; });
  kit.desk->withdraw(request);
  const auto waiting = kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  kit.desk->withdraw(waiting);
  CHECK(kit.desk->ledger().waiting_count() == 0);
  CHECK(kit.answers[0].empty());
}

TEST_CASE("a supervisor that comes later goes on from what was recorded") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.reopen();
  kit.door(share::Serving{});
  CHECK(kit.desk->found_inside("gpu0.shared", first.pid(), ::getuid()) == kit.slots[0]);
  kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  first.end();
  kit.until([&] { return kit.answers[1] == "in"; });
}

TEST_CASE("who ended while no supervisor was there has no slot any more") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.desk->close();
  first.end();
  kit.open();
  kit.door(share::Serving{});
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
  kit.ask(second);
  kit.until_told(1, "in");
}

TEST_CASE("a client that nothing explains counts, and is adopted") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  const auto slot = kit.desk->found_inside("gpu0.shared", program.pid(), ::getuid());
  REQUIRE(slot);
  CHECK(kit.desk->ledger().slots(10).front().slot.admission == 0);
  const auto pid = program.pid();
  program.end();
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
  CHECK_FALSE(kit.desk->found_inside("gpu0.shared", pid, ::getuid()));
}

TEST_CASE("an admission ends when nobody is in its cgroup, and not before") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "in");
  program.end();
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
  CHECK(kit.desk->ledger().admissions(10).size() == 1);
  kit.empty("a.service");
  kit.until([&] { return kit.desk->ledger().admissions(10).empty(); });
}

TEST_CASE("a process that cannot be watched for want of descriptors keeps its slot") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.desk->close();
  kit.open();
  // Before the executor gets to watch it.
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  std::vector<UniqueFd> all;
  const rlimit few{64, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  for (int made = ::dup(0); made >= 0; made = ::dup(0)) all.emplace_back(made);
  kit.io.restart();
  kit.io.poll();
  CHECK(kit.desk->ledger().slot_count() == 1);
  all.clear();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  first.end();
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
}

TEST_CASE("a new policy counts for who waits") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  auto text = std::string(k_policies);
  text.replace(text.find("clients: 1"), 10, "clients: 2");
  kit.generation = policy::next_generation(*kit.generation, {{"all.yaml", text, ""}}, {});
  kit.desk->policies_changed();
  kit.until([&] { return kit.answers[1] == "in"; });
}

TEST_CASE("what it has, and what it would get") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "in");
  Peer peer{"gpu0.shared", "open", program.pid(), ::getuid(), ::getgid(), {}};
  std::optional<Standing> standing;
  kit.desk->standing(std::move(peer), [&standing](const auto& answer) {
    if (const auto* known = std::get_if<Standing>(&answer)) standing = *known;
  });
  kit.until([&] { return standing.has_value(); });
  CHECK(standing->subject == "unit:a.service");
  CHECK(standing->container == "unit a.service");
  CHECK(standing->clients == 1);
  CHECK(standing->grant.active_thread_percentage == 20.0);
  CHECK(standing->grant.pinned_memory_mebibytes == 2048);
}

TEST_CASE("a damaged checkpoint is said, and what can be read of it counts") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "in");
  kit.desk->close();
  std::ofstream(kit.folder / "admissions.log", std::ios::app) << "rubbish\n";
  kit.open();
  REQUIRE(kit.said.size() == 1);
  CHECK(kit.said[0] == "admissions_damaged : " + (kit.folder / "admissions.log").string() +
                           ": 1 damaged line, the first in line 3 (is damaged); clients "
                           "that they spoke of go on, and count as adopted");
  CHECK(kit.desk->ledger().slot_count() == 1);
}
