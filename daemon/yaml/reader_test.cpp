#include "yaml/reader.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <variant>
#include <vector>

using namespace mps::yaml;
using namespace std::chrono_literals;

namespace {

struct Text {
  explicit Text(const std::string& text)
      : documents(std::get<std::vector<Node>>(parse(text))), root(documents.at(0)) {}

  [[nodiscard]] Field field() const { return {"", &root, root.mark}; }
  // The value of the only key, as read_mapping gives it.
  [[nodiscard]] Field value() const {
    const auto& [key, node] = root.fields.at(0);
    return {key.text, &node, node.is_null() ? key.mark : node.mark};
  }

  std::vector<Node> documents;
  const Node& root;
};

using Errors = std::vector<std::string>;

// What a reading of "v: TEXT" complains of, or nothing.
template <typename Read>
std::string complaint(const std::string& value, const Read& read) {
  const Text text("v: " + value + "\n");
  Reader reader("f.yaml");
  read(reader, text.value());
  const auto errors = reader.take_errors();
  REQUIRE(errors.size() <= 1);
  return errors.empty() ? "" : errors[0];
}

}  // namespace

TEST_CASE("a mapping's keys are known, given once, and there where they must be") {
  const Text text("first: 1\nsecnd: 2\nfirst: 3\n? [x]\n: 4\n");
  Reader reader("f.yaml");
  Errors seen;
  const auto see = [&](const Field& field) { seen.push_back(field.path + "=" + field.node->text); };
  CHECK(reader.read_mapping(text.field(), {{"first", see}, {"second", see, true}, {"third", see}}));
  CHECK(seen == Errors{"first=1"});
  CHECK(reader.failed());
  CHECK(reader.take_errors() ==
        Errors{"f.yaml:1:1: second: is missing",
               "f.yaml:2:1: secnd: unknown key, did you mean second: \"secnd\"",
               "f.yaml:3:1: first: given twice, first in line 1: \"3\"",
               "f.yaml:4:3: every key must be a word: a list"});
  CHECK_FALSE(reader.failed());
}

TEST_CASE("what is no mapping or no list says what it is") {
  for (const auto& [value, shown] : {std::pair{"[a]", "a list"}, {"word", "\"word\""}}) {
    CHECK(complaint(value, [](Reader& reader, const Field& field) {
            CHECK_FALSE(reader.read_mapping(field, {}));
          }) == std::string("f.yaml:1:4: v: must be a mapping: ") + shown);
    CHECK(complaint(value, [](Reader& reader, const Field& field) {
            if (field.node->is_list()) return reader.fail(field, "must be a mapping");
            CHECK_FALSE(reader.read_pairs(field, [](const Field&, const Field&) {}));
          }) == std::string("f.yaml:1:4: v: must be a mapping: ") + shown);
  }
  CHECK(complaint("{a: b}", [](Reader& reader, const Field& field) {
          CHECK_FALSE(reader.read_list(field, "must be a list", 2, [](const Field&) {}));
        }) == "f.yaml:1:4: v: must be a list: a mapping");
}

TEST_CASE("the user's own keys come with their values") {
  const Text text("v: {a: 1, \"b\\e\": 2, a: 3}\n");
  Reader reader("f.yaml");
  Errors seen;
  reader.read_pairs(text.value(), [&](const Field& key, const Field& value) {
    CHECK(key.path == value.path);
    seen.push_back(value.path + "=" + value.node->text);
  });
  CHECK(seen == Errors{"v.a=1", "v.b\\x1b=2"});
  CHECK(reader.take_errors() == Errors{"f.yaml:1:21: v.a: given twice, first in line 1: \"3\""});
}

TEST_CASE("a list's entries have their numbers, and there are not too many") {
  const auto read = [](Reader& reader, const Field& field) {
    reader.read_list(field, "must be a list", 2,
                     [&](const Field& entry) { reader.text(entry, "must be a word"); });
  };
  CHECK(complaint("[a, b]", read).empty());
  CHECK(complaint("[a, [b]]", read) == "f.yaml:1:8: v[1]: must be a word: a list");
  CHECK(complaint("[a, ~]", read) == "f.yaml:1:4: v[1]: must be a word: \"\"");
  CHECK(complaint("[a, b, c]", read) ==
        "f.yaml:1:4: v: must have at most 2 entries, and has 3: a list");
}

TEST_CASE("strict text is what every reader takes for text") {
  const auto read = [](Reader& reader, const Field& field) {
    static_cast<void>(reader.strict_text(field, "must be a word"));
  };
  for (const auto* good :
       {"a",  "team-a", "1a",  "1.2.3", "10.0.0.1", "v1.2", "\"1\"", "'true'", "\"\"", "\"~\"",
        "e3", "1e",     "0xg", "1-2",   "a:b",      "nope", "truer", "|\n  1", ".",    "+"}) {
    CAPTURE(good);
    CHECK(complaint(good, read).empty());
  }
  for (const auto* bad :
       {"1",    "-1",    "+1",  "1.5",    "1.",   ".5",    "1_000", "0x1f",  "0o17",
        "0b1",  "1e3",   "1E3", "1.5e-3", ".inf", "-.inf", ".nan",  "12:30", "true",
        "True", "FALSE", "yes", "No",     "on",   "OFF",   "y",     "N",     "Null"}) {
    CAPTURE(bad);
    const auto error = complaint(bad, read);
    CHECK(error.find("v: must be text: put it in quotes, as YAML takes it for something else: ") !=
          std::string::npos);
  }
  CHECK(complaint("[a]", read) == "f.yaml:1:4: v: must be a word: a list");
}

TEST_CASE("choices, true and false") {
  bool out = false;
  const auto choose = [&out](Reader& reader, const Field& field) {
    reader.choice(field, "shared", "dedicated", out);
  };
  CHECK(complaint("dedicated", choose).empty());
  CHECK(out);
  CHECK(complaint("Shared", choose) == "f.yaml:1:4: v: must be shared or dedicated: \"Shared\"");
  CHECK(out);
  CHECK(complaint("shared", choose).empty());
  CHECK_FALSE(out);
  const auto boolean = [&out](Reader& reader, const Field& field) { reader.boolean(field, out); };
  CHECK(complaint("true", boolean).empty());
  CHECK(out);
  CHECK(complaint("yes", boolean) == "f.yaml:1:4: v: must be true or false: \"yes\"");
}

TEST_CASE("whole numbers") {
  unsigned out = 7;
  const auto read = [&out](Reader& reader, const Field& field) {
    reader.whole_number(field, 1, 60, out);
  };
  for (const auto* bad : {"0", "61", "-1", "2.5", "x", "0x1", "1e1", "99999999999999999999"}) {
    CAPTURE(bad);
    CHECK(complaint(bad, read) ==
          std::string("f.yaml:1:4: v: must be a whole number from 1 to 60: \"") + bad + "\"");
  }
  CHECK(complaint("\"4\"", read) == "f.yaml:1:4: v: must be a number, without quotes: \"4\"");
  CHECK(complaint("\"x\"", read) == "f.yaml:1:4: v: must be a whole number from 1 to 60: \"x\"");
  for (const auto* octal : {"010", "00", "08", "007"}) {
    CAPTURE(octal);
    CHECK(complaint(octal, read) ==
          std::string("f.yaml:1:4: v: must not begin with 0, as YAML may take it for an octal "
                      "number: \"") +
              octal + "\"");
  }
  CHECK(out == 7);
  CHECK(complaint("60", read).empty());
  CHECK(out == 60);
}

TEST_CASE("percentages have one decimal at most") {
  double out = 0;
  const auto read = [&out](Reader& reader, const Field& field) {
    reader.percentage(field, 100, out);
  };
  for (const auto& [text, value] : {std::pair{"0.1", 0.1},
                                    {"12.5", 12.5},
                                    {"25.0", 25.0},
                                    {"100", 100.0},
                                    {"33.30", 33.3},
                                    {"99.9", 99.9},
                                    {"5.", 5.0},
                                    {".5", 0.5},
                                    {"7.100000000000000000000000000", 7.1}}) {
    CAPTURE(text);
    CHECK(complaint(text, read).empty());
    CHECK(out == value);
  }
  for (const auto* bad : {"0", "100.1", "-1", "inf", "nan", ".inf", "1e1", "x", "1.2.3"}) {
    CAPTURE(bad);
    CHECK(complaint(bad, read) ==
          std::string("f.yaml:1:4: v: must be above 0 and at most 100: \"") + bad + "\"");
  }
  for (const auto* bad : {"0.05", "0.00000000001", "99.99999999999", "12.5000000000000000000001",
                          "99.900000000001", "33.33", ".01"}) {
    CAPTURE(bad);
    CHECK(complaint(bad, read) ==
          std::string("f.yaml:1:4: v: must have one decimal at most: \"") + bad + "\"");
  }
  CHECK(complaint("012.5", read) ==
        "f.yaml:1:4: v: must not begin with 0, as YAML may take it for an octal number: "
        "\"012.5\"");
  CHECK(complaint("\"5\"", read) == "f.yaml:1:4: v: must be a number, without quotes: \"5\"");
}

TEST_CASE("times and amounts of memory") {
  std::chrono::milliseconds time{0};
  const auto read_time = [&time](Reader& reader, const Field& field) {
    reader.duration(field, 1s, 1h, time);
  };
  CHECK(complaint("10m", read_time).empty());
  CHECK(time == 10min);
  CHECK(complaint("10", read_time) ==
        "f.yaml:1:4: v: must be a time with its unit, such as 250ms, 3s or 2m: \"10\"");
  CHECK(complaint("2h", read_time) == "f.yaml:1:4: v: must be between 1s and 1h: \"2h\"");
  std::uint64_t memory = 0;
  const auto read_memory = [&memory](Reader& reader, const Field& field) {
    if (const auto value = reader.mebibytes(field)) memory = *value;
  };
  for (const auto& [text, value] : {std::pair{"1Mi", 1U},
                                    {"10Gi", 10240U},
                                    {"1.5Gi", 1536U},
                                    {"2M", 1U},
                                    {"1073741824", 1024U},
                                    {"\"1Gi\"", 1024U},
                                    {"129e6", 123U},
                                    {"1e10", 9536U},
                                    {"65.863155712G", 62812U}}) {
    CAPTURE(text);
    CHECK(complaint(text, read_memory).empty());
    CHECK(memory == value);
  }
  CHECK(complaint("1Pi", read_memory).empty());
  CHECK(complaint("1023Ki", read_memory) ==
        "f.yaml:1:4: v: must be between 1Mi and 1Pi: \"1023Ki\"");
  for (const auto* large : {"1E", "1Ei", "99999999999Ti", "1e30"}) {
    CAPTURE(large);
    CHECK(complaint(large, read_memory) ==
          std::string("f.yaml:1:4: v: must be between 1Mi and 1Pi: \"") + large + "\"");
  }
  CHECK(complaint("02147483648", read_memory) ==
        "f.yaml:1:4: v: must not begin with 0, as YAML may take it for an octal number: "
        "\"02147483648\"");
  CHECK(complaint("128974848000m", read_memory) ==
        "f.yaml:1:4: v: must be an amount of memory, such as 512Mi or 10Gi; m would be thousandths "
        "of a byte: \"128974848000m\"");
  CHECK(complaint("10GB", read_memory) ==
        "f.yaml:1:4: v: must be an amount of memory, such as 512Mi or 10Gi: \"10GB\"");
}

TEST_CASE("errors come in the order of their places, and not without end") {
  Reader reader("f.yaml");
  for (int line = 150; line > 0; --line) reader.fail_at({line, 1}, "x");
  const auto errors = reader.take_errors();
  REQUIRE(errors.size() == Reader::k_error_limit + 1);
  CHECK(errors.front() == "f.yaml:51:1: x");
  CHECK(errors.back() == "f.yaml: and 50 more errors");
}

TEST_CASE("a file's name cannot move the cursor") {
  CHECK(to_string("a\x1b\n.yaml", {2, 3}) == "a\\x1b\\x0a.yaml:2:3");
}
