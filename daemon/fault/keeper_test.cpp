#include "fault/keeper.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <map>
#include <stdexcept>

#include "fault/tracker_kit.h"

using namespace mps;
using namespace mps::fault;
using namespace mps::fault::test;
using namespace std::chrono_literals;

namespace {

struct Kept {
  Kept() {
    std::string name = "/tmp/fault-keeper-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
    start();
  }
  ~Kept() { std::filesystem::remove_all(path); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;

  void start() {
    keeper.reset();
    auto opened = Book::open(path / "faults.log");
    REQUIRE(opened.has_value());
    keeper.emplace(
        std::move(opened->book),
        KeeperSources{[](std::string_view) {
                        return std::optional(policy::Quarantine{2, 10min, 15min, false});
                      },
                      [this](const auto& kind, const auto& instance, const auto& message) {
                        said.push_back((instance.empty() ? "node" : instance) + " " + kind + " " +
                                       message);
                      }});
  }
  void fault(const std::string& instance, pid_t pid, int when) {
    keeper->on(instance, ClientCame{client(pid, when - 10)}, at(when - 10));
    keeper->on(instance, FatalFaultLogged{41}, at(when));
    keeper->on(instance, CulpritNamed{pid}, at(when + 1));
    keeper->on(instance, ClientWent{pid, 0}, at(when + 2));
    keeper->on(instance, Serving{}, at(when + 100));
  }

  std::filesystem::path path;
  std::optional<Keeper> keeper;
  std::vector<std::string> said;
};

const Place k_place{"gpu0.shared", "GPU-0", "shared"};

}  // namespace

TEST_CASE("what is said of faults, and who is kept out for them") {
  Kept kept;
  kept.keeper->watch(k_place);
  kept.fault("gpu0.shared", 7, 0);
  kept.fault("gpu0.shared", 8, 20000);
  const std::string by_7 = "a client's fault by pid 7 (train) of team-a, pod web-7";
  const std::string by_8 = "a client's fault by pid 8 (train) of team-a, pod web-8";
  CHECK(kept.said ==
        std::vector<std::string>{
            "gpu0.shared incident_opened f1: " + by_7 + ", the only client",
            "gpu0.shared incident_attributed f1: " + by_7 + ", the only client",
            "gpu0.shared incident_attributed f1: " + by_7,
            "gpu0.shared incident_closed f1: serving again after 100ms; it was " + by_7,
            "gpu0.shared incident_opened f2: " + by_8 + ", the only client",
            "gpu0.shared incident_attributed f2: " + by_8 + ", the only client",
            "gpu0.shared incident_attributed f2: " + by_8,
            "gpu0.shared incident_closed f2: serving again after 100ms; it was " + by_8,
            std::string("node quarantined q1: train of Deployment/web in team-a is kept out for ") +
                "15m: 2 faults within 10m"});
  CHECK(kept.keeper->kept_out(workload_of(client(9)), at(21000)));
  CHECK(kept.keeper->counts() == Keeper::Counts{{{"GPU-0", "shared", Kind::app_fault}, 2}});
  // Over a restart, and until its time is over.
  kept.start();
  CHECK(kept.keeper->kept_out(workload_of(client(9)), at(21000)));
  CHECK(kept.keeper->deadline() == at(20100 + 15 * 60000 + 1));
  kept.said.clear();
  kept.keeper->tick(at(20100 + 15 * 60000 + 1));
  CHECK(kept.said == std::vector<std::string>{"node quarantine_lifted q1: train of Deployment/web "
                                              "in team-a is kept out no longer: its time is over"});
  CHECK_FALSE(kept.keeper->deadline());
}

TEST_CASE("how long the deadline is waited for, also with a clock that was set back") {
  const struct {
    const char* what;
    bool excluded, xid, graver;
    int now;
    std::optional<std::chrono::milliseconds> pause;
  } cases[] = {
      {"nothing", false, false, false, 0, std::nullopt},
      {"a quarantine", true, false, false, 0, 1h},
      {"a quarantine's end", true, false, false, 2 * 3600000 - 500, 501ms},
      {"a quarantine, and the clock set back", true, false, false, -3600000, 1h},
      {"an Xid", false, true, false, 60000, 5001ms},
      {"an Xid, later", false, true, false, 64000, 1001ms},
      {"an Xid, too late", false, true, false, 90000, 1ms},
      {"an Xid, and the clock set back", false, true, false, 0, 5001ms},
      {"a graver one", false, false, true, 60000, 5001ms},
      {"a graver one, and the clock set back", false, false, true, 0, 5001ms},
      {"all, and the clock set back", true, true, true, 0, 5001ms},
  };
  for (const auto& row : cases) {
    CAPTURE(row.what);
    Kept kept;
    kept.keeper->watch(k_place);
    if (row.excluded) {
      REQUIRE(kept.keeper->keep_out({{"team-a", "", ""}, 2h, "since"}, "uid 5", at(0)).has_value());
    }
    if (row.xid) kept.keeper->on("gpu0.shared", XidReported{31}, at(60000));
    if (row.graver) {
      kept.keeper->on_action({"GPU-0", "GPU-0", {}}, RecoveryAction::none, at(60000));
      kept.keeper->on_xid({"GPU-0", "GPU-0", {}}, 46, at(60000));
    }
    CHECK(kept.keeper->pause(at(row.now)) == row.pause);
  }
}

TEST_CASE("a clock that was set back by an hour takes a device out in time") {
  Kept kept;
  kept.keeper->watch(k_place);
  kept.keeper->on_action({"GPU-0", "GPU-0", {}}, RecoveryAction::none, at(60000));
  kept.keeper->on_xid({"GPU-0", "GPU-0", {}}, 46, at(60000));
  kept.keeper->on("gpu0.shared", XidReported{31}, at(60000));
  kept.keeper->tick(at(60000 - 3600000 + 5001));
  CHECK(kept.keeper->devices_out().entries.contains("GPU-0"));
  CHECK(kept.keeper->open("gpu0.shared") == nullptr);
  CHECK_FALSE(kept.keeper->pause(at(0)));
}

TEST_CASE("an incident goes on over a restart, or is given up") {
  Kept kept;
  kept.keeper->watch(k_place);
  kept.keeper->watch({"gpu1.shared", "GPU-1", "shared"});
  kept.keeper->on("gpu0.shared", FatalFaultLogged{41}, at(0));
  kept.keeper->on("gpu1.shared", FatalFaultLogged{42}, at(0));
  kept.keeper->on("gpu2.shared", FatalFaultLogged{43}, at(0));  // not watched
  kept.start();
  kept.said.clear();
  kept.keeper->watch(k_place);
  kept.keeper->watch(k_place);
  kept.keeper->settle(at(1000));
  CHECK(kept.said == std::vector<std::string>{
                         "gpu1.shared incident_closed f2: given up: a client's fault while no "
                         "client was there that we know of: the instance is there no longer"});
  REQUIRE(kept.keeper->open("gpu0.shared") != nullptr);
  CHECK(kept.keeper->open("gpu0.shared")->number == 1);
  kept.keeper->on("gpu0.shared", Serving{}, at(2000));
  CHECK(kept.keeper->incidents().size() == 2);
  CHECK(kept.keeper->incidents().front().serving == at(2000));
  kept.keeper->on("gpu0.shared", FatalFaultLogged{41}, at(9000));
  CHECK(kept.keeper->incidents().back().number > 2);
  kept.keeper->forget("gpu0.shared", at(9100));
  CHECK(kept.keeper->incidents().back().end == End::given_up);
}

TEST_CASE("lifted, it is not made again for the same faults, whatever is told of them") {
  Kept kept;
  kept.keeper->watch(k_place);
  for (const pid_t pid : {7, 8}) kept.keeper->on("gpu0.shared", ClientCame{client(pid)}, at(0));
  for (const pid_t pid : {7, 8}) {
    kept.keeper->on("gpu0.shared", FatalFaultLogged{41}, at(100 * pid));
    kept.keeper->on("gpu0.shared", CulpritNamed{pid}, at(100 * pid + 1));
    kept.keeper->on("gpu0.shared", ContextRecreated{}, at(100 * pid + 50));
  }
  kept.keeper->on("gpu0.shared", Serving{}, at(900));
  REQUIRE(kept.keeper->kept_out(workload_of(client(9)), at(1000)));
  REQUIRE(kept.keeper->lift("q1", "uid 5").has_value());
  kept.start();
  kept.keeper->watch(k_place);
  kept.keeper->on("gpu0.shared", ClientCame{client(9, 21000)}, at(21000));
  kept.keeper->on("gpu0.shared", ClientServed{9}, at(21001));  // the first since the fault
  REQUIRE(kept.keeper->incidents().back().first_served);
  CHECK_FALSE(kept.keeper->kept_out(workload_of(client(9)), at(21002)));
  CHECK(kept.keeper->quarantine().entries.empty());
}

TEST_CASE("by hand, and lifted") {
  Kept kept;
  const auto made = kept.keeper->keep_out({{"team-a", "", ""}, 1h, "since"}, "uid 5", at(0));
  REQUIRE(made.has_value());
  CHECK(kept.keeper->lift("q7", "uid 5").error().message == "no entry \"q7\"");
  CHECK(kept.keeper->lift("q1", "uid 5")->key.subject == "team-a");
  CHECK(kept.said ==
        std::vector<std::string>{
            "node quarantined q1: team-a is kept out for 1h by uid 5: since",
            "node quarantine_lifted q1: team-a is kept out no longer: lifted by uid 5"});
  CHECK_FALSE(kept.keeper->kept_out({"team-a", "", ""}, at(1)));
}

TEST_CASE("whatever happens, and whenever the supervisor dies: nothing twice, nothing lost") {
  for (unsigned seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    Story story(seed);
    Kept kept;
    std::map<std::uint64_t, Time> noticed;
    const auto look = [&] {
      for (const auto& one : kept.keeper->incidents()) {
        // Another incident of the same number would have been noticed at another time.
        const auto [known, is_new] = noticed.try_emplace(one.number, one.noticed);
        CHECK(known->second == one.noticed);
      }
    };
    kept.keeper->watch(k_place);
    int when = 0;
    for (int i = 0; i < 150; ++i) {
      when = story.later();
      if (story.below(20) == 0) {
        const auto before = kept.keeper->incidents();
        const auto quarantine = kept.keeper->quarantine().entries;
        kept.start();
        kept.keeper->watch(k_place);
        CHECK(kept.keeper->incidents() == before);
        CHECK(kept.keeper->quarantine().entries == quarantine);
      }
      kept.keeper->tick(at(when));
      kept.keeper->on("gpu0.shared", story.next(), at(when));
      look();
    }
    kept.keeper->on("gpu0.shared", Serving{}, at(when + 1));
    CHECK(kept.keeper->open("gpu0.shared") == nullptr);
    for (const auto& one : kept.keeper->incidents()) CHECK(one.closed.has_value());
    for (const auto& [number, entry] : kept.keeper->quarantine().entries) {
      CHECK(entry.key.subject == "team-a");
      CHECK(entry.faults >= 2);
    }
  }
}
