#include "base/text.h"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>

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
  CHECK(parse_quantity("1e10") == 10000000000U);
  CHECK(parse_quantity("129E6") == 129000000U);
  CHECK(parse_quantity("1.5e+3") == 1500U);
  CHECK(parse_quantity("10.25e1") == 102U);
  CHECK(parse_quantity("12345e-2") == 123U);
  CHECK(parse_quantity("12.5e-4") == 0U);
  CHECK(parse_quantity("1E") == 1000000000000000000U);
  CHECK(parse_quantity("1Ei") == std::uint64_t{1} << 60U);
  for (const auto* bad :
       {"",   "-1",    "+1",  "10GB", "10 Gi", "Gi",    "e3",     "0x10", "1.Gi", ".5Gi",
        "5.", "1.2.3", "10m", "1e",   "1e-",   "1e1Gi", "1e1234", "10K",  "inf",  "nan"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_quantity(bad));
  }
  CHECK(format_mebibytes(10240) == "10Gi");
  CHECK(format_mebibytes(512) == "512Mi");
}

TEST_CASE("quantities are exact") {
  constexpr std::uint64_t k_most = std::numeric_limits<std::uint64_t>::max();
  // Mebibytes in decimals, of which a product of doubles is a byte less now and then.
  CHECK(parse_quantity("65.863155712G") == 62812U * std::uint64_t{1048576});
  CHECK(parse_quantity("0.000000000931322574615478515625Pi") == 1048576U);
  CHECK(parse_quantity("0.000000000931322574615478515624Pi") == 1048575U);
  CHECK(parse_quantity("0.99999999999999999999Ki") == 1023U);
  CHECK(parse_quantity("18446744073709551615") == k_most);
  for (const auto* large : {"18446744073709551616", "16Ei", "20E", "99999999999Ti", "1e20", "1e999",
                            "18446744073709551615.9Ki"}) {
    CAPTURE(large);
    CHECK(parse_quantity(large) == k_most);
  }
  for (std::uint64_t mebibytes = 1; mebibytes < 200000; mebibytes += 37) {
    const auto bytes = std::to_string(1000000000000U + mebibytes * 1048576);
    const auto gigabytes = bytes.substr(0, bytes.size() - 9) + "." + bytes.substr(bytes.size() - 9);
    CHECK(parse_quantity(gigabytes + "G") == 1000000000000U + mebibytes * 1048576);
  }
}

TEST_CASE("a misspelt word is answered by its neighbour, a strange one by nobody") {
  constexpr std::array<std::string_view, 3> keys{"runDir", "stateDir", "metricsListen"};
  CHECK(did_you_mean("rundir", keys) == "runDir");
  CHECK(did_you_mean("metricListen", keys) == "metricsListen");
  CHECK_FALSE(did_you_mean("overcommit", keys));
  CHECK_FALSE(did_you_mean(std::string(1000, 'a'), keys));
  CHECK_FALSE(did_you_mean(std::string(65, 'r'), keys));
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
  CHECK(printable("a\xe2\x80\xa8") == "a\\xe2\\x80\\xa8");
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
    std::size_t offset, length;
    bool control;
  } cases[] = {{"\x1b[2J", 0, 1, true},
               {"ab\x7f", 2, 1, true},
               {std::string("a\0", 2), 1, 1, true},
               {"\n\x01", 1, 1, true},
               {"a\xc2\x9b", 1, 2, true},
               {"a\xc2\x85", 1, 2, true},
               {"a\xe2\x80\xa8", 1, 3, true},
               {"a\xe2\x80\xa9", 1, 3, true},
               {"\xef\xbf\xbe", 0, 3, true},
               {"\xef\xbf\xbf", 0, 3, true},
               {"\xc2", 0, 1, false},
               {"caf\xc3", 3, 1, false},
               {"\xff", 0, 1, false},
               {"\xc3\xa9\xc0\xaf", 2, 1, false},
               {"\xed\xa0\x80", 0, 1, false},
               {"\x80", 0, 1, false},
               {"\xf4\x90\x80\x80", 0, 1, false}};
  for (const auto& [text, offset, length, control] : cases) {
    CAPTURE(text);
    const auto odd = find_odd_character(text);
    REQUIRE(odd);
    CHECK(odd->offset == offset);
    CHECK(odd->length == length);
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
