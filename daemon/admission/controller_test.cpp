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
  const auto recalled = kit.desk->take_recalled();
  REQUIRE(recalled.size() == 1);
  CHECK(recalled[0].instance == "gpu0.shared");
  CHECK(recalled[0].share == "open");
  CHECK(recalled[0].process.pid == first.pid());
  CHECK(recalled[0].process.start_ticks != 0);
  CHECK(recalled[0].who.subject == "unit:a.service");
  CHECK(recalled[0].who.container_name == "a.service");
  CHECK(recalled[0].who.uid == ::getuid());
  CHECK(recalled[0].grant.active_thread_percentage == 20);
  CHECK(recalled[0].command.find("admission_test") != std::string::npos);
  CHECK(recalled[0].since > 0);
  CHECK(recalled[0].until == 0);
  CHECK(recalled[0].explained);
  CHECK(kit.desk->take_recalled().empty());
  CHECK(kit.desk->records_whole());
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
  // Who asks what it did still hears of it.
  CHECK(kit.desk->take_recalled().size() == 1);
  kit.door(share::Serving{});
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
  CHECK(kit.left == std::vector<std::string>{"gpu0.shared " + std::to_string(first.pid())});
  kit.ask(second);
  kit.until_told(1, "in");
  kit.reopen();
  const auto recalled = kit.desk->take_recalled();
  REQUIRE(recalled.size() == 2);
  CHECK(recalled[0].process.pid == first.pid());
  CHECK(recalled[0].until >= recalled[0].since);
  CHECK(recalled[1].process.pid == second.pid());
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

namespace {

Standing standing_of(Kit& kit, const Program& program) {
  Peer peer{"gpu0.shared", "open", program.pid(), ::getuid(), ::getgid(), {}};
  std::optional<Standing> standing;
  kit.desk->standing(std::move(peer), [&standing](const auto& answer) {
    if (const auto* known = std::get_if<Standing>(&answer)) standing = *known;
  });
  kit.until([&] { return standing.has_value(); });
  return *standing;
}

std::string next_of(const Standing& standing) {
  if (standing.next.kind == share::Prospect::Kind::granted) return "granted";
  const bool waits = standing.next.kind == share::Prospect::Kind::waits;
  return (waits ? "waits " : "refused ") + std::string(to_string(standing.next.why.code));
}

}  // namespace

TEST_CASE("what it has, and what it would get") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  Program second;
  kit.put(program, "a.service");
  kit.put(second, "a.service");
  kit.ask(program);
  kit.until_told(0, "in");
  const auto standing = standing_of(kit, program);
  CHECK(standing.subject == "unit:a.service");
  CHECK(standing.container == "unit a.service");
  CHECK(standing.clients == 1);
  CHECK(standing.grant.active_thread_percentage == 20.0);
  CHECK(standing.grant.pinned_memory_mebibytes == 2048);
  CHECK(standing.instance_state == "ready");
  CHECK(next_of(standing) == "granted");
  const auto other = standing_of(kit, second);
  CHECK(other.clients == 1);
  CHECK(next_of(other) == "waits quota_clients");
}

TEST_CASE("what one more client would come to takes no slot, no place in line, and is no refusal") {
  Kit kit;
  Program program;
  kit.put(program, "a.service");
  kit.door(share::NotReady{"recovering"});
  auto standing = standing_of(kit, program);
  CHECK(standing.instance_state == "recovering");
  CHECK(next_of(standing) == "waits not_ready");
  kit.door(share::Closed{share::draining("gpu0.shared"), true});
  standing = standing_of(kit, program);
  CHECK(standing.instance_state == "draining");
  CHECK(next_of(standing) == "refused draining");
  CHECK(standing.next.why.sentence == "gpu0.shared takes no new clients: it is draining");
  kit.door(share::Serving{});
  CHECK(next_of(standing_of(kit, program)) == "granted");
  CHECK(kit.desk->ledger().slot_count() == 0);
  CHECK(kit.desk->ledger().waiting_count() == 0);
  CHECK(kit.desk->refused().empty());
  CHECK(kit.said.empty());
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

namespace {

std::vector<pid_t> pids_of(const std::vector<share::Process>& processes) {
  std::vector<pid_t> pids;
  pids.reserve(processes.size());
  for (const auto& process : processes) pids.push_back(process.pid);
  return pids;
}

std::shared_ptr<const policy::Generation> three_each() {
  const std::string three =
      std::string(k_policies).replace(std::string(k_policies).find("clients: 1"), 10, "clients: 3");
  return policy::next_generation({}, {{"all.yaml", three, ""}}, {});
}

// Two programs of a.service and one of b.service are let in; a third of a.service is none.
struct Clients : Kit {
  Clients() {
    generation = three_each();
    door(share::Serving{});
    for (const auto* program : {&first, &second, &shell}) put(*program, "a.service");
    put(other, "b.service");
    for (const auto* program : {&first, &second, &other}) ask(*program);
    until([this] { return slots.size() == 3; });
  }
  Program first, second, shell, other;
};

}  // namespace

TEST_CASE("a container's own clients are terminated, and nobody else's") {
  Clients kit;
  kit.terminate_own(kit.shell);
  kit.until([&] { return !kit.terminations.empty(); });
  CHECK(kit.terminations[0].instance == "gpu0.shared");
  const auto processes = kit.terminations[0].processes;
  CHECK(pids_of(processes) == std::vector{kit.first.pid(), kit.second.pid()});
  CHECK(processes[0].start_ticks != 0);
  SUBCASE("both") {
    kit.terminations[0].told(
        {{Ended::Kind::ended, processes[0], ""}, {Ended::Kind::ended, processes[1], ""}});
    CHECK(kit.ended == std::vector<std::string>{"2 ended"});
  }
  SUBCASE("one that is no client of MPS yet counts for nothing") {
    kit.terminations[0].told(
        {{Ended::Kind::was_none, processes[0], ""}, {Ended::Kind::ended, processes[1], ""}});
    CHECK(kit.ended == std::vector<std::string>{"1 ended"});
  }
  SUBCASE("it is said why one was not") {
    kit.terminations[0].told({{Ended::Kind::failed, processes[0], "MPS says \"no\""},
                              {Ended::Kind::ended, processes[1], ""}});
    CHECK(kit.ended == std::vector<std::string>{"1 ended; " + std::to_string(processes[0].pid) +
                                                ": MPS says \"no\""});
  }
  SUBCASE("one request of a container at a time, and then another") {
    kit.terminate_own(kit.first);
    kit.until([&] { return !kit.ended.empty(); });
    CHECK(kit.ended[0].starts_with("too_many_waiting: "));
    CHECK(kit.terminations.size() == 1);
    kit.terminate_own(kit.other);
    kit.until([&] { return kit.terminations.size() == 2; });
    CHECK(pids_of(kit.terminations[1].processes) == std::vector{kit.other.pid()});
    kit.terminations[0].told({});
    kit.terminate_own(kit.first);
    kit.until([&] { return kit.terminations.size() == 3; });
  }
  SUBCASE("an answer after the end") {
    kit.desk->close();
    kit.terminations[0].told({});
    CHECK(kit.ended == std::vector<std::string>{"0 ended"});
  }
}

TEST_CASE("of a container's clients, those of one process and its descendants") {
  Clients kit;
  kit.terminate_own(kit.shell, Scope::descendants);
  kit.until([&] { return !kit.ended.empty(); });
  CHECK(kit.ended == std::vector<std::string>{"0 ended"});
  CHECK(kit.terminations.empty());
  kit.terminate_own(kit.second, Scope::descendants);
  kit.until([&] { return !kit.terminations.empty(); });
  CHECK(pids_of(kit.terminations[0].processes) == std::vector{kit.second.pid()});
  kit.terminate_own(kit.first, Scope::descendants);
  kit.until([&] { return kit.ended.size() == 2; });
  CHECK(kit.ended[1].starts_with("too_many_waiting: "));
}

namespace {

// Units, each a namespace and a container, with a client each.
struct Containers : Kit {
  Containers() {
    generation = three_each();
    door(share::Serving{});
  }

  Program& add(const std::string& unit) {
    programs.push_back(std::make_unique<Program>());
    put(*programs.back(), unit);
    const auto before = slots.size();
    ask(*programs.back());
    until([this, before] { return slots.size() > before; });
    return *programs.back();
  }
  // What is said at once; nothing: its clients are being terminated.
  std::string terminate(const std::string& unit) {
    const auto told = ended.size();
    const auto begun = terminations.size();
    terminate_own(add(unit));
    until([&] { return ended.size() > told || terminations.size() > begun; });
    return ended.size() > told ? ended.back() : "";
  }
  // The unit's cgroup is another one from now on, and so another container of the same namespace.
  void make_anew(const std::string& unit) {
    const auto cgroup = folder / "cgroup/unified/system.slice" / unit;
    fs::rename(cgroup, cgroup.string() + "." + std::to_string(programs.size()));
  }
  std::vector<std::unique_ptr<Program>> programs;
};

}  // namespace

TEST_CASE("clients of so many containers are terminated at a time, and then of others") {
  Containers kit;
  for (const char* unit : {"a.service", "b.service", "c.service", "d.service"}) {
    CHECK(kit.terminate(unit).empty());
  }
  const std::string full =
      "too_many_waiting: clients of 4 containers are being terminated on gpu0.shared, no more at a "
      "time";
  CHECK(kit.terminate("e.service") == full);
  kit.terminations[1].told({});
  CHECK(kit.terminate("f.service").empty());
  CHECK(kit.terminate("g.service") == full);
}

TEST_CASE("of one namespace clients of fewer containers are terminated at a time") {
  Containers kit;
  CHECK(kit.terminate("a.service").empty());
  kit.make_anew("a.service");
  CHECK(kit.terminate("a.service").empty());
  kit.make_anew("a.service");
  CHECK(kit.terminate("a.service") ==
        "too_many_waiting: clients of 2 containers of unit:a.service are being terminated on "
        "gpu0.shared, no more at a time");
  CHECK(kit.terminate("b.service").empty());
  kit.terminations[0].told({});
  kit.make_anew("a.service");
  kit.programs.front()->end();
  CHECK(kit.terminate("a.service").empty());
}

TEST_CASE("a container without clients has none terminated") {
  Clients kit;
  Program stranger;
  kit.put(stranger, "c.service");
  kit.terminate_own(stranger);
  kit.until([&] { return !kit.ended.empty(); });
  CHECK(kit.ended == std::vector<std::string>{"0 ended"});
  CHECK(kit.terminations.empty());
}

TEST_CASE("who cannot be told has nobody terminated") {
  Clients kit;
  Program nobody;
  kit.terminate_own(nobody);
  kit.until([&] { return !kit.ended.empty(); });
  CHECK(kit.ended[0].starts_with("unidentified: "));
  CHECK(kit.terminations.empty());
}
