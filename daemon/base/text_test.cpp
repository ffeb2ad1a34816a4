#include "base/text.h"

#include <doctest/doctest.h>

#include <array>

#include "base/result.h"

using namespace mps;
using namespace std::chrono_literals;

TEST_CASE("durations have a unit and nothing behind it") {
  CHECK(parse_duration("250ms") == 250ms);
  CHECK(parse_duration("3s") == 3s);
  CHECK(parse_duration("1.5s") == 1500ms);
  CHECK(parse_duration("2m") == 120s);
  CHECK(parse_duration("1h") == 3600s);
  for (const auto* bad :
       {"", "3", "s", "-1s", "3 s", "3sec", ".5s", "5.s", "1e3s", "infs", "9999999h"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_duration(bad));
  }
  CHECK(format_duration(250ms) == "250ms");
  CHECK(format_duration(30s) == "30s");
  CHECK(format_duration(120s) == "2m");
  CHECK(format_duration(7200s) == "2h");
  CHECK(format_duration(0ms) == "0s");
}

TEST_CASE("quantities are Kubernetes quantities") {
  CHECK(parse_quantity("10Gi") == 10737418240U);
  CHECK(parse_quantity("512Mi") == 536870912U);
  CHECK(parse_quantity("2G") == 2000000000U);
  CHECK(parse_quantity("1.5Gi") == 1610612736U);
  CHECK(parse_quantity("1073741824") == 1073741824U);
  CHECK(parse_quantity("0") == 0U);
  for (const auto* bad :
       {"", "-1", "10GB", "10 Gi", "Gi", "1e3", "0x10", "99999999999Ti", "1.Gi"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_quantity(bad));
  }
  CHECK(format_mebibytes(10240) == "10Gi");
  CHECK(format_mebibytes(512) == "512Mi");
}

TEST_CASE("a misspelt word is answered by its neighbour, a strange one by nobody") {
  constexpr std::array<std::string_view, 3> keys{"runDir", "stateDir", "metricsListen"};
  CHECK(did_you_mean("rundir", keys) == "runDir");
  CHECK(did_you_mean("metricListen", keys) == "metricsListen");
  CHECK_FALSE(did_you_mean("overcommit", keys));
}

TEST_CASE("times survive a round trip") {
  const auto time = parse_time("2026-11-20T23:22:15.182Z");
  REQUIRE(time);
  CHECK(format_time(*time) == "2026-11-20T23:22:15.182Z");
  CHECK_FALSE(parse_time("2026-11-20 23:22:15"));
  CHECK_FALSE(parse_time("2026-11-20T23:22:15.18xZ"));
}

TEST_CASE("text from outside cannot move the cursor") {
  CHECK(printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\x0a");
  CHECK(printable("abcdef", 3) == "abc…");
  CHECK(printable("caf\xc3\xa9 \xf0\x9f\x98\x80") == "caf\xc3\xa9 \xf0\x9f\x98\x80");
  CHECK(printable("caf\xc3\xa9", 4) == "caf…");  // not half a character
  CHECK(printable("\xff \xc3 \xc0\xaf \xed\xa0\x80 \xc2\x9b") ==
        "\\xff \\xc3 \\xc0\\xaf \\xed\\xa0\\x80 \\xc2\\x9b");
}

TEST_CASE("what is no text is found where it begins") {
  for (const auto* fine : {"", "a\tb\r\n", "caf\xc3\xa9 \xf0\x9f\x98\x80",
                           "\xef\xbb\xbf"
                           "a",
                           "\xc2\xa0"}) {
    CAPTURE(fine);
    CHECK_FALSE(find_odd_character(fine));
  }
  const struct {
    std::string text;
    std::size_t offset;
    bool control;
  } cases[] = {{"\x1b[2J", 0, true},       {"ab\x7f", 2, true},    {std::string("a\0", 2), 1, true},
               {"\n\x01", 1, true},        {"a\xc2\x9b", 1, true}, {"\xc2", 0, false},
               {"caf\xc3", 3, false},      {"\xff", 0, false},     {"\xc3\xa9\xc0\xaf", 2, false},
               {"\xed\xa0\x80", 0, false}, {"\x80", 0, false},     {"\xf4\x90\x80\x80", 0, false}};
  for (const auto& [text, offset, control] : cases) {
    CAPTURE(text);
    const auto odd = find_odd_character(text);
    REQUIRE(odd);
    CHECK(odd->offset == offset);
    CHECK(odd->control == control);
  }
}

TEST_CASE("lines and words") {
  CHECK(split_lines("a\n\nb").size() == 3);
  CHECK(split_lines("").empty());
  CHECK(split_whitespace("  a\tbc \n").at(1) == "bc");
  CHECK(trim(" x\r\n") == "x");
}

TEST_CASE("an error names what was done and the system's reason") {
  CHECK(Error::from_errno("open x", ENOENT).message == "open x: No such file or directory");
  CHECK(Error{"b"}.in("a").message == "a: b");
}
