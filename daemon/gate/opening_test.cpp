#include "gate/opening.h"

#include <doctest/doctest.h>

#include <string>

using namespace mps::gate;

TEST_CASE("what is kept is read back, and damage is noticed") {
  Opening opening{
      "a driver", std::string("\0\1\xff", 3), {"first", std::string("\0", 1)}, false, "no"};
  const auto text = to_store(opening);
  REQUIRE(from_store(text).has_value());
  CHECK((*from_store(text) == opening));
  CHECK(from_store("").error().message == "is damaged");
  CHECK(from_store("{}").error().message == "is damaged");
  CHECK(from_store("{\"version\": 2}").error().message ==
        "is of another version of mps-supervisor");
  for (const char* damage : {"\"0001ff\"", "\"6669727374\""}) {
    auto broken = text;
    broken.replace(broken.find(damage), 3, "\"xy");
    CHECK(from_store(broken).error().message == "is damaged");
  }
}
