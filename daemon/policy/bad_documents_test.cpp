// Everything that a policy file can have wrong, with the exact words:
// integration/policies/bad_documents.txt.
#include <doctest/doctest.h>

#include <cstddef>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "policy/parse.h"

namespace {

using namespace mps::policy;

struct Case {
  std::string name;
  std::string text;
  std::vector<std::string> expected;
};

// "{repeat N TEXT}" becomes N times TEXT.
std::string repeated(const std::string& text) {
  constexpr std::string_view opening = "{repeat ";
  std::string out;
  std::size_t at = 0;
  while (true) {
    const auto begin = text.find(opening, at);
    if (begin == std::string::npos) return out + text.substr(at);
    out += text.substr(at, begin - at);
    const auto number = begin + opening.size();
    const auto blank = text.find(' ', number);
    const auto end = text.find('}', blank);
    const auto count = std::stoul(text.substr(number, blank - number));
    const auto what = text.substr(blank + 1, end - blank - 1);
    for (std::size_t i = 0; i < count; ++i) out += what;
    at = end + 1;
  }
}

std::string unescaped(const std::string& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\\') {
      out += text[at];
      continue;
    }
    const char next = text.at(++at);
    if (next == 'n') out += '\n';
    if (next == 'r') out += '\r';
    if (next == 't') out += '\t';
    if (next == '\\') out += '\\';
    if (next == 'x') {
      out += static_cast<char>(std::stoul(text.substr(at + 1, 2), nullptr, 16));
      at += 2;
    }
  }
  return out;
}

std::vector<Case> read_table() {
  std::ifstream in(MPS_BAD_DOCUMENTS);
  std::vector<Case> cases;
  enum class Part { nothing, text, expected } part = Part::nothing;
  bool escaped = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("=== ")) {
      escaped = line.ends_with("| escaped");
      cases.push_back({line.substr(4, line.find(" | ") - 4), {}, {}});
      part = Part::text;
    } else if (part == Part::text && line == "--- expect") {
      auto& text = cases.back().text;
      if (escaped) text = unescaped(repeated(text));
      part = Part::expected;
    } else if (part == Part::text) {
      cases.back().text += line + "\n";
    } else if (part == Part::expected && !line.empty()) {
      cases.back().expected.push_back(line);
    } else {
      part = Part::nothing;
    }
  }
  return cases;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string all;
  for (const auto& line : lines) all += line + "\n";
  return all;
}

}  // namespace

TEST_CASE("each bad document gets exactly its errors, in the order of their places") {
  const auto cases = read_table();
  REQUIRE(cases.size() >= 200);
  for (const auto& bad : cases) {
    CAPTURE(bad.name);
    const auto parsed = parse(bad.text, "t.yaml");
    CHECK(parsed.policies.empty());
    CHECK_FALSE(bad.expected.empty());
    CHECK(joined(parsed.errors) == joined(bad.expected));
  }
}
