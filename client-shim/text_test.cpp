#include "text.h"

#include <doctest/doctest.h>

#include <string>

using namespace mps::client;

TEST_CASE("what does not fit is said") {
  Text<6> text;
  CHECK(text.print("%s", "12345"));
  CHECK(std::string(text.c_str()) == "12345");
  CHECK_FALSE(text.print("%s", "123456"));
  CHECK(std::string(text.c_str()) == "12345");
  CHECK_FALSE(copy(text.data, sizeof text.data, "123456", 6));
  CHECK(text.empty());
  CHECK(copy(text.data, sizeof text.data, "123456", 5));
  CHECK(std::string(text.c_str()) == "12345");
}

TEST_CASE("whole numbers are digits and nothing else") {
  const auto number = [](const std::string& text) {
    return whole_number(text.c_str(), text.size());
  };
  CHECK(number("0") == 0);
  CHECK(number("123456789012345") == 123456789012345);
  for (const char* bad : {"", "-1", "+1", " 1", "1 ", "1.0", "0x10", "1234567890123456"}) {
    CAPTURE(bad);
    CHECK(number(bad) == -1);
  }
}

TEST_CASE("durations") {
  CHECK(duration_ms("0") == 0);
  CHECK(duration_ms("500ms") == 500);
  CHECK(duration_ms("30s") == 30'000);
  CHECK(duration_ms("5m") == 300'000);
  CHECK(duration_ms("24h") == k_longest_wait_ms);
  for (const char* bad : {"", "5", "s", "-1s", "1.5s", "30 s", "25h", "1d", "30sec",
                          "999999999999999h", "9999999999999999s"}) {
    CAPTURE(bad);
    CHECK(duration_ms(bad) == -1);
  }
}

TEST_CASE("beginnings") {
  CHECK(starts_with("GPU-1", "GPU-"));
  CHECK_FALSE(starts_with("GPU", "GPU-"));
  CHECK(starts_with_ignoring_case("GPU-ABC", "gpu-a", 5));
  CHECK_FALSE(starts_with_ignoring_case("GPU", "gpu-a", 5));
}

TEST_CASE("what others said cannot move a terminal's cursor") {
  Text<32> text;
  text.print("%s", "a\x1b[2J\nb\x7f\xc3\xa4");
  make_printable(text.data);
  CHECK(std::string(text.c_str()) == "a?[2J?b?\xc3\xa4");
}
