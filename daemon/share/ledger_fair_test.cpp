// Turns between namespaces, and room that is kept.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "share/ledger_test_kit.h"

using namespace mps::share;
using namespace std::chrono_literals;
using Lines = Kit::Lines;

namespace {

// gpu0 with 100Gi, of which requests take parts.
struct Memory : Kit {
  using Kit::Kit;
  Lines ask_for(RequestId id, const std::string& subject, std::uint64_t gibibytes) {
    auto request = make(id, subject);
    request.grant.pinned_memory_mebibytes = gibibytes * 1024;
    request.deadline = now + 600s;
    return ask(request);
  }
  // Small ones that come and go, one in for one out, while the large one waits.
  RequestId churn(RequestId id, unsigned times) {
    for (unsigned i = 0; i < times; ++i, ++id) {
      end(oldest());
      ask_for(id, "small", 50);
    }
    return id;
  }
  SlotId oldest() { return ledger.slots(1).at(0).slot.id; }
  std::optional<RequestId> kept() { return ledger.devices().at(0).room_kept_for; }
};

}  // namespace

TEST_CASE("eight namespaces take turns, whoever asks first and most") {
  LedgerSettings settings;
  Kit kit(settings);
  kit.facts.max_clients = 4;
  kit.door(NotReady{"starting"});
  RequestId id = 0;
  std::map<RequestId, unsigned> of;
  // The first has asked for all of its own before the last asks at all.
  for (unsigned subject = 0; subject < 8; ++subject) {
    for (unsigned i = 0; i < 64 + 8 * (8 - subject); ++i) {
      of[++id] = subject;
      kit.ask(id, "team-" + std::to_string(subject));
    }
  }
  std::map<unsigned, std::size_t> count;
  std::map<unsigned, RequestId> last;
  const auto take = [&](const Effects& effects) {
    for (const auto& decision : effects.decisions) {
      const auto subject = of.at(decision.request);
      CHECK(decision.request > last[subject]);  // first come first served
      last[subject] = decision.request;
      ++count[subject];
    }
  };
  kit.facts.door = Serving{};
  take(kit.ledger.instance_changed(kit.facts, kit.now));
  for (SlotId slot = 1; slot <= 8 * 64; ++slot) {
    take(kit.ledger.slot_ended(slot, kit.now));
    std::size_t least = 64;
    std::size_t most = 0;
    for (unsigned subject = 0; subject < 8; ++subject) {
      least = std::min(least, count[subject]);
      most = std::max(most, std::min<std::size_t>(count[subject], 64));
    }
    REQUIRE(most - least <= 1);
  }
}

TEST_CASE("who has one request is not behind those who have many") {
  Kit kit;
  kit.facts.max_clients = 1;
  kit.tell();
  kit.ask(1);
  for (RequestId id = 2; id <= 50; ++id) kit.ask(id);
  kit.ask(51, "team-b");
  CHECK(kit.end(1) == Lines{"2 in slot 2"});
  CHECK(kit.end(2) == Lines{"51 in slot 3"});
  CHECK(kit.end(3) == Lines{"3 in slot 4"});
}

TEST_CASE("a large request is passed sixteen times and no more") {
  Memory kit;
  kit.ask_for(1, "small", 50);
  kit.ask_for(2, "small", 50);
  kit.ask_for(3, "large", 80);
  CHECK(kit.churn(4, 16) == 20);
  CHECK_FALSE(kit.kept());
  kit.end(kit.oldest());
  CHECK(kit.kept() == 3);
  CHECK(kit.ask_for(20, "small", 50) ==
        Lines{"20 waits device_memory: gpu0 keeps its next free memory for a request that has "
              "waited longer"});
  CHECK(kit.ask_for(21, "tiny", 20).at(0).starts_with("21 waits"));
  CHECK(kit.ask(22, "no-limit") == Lines{"22 in slot 19"});  // takes none of it
  CHECK(kit.ledger.waiting(9).at(0).room_is_kept);
  CHECK(kit.end(kit.oldest()) == Lines{"3 in slot 20", "21 in slot 21"});
  CHECK_FALSE(kit.kept());
}

TEST_CASE("others may take what leaves enough for whom room is kept") {
  Memory kit;
  const auto part = [&kit](RequestId id, const std::string& subject, Grant grant) {
    auto request = kit.make(id, subject);
    request.grant = grant;
    return kit.ask(request);
  };
  kit.ask_for(1, "small", 50);
  kit.ask_for(2, "small", 50);
  part(3, "large", {60, 80 * 1024});
  kit.churn(4, 16);
  kit.end(kit.oldest());
  REQUIRE(kit.kept() == 3);
  CHECK(part(20, "threads", {90, {}}).at(0).starts_with("20 in"));
  CHECK(part(21, "threads", {60, {}}) ==
        Lines{"21 waits device_threads: gpu0 keeps its next free share of the SMs for a request "
              "that has waited longer"});
  CHECK(part(22, "others", {50, {}}).at(0).starts_with("22 in"));
  CHECK(kit.end(18) == Lines{"3 in slot 21"});
}

TEST_CASE("room is kept for ten seconds, and then for nobody for thirty") {
  Memory kit;
  kit.ask_for(1, "small", 50);
  kit.ask_for(2, "small", 50);
  kit.ask_for(3, "large", 80);
  kit.churn(4, 16);
  kit.end(kit.oldest());
  CHECK(kit.kept() == 3);
  kit.ask_for(100, "small", 50);
  CHECK(kit.ledger.next_due() == kit.now + 10s);
  CHECK(kit.after(9999ms).empty());
  CHECK(kit.after(1ms) == Lines{"100 in slot 19"});
  CHECK_FALSE(kit.kept());
  auto id = kit.churn(101, 40);
  CHECK_FALSE(kit.kept());
  kit.after(30s);
  kit.churn(id, 1);
  CHECK(kit.kept() == 3);
}

TEST_CASE("who leaves sets free what was kept") {
  Memory kit;
  kit.ask_for(1, "small", 50);
  kit.ask_for(2, "small", 50);
  kit.ask_for(3, "large", 80);
  kit.churn(4, 16);
  kit.end(kit.oldest());
  kit.ask_for(100, "small", 50);
  CHECK(kit.lines(kit.ledger.peer_gone(3, kit.now)) == Lines{"100 in slot 19"});
  CHECK_FALSE(kit.kept());
}

TEST_CASE("another uid gets its turn") {
  LedgerSettings settings;
  settings.uid_conflict_waits = true;
  Kit kit(settings);
  kit.facts.single_uid = true;
  kit.tell();
  kit.ask(1);
  kit.ask(2, "team-b");
  auto other = kit.make(3, "team-c");
  other.uid = 1001;
  kit.ask(other);
  for (RequestId id = 4; id < 20; ++id) {
    kit.end(id - 3);
    CHECK(kit.ask(id).at(0).starts_with(std::to_string(id) + " in"));
  }
  kit.end(17);
  CHECK(kit.ask(20, "team-d") ==
        Lines{"20 waits uid_conflict: gpu0 keeps its next free place for a request that has waited "
              "longer"});
  CHECK(kit.end(18) == Lines{"3 in slot 19"});
}
