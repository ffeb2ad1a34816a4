#include "yaml/tree.h"

#include <doctest/doctest.h>

#include <string>
#include <variant>
#include <vector>

using namespace mps::yaml;

namespace {

std::vector<Node> documents(const std::string& text, const Limits& limits = {}) {
  auto tree = parse(text, limits);
  const auto* problem = std::get_if<Problem>(&tree);
  INFO((problem == nullptr ? std::string() : problem->reason));
  REQUIRE(problem == nullptr);
  return std::get<std::vector<Node>>(std::move(tree));
}

Node document(const std::string& text) {
  auto all = documents(text);
  REQUIRE(all.size() == 1);
  return all.front();
}

// "line:column: reason", or nothing.
std::string problem(const std::string& text, const Limits& limits = {}) {
  const auto tree = parse(text, limits);
  const auto* found = std::get_if<Problem>(&tree);
  if (found == nullptr) return {};
  return std::to_string(found->mark.line) + ":" + std::to_string(found->mark.column) + ": " +
         found->reason;
}

std::string times(std::size_t count, const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += text;
  return out;
}

}  // namespace

TEST_CASE("values have their kinds, texts and places") {
  const auto root = document("a: 1\nlist:\n  - x\n  - {k: v}\nnothing:\ntilde: ~\n");
  REQUIRE(root.is_mapping());
  REQUIRE(root.fields.size() == 4);
  CHECK(root.mark == Mark{1, 1});
  CHECK(root.fields[0].first.text == "a");
  CHECK(root.fields[0].first.mark == Mark{1, 1});
  CHECK(root.fields[0].second.text == "1");
  CHECK(root.fields[0].second.mark == Mark{1, 4});
  const auto& list = root.fields[1].second;
  REQUIRE(list.is_list());
  CHECK(list.mark == Mark{3, 3});
  REQUIRE(list.entries.size() == 2);
  CHECK(list.entries[0].mark == Mark{3, 5});
  REQUIRE(list.entries[1].is_mapping());
  CHECK(list.entries[1].fields[0].second.text == "v");
  CHECK(root.fields[2].second.is_null());
  CHECK(root.fields[3].second.is_null());
}

TEST_CASE("columns are counted in characters") {
  const auto root = document("{\xc3\xa4: x}\n");
  CHECK(root.fields[0].second.mark == Mark{1, 5});
}

TEST_CASE("what is quoted stays known as text") {
  const struct {
    const char* text;
    bool quoted;
    const char* value;
  } cases[] = {
      {"5\n", false, "5"},           {"\"5\"\n", true, "5"},      {"'5'\n", true, "5"},
      {"|\n  5\n", true, "5\n"},     {">\n  5\n", true, "5\n"},   {"\"\"\n", true, ""},
      {"a  b # c\n", false, "a  b"}, {"'it''s'\n", true, "it's"},
  };
  for (const auto& [text, quoted, value] : cases) {
    CAPTURE(text);
    const auto node = document(text);
    REQUIRE(node.is_scalar());
    CHECK(node.quoted == quoted);
    CHECK(node.text == value);
  }
}

TEST_CASE("documents, the empty ones too") {
  CHECK(documents("").empty());
  CHECK(documents("# nothing\n").empty());
  const auto all = documents("---\n# nothing\n---\na: 1\n---\nb: 2\n");
  REQUIRE(all.size() == 3);
  CHECK(all[0].is_null());
  CHECK(all[1].fields[0].first.text == "a");
  CHECK(all[2].mark.line == 6);
}

TEST_CASE("a byte order mark and line ends of Windows change no place") {
  const auto root = document(
      "\xef\xbb\xbf"
      "a: 1\r\nb: 2\r\n");
  REQUIRE(root.fields.size() == 2);
  CHECK(root.fields[0].first.text == "a");
  CHECK(root.fields[0].first.mark == Mark{1, 1});
  CHECK(root.fields[1].second.text == "2");
  CHECK(root.fields[1].second.mark == Mark{2, 4});
}

TEST_CASE("an alias is a copy, with the places of what it stands for") {
  const auto root = document("a: &x {k: v}\nb: *x\n");
  const auto& copy = root.fields[1].second;
  REQUIRE(copy.is_mapping());
  CHECK(copy.fields[0].second.text == "v");
  CHECK(copy.mark == Mark{1, 4});
}

TEST_CASE("anchors end with their document") {
  CHECK(problem("a: &x 1\n---\nb: *x\n") == "3:4: no anchor of this name before it: \"x\"");
}

TEST_CASE("bounds hold exactly") {
  const Limits small{.bytes = 40, .depth = 3, .values = 6, .aliases = 2, .documents = 2};
  const struct {
    std::string text;
    std::string problem;
  } cases[] = {
      {std::string("#") + times(39, "x"), ""},
      {std::string("#") + times(40, "x"), "1:1: must not be larger than 40 bytes: \"41\""},
      {"[[[x]]]", ""},
      {"[[[[x]]]]", "1:4: nested too deeply, 3 levels are the limit"},
      {"[a, b, c, d, e]", ""},
      {"[a, b, c, d, e, f]",
       "1:17: has more than 6 values, aliases counted as what they stand for"},
      {"[&x a, *x, *x]", ""},
      {"[&x a, *x, *x, *x]", "1:16: has more than 2 aliases"},
      {"[&x [a, b], *x]", "1:13: has more than 6 values, aliases counted as what they stand for"},
      {"[&x [[a]], b]", ""},
      {"[[&x [a]]]", ""},
      {"- &x [[a]]\n- [*x]", "2:4: has more than 6 values, aliases counted as what they stand for"},
      {"a\n---\nb", ""},
      {"a\n---\nb\n---\nc", "4:1: has more than 2 documents"},
  };
  for (const auto& [text, expected] : cases) {
    CAPTURE(text);
    CHECK(problem(text, small) == expected);
  }
  const Limits deep{.depth = 3};
  CHECK(problem("- &x [[a]]\n- [*x]", deep) == "2:4: nested too deeply, 3 levels are the limit");
}

TEST_CASE("aliases of aliases of one long text are not spelt out") {
  const auto bomb = "a: &a " + times(200000, "x") + "\nb: &b [" + times(50, "*a, ") + "]\nc: [" +
                    times(50, "*b, ") + "]\n";
  CHECK(problem(bomb) ==
        "2:12: has more than 262144 bytes, aliases counted as what they stand for");
}

TEST_CASE("what is no text is not given to the parser") {
  CHECK(problem("a: \x01\n") == "1:4: must not have control characters in it: \"\\x01\"");
  CHECK(problem("\xc3\xa4: \x7f\n") == "1:4: must not have control characters in it: \"\\x7f\"");
  CHECK(problem("a: 1\nb: \xff\n") == "2:4: is not UTF-8 text: \"\\xff\"");
  CHECK(problem(std::string("a: \0", 4)).starts_with("1:4: must not have control characters"));
  CHECK(problem("\xfe\xff").starts_with("1:1: is not UTF-8 text"));
  const std::string what = ": must not have control characters in it: ";
  // Ends of lines for libyaml, and for no editor.
  CHECK(problem("a: 1\xe2\x80\xa8x: 1\n") == "1:5" + what + "\"\\xe2\\x80\\xa8\"");
  CHECK(problem("# x\xe2\x80\xa9:\n") == "1:4" + what + "\"\\xe2\\x80\\xa9\"");
  CHECK(problem("a: 1\n\xc2\x85") == "2:1" + what + "\"\\xc2\\x85\"");
  CHECK(problem("a: \xef\xbf\xbe") == "1:4" + what + "\"\\xef\\xbf\\xbe\"");
  CHECK(problem("a: \xef\xbf\xbf") == "1:4" + what + "\"\\xef\\xbf\\xbf\"");
}

TEST_CASE("what is not YAML is said in libyaml's words, with where it began") {
  CHECK(problem("a: b: c") == "1:5: not YAML: mapping values are not allowed in this context");
  CHECK(problem("a:\n  b: 1\n c: 2\n") ==
        "3:2: not YAML: did not find expected key while parsing a block mapping that begins on "
        "line 1");
  const std::string no_token = ": not YAML: found character that cannot start any token: ";
  CHECK(problem("a:\n\tb: 1\n") == "2:1" + no_token + "\"\\x09\"");
  CHECK(problem("\xef\xbb\xbf\xc3\xa4: @x\n") == "1:4" + no_token + "\"@\"");
  CHECK(problem("a: 1\r\nb: `\r\n") == "2:4" + no_token + "\"`\"");
  CHECK(problem("[*x]") == "1:2: no anchor of this name before it: \"x\"");
  CHECK(problem("&x [*x]") == "1:5: an alias within what it stands for");
}

TEST_CASE("tags are refused, quotes are none") {
  CHECK(problem("!!int 5\n") == "1:1: tags are not supported: \"tag:yaml.org,2002:int\"");
  CHECK(problem("a: !x [1]\n") == "1:4: tags are not supported: \"!x\"");
  CHECK(problem("a: !x {k: 1}\n") == "1:4: tags are not supported: \"!x\"");
  CHECK(problem("a: \"5\"\n").empty());
}

TEST_CASE("directives are refused, but for YAML's own version") {
  CHECK(problem("%YAML 1.1\n--- 1\n").empty());
  CHECK(problem("%YAML 1.2\n---\na: 1\n...\n%YAML 1.2\n---\nb: 1\n").empty());
  CHECK(problem("%TAG ! x\n---\na: 1\n") == "1:1: directives are not supported: \"%TAG ! x\"");
  CHECK(problem("\xef\xbb\xbf%TAG ! x\r\n---\n") ==
        "1:1: directives are not supported: \"%TAG ! x\"");
  CHECK(problem("a: 1\n---\n%YAMLS\n") == "3:1: directives are not supported: \"%YAMLS\"");
  CHECK(problem("%YAML 2.0\n--- 1\n") == "1:1: not YAML: found incompatible YAML document");
  CHECK(problem("%YAML 1.1\n%YAML 1.1\n--- 1\n") ==
        "2:1: not YAML: found duplicate %YAML directive");
  CHECK(problem("a: |\n %b\n").empty());
}

TEST_CASE("texts made to take long are refused at once") {
  for (const auto* piece :
       {"[",     "{",  "- ", "? ",   "[[],",  "{a: ",         "&a ",        "*a ",
        "!a ",   "\"", "'",  "a: ",  "a:\n ", "|\n",          "%",          "---\n",
        "...\n", ": ", ", ", "[a: ", "? - ",  "%TAG !0! x\n", "%YAML 1.1\n"}) {
    CAPTURE(piece);
    const std::string text = piece;
    CHECK_FALSE(problem(times(100000 / text.size(), text)) == "?");
  }
}
