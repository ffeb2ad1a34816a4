#include "fault/quarantine.h"

#include <doctest/doctest.h>

#include "fault/quarantine_json.h"
#include "fault/tracker_kit.h"

using namespace mps::fault;
using namespace mps::fault::test;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr int k_minute = 60'000;

ClientFacts of(pid_t pid, const std::string& subject, const std::string& owner,
               const std::string& command) {
  auto facts = client(pid, -1000, subject);
  facts.owner = owner;
  facts.command = command;
  return facts;
}

// A closed incident with this one's fault.
Incident fault_of(std::uint64_t number, const ClientFacts& who, int when) {
  Incident incident;
  incident.number = number;
  incident.end = End::serving;
  incident.noticed = at(when);
  incident.closed = incident.serving = at(when + 100);
  incident.faults = 1;
  incident.attribution = Attribution::named;
  incident.culprits = {{who, 1, Attribution::named, at(when)}};
  return incident;
}

Incident one_of(std::uint64_t number, const std::vector<ClientFacts>& suspects, int when) {
  auto incident = fault_of(number, {}, when);
  incident.culprits.clear();
  incident.attribution = Attribution::one_of;
  incident.unattributed_rounds = 1;
  incident.suspects = suspects;
  incident.suspect_count = suspects.size();
  return incident;
}

struct Ward {
  QuarantineState state{};
  bool on_suspicion = false;

  std::vector<std::string> take(const Incident& incident, int now) {
    const auto policy = [this](std::string_view subject) {
      return subject == "lenient"
                 ? std::nullopt
                 : std::optional(mps::policy::Quarantine{3, 10min, 15min, on_suspicion});
    };
    std::vector<std::string> made;
    for (const auto& change : count(state, incident, policy, at(now))) {
      state.apply(change);
      const auto* entry = std::get_if<EntryMade>(&change);
      if (entry != nullptr) made.push_back(describe(entry->entry.key) + ": " + entry->entry.reason);
    }
    return made;
  }
  // Of one fault.
  std::vector<std::string> fault(std::uint64_t number, const ClientFacts& who, int when) {
    return take(fault_of(number, who, when), when + 100);
  }
};

using Words = std::vector<std::string>;
const auto k_train = of(7, "team-a", "Deployment/web", "train.py");
const auto k_other = of(8, "team-a", "Job/x", "sum.py");

}  // namespace

TEST_CASE("who faults too often is kept out") {
  Ward ward;
  CHECK(ward.fault(1, k_train, 0).empty());
  CHECK(ward.fault(2, k_train, k_minute).empty());
  CHECK_FALSE(kept_out(ward.state, workload_of(k_train), at(k_minute)));
  CHECK(ward.fault(3, k_train, 2 * k_minute) ==
        Words{"train.py of Deployment/web in team-a: 3 faults within 10m"});
  const auto kept = kept_out(ward.state, workload_of(k_train), at(3 * k_minute));
  REQUIRE(kept);
  CHECK(kept->who == "train.py of Deployment/web in team-a");
  CHECK(kept->entry.faults == 3);
  CHECK(kept->left == 14min + 100ms);
  CHECK_FALSE(kept_out(ward.state, workload_of(k_other), at(3 * k_minute)));
  CHECK_FALSE(kept_out(ward.state, workload_of(k_train), at(17 * k_minute + 100)));
  CHECK(next_expiry(ward.state) == at(17 * k_minute + 100));
  CHECK(expired(ward.state, at(17 * k_minute + 99)).empty());
  CHECK(expired(ward.state, at(17 * k_minute + 100)).size() == 1);
}

TEST_CASE("faults that are too far apart are none too many") {
  Ward ward;
  CHECK(ward.fault(1, k_train, 0).empty());
  CHECK(ward.fault(2, k_train, 5 * k_minute).empty());
  CHECK(ward.fault(3, k_train, 10 * k_minute).empty());  // closed 100 ms after its ten minutes
  CHECK(ward.fault(4, k_train, 11 * k_minute).size() == 1);
}

TEST_CASE("faults of several workloads are their namespace's") {
  Ward ward;
  CHECK(ward.fault(1, k_train, 0).empty());
  CHECK(ward.fault(2, k_other, 10).empty());
  CHECK(ward.fault(3, of(9, "team-b", "Job/x", "sum.py"), 20).empty());
  CHECK(ward.fault(4, of(10, "team-a", "Job/y", "max.py"), 30) ==
        Words{"team-a: 3 faults within 10m"});
  CHECK(kept_out(ward.state, workload_of(k_train), at(1000)));
  CHECK(kept_out(ward.state, {"team-a", "", ""}, at(1000)));
  CHECK_FALSE(kept_out(ward.state, {"team-b", "Job/x", "sum.py"}, at(1000)));
}

TEST_CASE("faults that somebody is kept out for count no more") {
  Ward ward;
  for (std::uint64_t i = 1; i <= 3; ++i) ward.fault(i, k_train, static_cast<int>(i));
  CHECK(ward.state.entries.size() == 1);
  CHECK(ward.fault(4, k_other, 10).empty());
  CHECK(ward.state.faults.size() == 4);
  // Told again, it is not counted again.
  CHECK(ward.take(fault_of(3, k_train, 3), 200).empty());
  CHECK(ward.take(fault_of(4, k_other, 10), 200).empty());
  CHECK(ward.state.faults.size() == 4);
  CHECK(ward.fault(5, k_other, 20).empty());
  CHECK(ward.fault(6, k_other, 30).size() == 1);
}

TEST_CASE("whose quarantine is over is not kept out again for the same fault") {
  Ward ward;
  for (std::uint64_t i = 1; i <= 3; ++i) ward.fault(i, k_train, static_cast<int>(i));
  ward.state.apply(EntryEnded{1});
  // Its first new client is served, say, and it is told again.
  for (std::uint64_t i = 1; i <= 3; ++i) {
    CHECK(ward.take(fault_of(i, k_train, static_cast<int>(i)), 200).empty());
  }
  CHECK(ward.fault(4, k_train, 300).empty());  // the first of three
  CHECK(ward.state.entries.empty());
  Ward strict;
  strict.on_suspicion = true;
  for (std::uint64_t i = 1; i <= 3; ++i) strict.take(one_of(i, {k_train, k_other}, 0), 100);
  const auto kept_out_for = strict.state.entries.size();
  CHECK(kept_out_for > 0);
  for (std::uint64_t i = 1; i <= kept_out_for; ++i) strict.state.apply(EntryEnded{i});
  CHECK(strict.take(one_of(3, {k_train, k_other}, 0), 200).empty());
}

TEST_CASE("who goes on faulting is kept out for longer") {
  Ward ward;
  for (std::uint64_t i = 1; i <= 3; ++i) ward.fault(i, k_train, 0);
  for (std::uint64_t i = 4; i <= 6; ++i) {
    ward.fault(i, of(70 + static_cast<pid_t>(i), "team-a", "Deployment/web", "train.py"), k_minute);
  }
  REQUIRE(ward.state.entries.size() == 1);
  CHECK(ward.state.entries.at(1).until == at(16 * k_minute + 100));
}

TEST_CASE("whose faults do not count") {
  Ward ward;
  auto hardware = fault_of(1, k_train, 0);
  hardware.hardware = true;
  auto open = fault_of(2, k_train, 0);
  open.end = End::none;
  for (const auto& incident : {hardware, open, fault_of(3, of(7, "lenient", "", "x"), 0),
                               fault_of(4, of(7, "", "", "x"), 0)}) {
    ward.take(incident, 100);
  }
  CHECK(ward.state == QuarantineState{});
}

TEST_CASE("nobody is kept out on suspicion, unless the policy asks for it") {
  Ward ward;
  const std::vector<ClientFacts> two{k_train, k_other};
  for (std::uint64_t i = 1; i <= 5; ++i) CHECK(ward.take(one_of(i, two, 0), 100).empty());
  CHECK(ward.state == QuarantineState{});
  ward.on_suspicion = true;
  CHECK(ward.take(one_of(6, two, 0), 100).empty());
  CHECK(ward.take(one_of(7, two, 0), 100).empty());
  // One fault is one for the namespace, however many of it may have caused it.
  CHECK(ward.take(one_of(8, two, 0), 100) ==
        Words{"train.py of Deployment/web in team-a: 3 faults within 10m",
              "sum.py of Job/x in team-a: 3 faults within 10m"});
}

TEST_CASE("by hand") {
  QuarantineState state;
  const auto made = put_in(state, {{"team-a", "", ""}, 1h, "they know why"}, "uid 0", at(0));
  REQUIRE(made.has_value());
  state.apply(*made);
  CHECK(made->entry ==
        Entry{1, {"team-a", "", ""}, 0, at(0), at(60 * k_minute), "they know why", "uid 0"});
  CHECK(kept_out(state, workload_of(k_train), at(0)));
  // Again is another word about the same.
  const auto again = put_in(state, {{"team-a", "", ""}, 2h, "still"}, "uid 0", at(5));
  CHECK(again->entry.number == 1);
  CHECK(put_in(state, {{"", "", ""}, 1h, "x"}, "", at(0)).error().message ==
        "namespace: is missing");
  CHECK(put_in(state, {{"a", "", ""}, 10ms, "x"}, "", at(0)).error().message ==
        "for: must be 1s at least and 8784h at most");
  CHECK(put_in(state, {{"a", "", ""}, 1h, " "}, "", at(0)).error().message == "reason: is missing");
  state.apply(EntryEnded{1});
  CHECK_FALSE(kept_out(state, workload_of(k_train), at(0)));
  CHECK(state.next == 2);
}

TEST_CASE("entries are bounded") {
  Ward ward;
  for (std::uint64_t i = 1; i <= 300; ++i) {
    ward.state.apply(EntryMade{
        {i, {"n" + std::to_string(i), "", ""}, 3, at(0), at(static_cast<int>(i)), "3 faults", ""}});
    if (ward.state.entries.size() == k_entry_limit) break;
  }
  CHECK(put_in(ward.state, {{"a", "", ""}, 1h, "x"}, "uid 0", at(0)).error().message ==
        "there are 256 entries already; remove one of them first");
  for (std::uint64_t i = 1; i <= 3; ++i) ward.fault(i, k_train, 0);
  CHECK(ward.state.entries.size() == k_entry_limit);
  CHECK_FALSE(ward.state.entries.contains(1));  // that would have ended first
  CHECK(kept_out(ward.state, workload_of(k_train), at(200)));
  for (std::uint64_t i = 1; i <= 3000; ++i) {
    ward.state.apply(FaultCounted{{i, 1, 1, 1, {"a", "", ""}, at(0)}});
  }
  CHECK(ward.state.faults.size() == k_counted_limit);
}

TEST_CASE("the quarantine as JSON") {
  const Entry entry{3, {"team-a", "Job/x", ""}, 4, at(0), at(1000), "4 faults", ""};
  CHECK(to_json(entry) == json::parse(R"({
    "id": "q3", "namespace": "team-a", "owner": "Job/x", "command": null, "faults": 4,
    "since": "2027-01-15T08:00:00.000Z", "until": "2027-01-15T08:00:01.000Z",
    "reason": "4 faults", "by": null})"));
  const QuarantineChanges changes{FaultCounted{{1, 2, 3, 4, {"a", "b", "c"}, at(5)}},
                                  FaultCounted{{1, 2, 3, 4, {"a", "b", "c"}, at(5), true}},
                                  EntryMade{entry}, EntryEnded{3}};
  for (const auto& change : changes) {
    const auto text = to_json(change);
    const auto back = quarantine_change_from(text.begin().key(), text.begin().value());
    REQUIRE(back.has_value());
    CHECK(to_json(*back) == text);
  }
  CHECK(quarantine_change_from("entry", json::object()).error().message ==
        "lacks what it should say");
  CHECK(quarantine_change_from("x", 1).error().message == "is of an unknown kind");
}

TEST_CASE("an order for the quarantine") {
  const auto order = order_from(
      R"({"namespace": "team-a", "owner": "Job/x", "command": "a b", "for": "15m", "reason": "r"})");
  REQUIRE(order.has_value());
  CHECK(order->key == Key{"team-a", "Job/x", "a b"});
  CHECK(order->duration == 15min);
  CHECK(order->reason == "r");
  const std::vector<std::pair<const char*, const char*>> wrong{
      {"", "the body must be a JSON object"},
      {"{}", "namespace: is missing"},
      {R"({"namespace": "*"})",
       "namespace: must be one, such as team-a or unit:cron.service: \"*\""},
      {R"({"namespace": 5})", "namespace: must be text: 5"},
      {R"({"namespace": "a", "reason": "x"})", "for: is missing"},
      {R"({"namespace": "a", "for": "1"})", "for: must be a duration such as 15m or 8h: \"1\""},
      {R"({"namespace": "a", "for": "1m"})", "reason: is missing"},
      {R"({"namespaces": "a"})",
       "unknown field \"namespaces\" in the body; did you mean \"namespace\"?"},
  };
  for (const auto& [body, message] : wrong) {
    const auto read = order_from(body);
    REQUIRE_FALSE(read.has_value());
    CHECK(read.error().message == message);
  }
}

TEST_CASE("ids have one spelling") {
  CHECK(entry_number("q12") == 12);
  CHECK(incident_number("f12") == 12);
  for (const auto* id : {"", "q", "q012", "q-1", "q1x", "12"}) CHECK_FALSE(entry_number(id));
  for (const auto* id : {"", "f", "f012", "f-1", "q1"}) CHECK_FALSE(incident_number(id));
}
