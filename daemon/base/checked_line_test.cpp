#include "base/checked_line.h"

#include <doctest/doctest.h>

using namespace mps;

TEST_CASE("a line shows whether it is whole") {
  const auto line = checked_line("123456789");
  CHECK(line == "cbf43926 123456789\n");  // the check value of CRC-32
  CHECK(checked_text("cbf43926 123456789") == "123456789");
  CHECK(checked_text("00000000 ") == "");
  for (const auto* damaged : {"", "cbf43926", "cbf43926 ", "cbf43926 12345678",
                              "cbf43926x123456789", "CBF43926 123456789", "cbf43927 123456789"}) {
    CAPTURE(damaged);
    CHECK_FALSE(checked_text(damaged));
  }
}
