#include "admission/refusals.h"

#include <doctest/doctest.h>

using mps::admission::Refusals;
using namespace std::chrono_literals;

TEST_CASE("said at once, then not for a while, then with how many there were") {
  Refusals refusals;
  Refusals::TimePoint now{};
  CHECK(refusals.count("a", now) == 0);
  CHECK_FALSE(refusals.count("a", now + 1s));
  CHECK_FALSE(refusals.count("a", now + 29s));
  CHECK(refusals.count("b", now + 29s) == 0);
  CHECK(refusals.count("a", now + 30s) == 2);
  CHECK_FALSE(refusals.count("a", now + 31s));
}

TEST_CASE("however many different ones there are, few are remembered, and a new one is said") {
  Refusals refusals;
  Refusals::TimePoint now{};
  for (std::size_t i = 0; i < 5 * Refusals::k_most; ++i) {
    CHECK(refusals.count(std::to_string(i), now) == 0);
  }
}
