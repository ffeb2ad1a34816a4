#include "app/hard_limits.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace mps::app {
namespace {

using namespace std::chrono_literals;
using Lines = std::vector<std::string>;

const share::Grant k_small{10.0, 1024};
const share::Grant k_large{50.0, std::nullopt};

std::string name_of(const std::optional<share::Grant>& grant) {
  if (!grant) return "the ceiling";
  return grant == k_small ? "small" : "large";
}

struct Kit {
  Lines lines(const HardLimits::Actions& actions) {
    Lines lines;
    for (const auto& action : actions) {
      if (const auto* want = std::get_if<HardLimits::Want>(&action)) {
        lines.push_back("want " + name_of(want->grant));
      } else if (const auto* in = std::get_if<HardLimits::LetIn>(&action)) {
        lines.push_back("let in " + std::to_string(in->peer));
      } else if (const auto* refuse = std::get_if<HardLimits::Refuse>(&action)) {
        lines.push_back("refuse " + std::to_string(refuse->peer) + " of pid " +
                        std::to_string(refuse->pid));
      } else {
        lines.push_back("late " + std::to_string(std::get<HardLimits::Late>(action).pid));
      }
    }
    return lines;
  }
  // Peer 1 is process 101, and so on.
  Lines comes(std::uint64_t peer, const share::Grant& grant) {
    return lines(hard.comes(peer, static_cast<pid_t>(100 + peer), grant, now));
  }
  Lines in_force(const std::optional<share::Grant>& grant) {
    return lines(hard.in_force(grant, now));
  }
  Lines arrived(pid_t pid) { return lines(hard.arrived(pid, now)); }
  Lines left(std::uint64_t peer) { return lines(hard.left(peer, now)); }
  Lines due() {
    REQUIRE(hard.next_due());
    now = std::max(now, *hard.next_due());
    return lines(hard.time_passed(now));
  }

  HardLimits hard{{.patience = 60s, .arrival = 20s, .settling = 3s, .again = 100ms}};
  HardLimits::TimePoint now{};
};

}  // namespace

TEST_CASE("a newcomer is let in once its limits are in force; then the ceiling is put back") {
  Kit kit;
  CHECK(kit.comes(1, k_small) == Lines{"want small"});
  CHECK(kit.in_force(std::nullopt) == Lines{});
  CHECK(kit.in_force(k_small) == Lines{"let in 1"});
  CHECK(kit.in_force(k_small) == Lines{});
  CHECK(kit.arrived(101) == Lines{"want the ceiling"});
  CHECK(kit.arrived(101) == Lines{});
  CHECK_FALSE(kit.hard.next_due());
}

TEST_CASE("who gets other limits waits until the server has the one before") {
  Kit kit;
  kit.comes(1, k_small);
  kit.in_force(k_small);
  CHECK(kit.comes(2, k_large) == Lines{});
  CHECK(kit.hard.waiting() == 1);
  CHECK(kit.arrived(101) == Lines{"want large"});
  // That these are in force still is no news, and no reason.
  CHECK(kit.in_force(k_small) == Lines{});
  CHECK(kit.in_force(k_large) == Lines{"let in 2"});
  CHECK(kit.arrived(102) == Lines{"want the ceiling"});
}

TEST_CASE("who gets the same comes in together, and nobody overtakes") {
  Kit kit;
  kit.comes(1, k_small);
  kit.comes(2, k_small);
  kit.comes(3, k_large);
  kit.comes(4, k_small);
  CHECK(kit.in_force(k_small) == Lines{"let in 1", "let in 2"});
  CHECK(kit.arrived(102) == Lines{});
  CHECK(kit.arrived(101) == Lines{"want large"});
  CHECK(kit.in_force(k_large) == Lines{"let in 3"});
  CHECK(kit.comes(5, k_small) == Lines{});
  CHECK(kit.arrived(103) == Lines{"want small"});
  CHECK(kit.in_force(k_small) == Lines{"let in 4", "let in 5"});
  CHECK(kit.comes(6, k_small) == Lines{"let in 6"});
}

TEST_CASE("one that does not arrive holds up the next one for a while only") {
  Kit kit;
  kit.comes(1, k_small);
  kit.in_force(k_small);
  kit.comes(2, k_large);
  CHECK(kit.due() == Lines{"late 101", "want large"});
  CHECK(kit.now.time_since_epoch() == 20s);
}

TEST_CASE("limits that do not come into force keep it waiting, and then it is refused") {
  Kit kit;
  kit.comes(1, k_small);
  CHECK(kit.due() == Lines{"refuse 1 of pid 101", "want the ceiling"});
  CHECK(kit.now.time_since_epoch() == 60s);
}

TEST_CASE("limits that are lost before it is let in are waited for") {
  Kit kit;
  kit.comes(1, k_small);
  kit.in_force(k_small);
  kit.comes(2, k_small);
  kit.in_force(std::nullopt);
  CHECK(kit.comes(3, k_small) == Lines{});
  CHECK(kit.in_force(k_small) == Lines{"let in 3"});
}

TEST_CASE("one that the daemon did not take is tried again, before all others") {
  Kit kit;
  kit.comes(1, k_small);
  kit.in_force(k_small);
  kit.comes(2, k_large);
  CHECK(kit.lines(kit.hard.not_entered(1, kit.now)) == Lines{});
  CHECK(kit.lines(kit.hard.not_entered(9, kit.now)) == Lines{"refuse 9 of pid 0"});
  CHECK(kit.lines(kit.hard.not_entered(2, kit.now)) == Lines{});  // waits for its turn
  CHECK(kit.due() == Lines{"let in 1"});
  CHECK(kit.now.time_since_epoch() == 100ms);
  SUBCASE("for as long as there is patience") {
    std::size_t tries = 0;
    Lines last;
    while ((last.empty() || last[0] != "refuse 1 of pid 101") && ++tries < 1000) {
      kit.lines(kit.hard.not_entered(1, kit.now));
      last = kit.due();
    }
    CHECK(kit.now.time_since_epoch() == 60s);
  }
}

TEST_CASE("who leaves the line is forgotten; who was let in may be on its way") {
  Kit kit;
  kit.comes(1, k_small);
  CHECK(kit.left(1) == Lines{"want the ceiling"});
  kit.comes(1, k_small);
  kit.in_force(k_small);
  kit.comes(2, k_large);
  CHECK(kit.left(1) == Lines{});
  CHECK(kit.hard.on_their_way() == std::vector<pid_t>{101});
  CHECK(kit.left(2) == Lines{});
  SUBCASE("and arrives") {
    CHECK(kit.arrived(101) == Lines{"want the ceiling"});
  }
  SUBCASE("or does not") {
    CHECK(kit.due() == Lines{"late 101", "want the ceiling"});
    CHECK(kit.now.time_since_epoch() == 3s);
  }
}

TEST_CASE("when the gate has gone nobody is in line") {
  Kit kit;
  kit.comes(1, k_small);
  kit.comes(2, k_large);
  CHECK(kit.lines(kit.hard.all_left(kit.now)) == Lines{"want the ceiling"});
  CHECK(kit.hard.waiting() == 0);
}

}  // namespace mps::app
