#include "policy/claims.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "policy/parse.h"

using namespace mps::policy;

namespace {

// "team-a@2:14 x@3:1"
std::string shown(const std::vector<Claim>& claims) {
  std::string all;
  for (const auto& claim : claims) {
    all += (all.empty() ? "" : " ") + claim.subject + "@" + std::to_string(claim.mark.line) + ":" +
           std::to_string(claim.mark.column);
  }
  return all;
}

std::string claims(const std::string& text) {
  return shown(likely_claims(text));
}

}  // namespace

TEST_CASE("what stands behind namespace: is whom a text is likely for") {
  const struct {
    const char* text;
    const char* claims;
  } cases[] = {
      {"", ""},
      {"  namespace: team-a", "team-a@1:14"},
      {"metadata: {namespace: team-a}", "team-a@1:23"},
      {"metadata: {namespace: \"unit:*\", x: y}", "unit:*@1:24"},
      {"{\"metadata\": {\"namespace\": \"*\"}}", "*@1:29"},
      {"  namespace : 'user:ann' # hers", "user:ann@1:16"},
      {"namespace: docker:web", "docker:web@1:12"},
      {"{n: \xc3\xa4, namespace: team-a}", "team-a@1:19"},
      {"a: b\r\nnamespace: team-a\r\nx: y", "team-a@2:12"},
      {"namespace: team-a\n---\nnamespace: team-b\n---\nnamespace: team-a",
       "team-a@1:12 team-b@3:12"},
      {"  # namespace: team-a", ""},
      {"  namespace:", ""},
      {"  namespace:\nspec: {}", ""},
      {"  namespace: team a", "team@1:14"},
      {"the namespace is", "is@1:15"},
      {"app: notebook", ""},
  };
  for (const auto& one : cases) {
    CAPTURE(one.text);
    CHECK(claims(one.text) == one.claims);
  }
}

TEST_CASE("a key that is written wrong is the key that was meant") {
  for (const auto* text :
       {"namespce: team-a", "Namespace: team-a", "NAMESPACE: team-a", "namespaces: team-a",
        "nameSpace: team-a", "name-space: team-a", "namespace team-a", "namespace:team-a",
        "namespace=team-a", "namespace = team-a", "namespace;team-a", "name: team-a", "ns: team-a",
        "\xef\xbb\xbfnamespace: team-a"}) {
    CAPTURE(text);
    const auto found = likely_claims(text);
    REQUIRE(found.size() == 1);
    CHECK(found.front().subject == "team-a");
  }
}

TEST_CASE("the name may stand behind other things, or on another line") {
  const struct {
    const char* text;
    const char* claims;
  } cases[] = {
      {"namespace: &n team-a", "team-a@1:15"},
      {"namespace: !!str team-a", "team-a@1:18"},
      {"namespace: &n !!str 'team-a'", "team-a@1:22"},
      {"namespace:\n  team-a", "team-a@2:3"},
      {"namespace:\n  # whose?\n\n  team-a", "team-a@4:3"},
      {"namespace: # whose?\n  team-a", "team-a@2:3"},
      {"namespace: |-\n  team-a", "team-a@2:3"},
      {"namespace:\n  - team-a", "team-a@2:5"},
      {"namespace: [team-a]", "team-a@1:13"},
      {"? namespace\n: team-a", "team-a@2:3"},
      {"\"namespace\"\n:\n\"team-a\"", "team-a@3:2"},
      {"x: &t team-a\nnamespace: *t", "team-a@2:12"},
      {"namespace: *t", ""},
      {"namespace: *", "*@1:12"},
      {"namespace: team-a: 1", "team-a@1:12"},
      {"namespace: team-a#x", "team-a@1:12"},
      {"namespace: team-a}", "team-a@1:12"},
      {"namespace: \"team-a", "team-a@1:13"},
      {"namespace: Team_A", "team-a@1:12"},
      {"\"namespace\": \"unit:a\\\\x2db\"", "unit:a\\x2db@1:15"},
      {"{\"metadata\":{\"name\":\"namespace\",\"namespace\":\"team-a\"},\"spec\":{",
       "namespace@1:22 team-a@1:46"},
      {"{namespace: a}, {namespace: b}, {namespace: c}", "a@1:13 b@1:29 c@1:45"},
      {"{\"x\": \"a # b\", \"namespace\": \"team-a\"}", "team-a@1:30"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.text);
    CHECK(claims(one.text) == one.claims);
  }
  std::string utf16 = "\xff\xfe";
  for (const char character : std::string("namespace: team-a\n")) utf16 += {character, '\0'};
  CHECK(likely_claims(utf16).front().subject == "team-a");
}

TEST_CASE("claims are many, and not without end") {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "namespace: n" + std::to_string(i) + "\n";
  CHECK(likely_claims(text).size() == k_claim_limit);
  CHECK(likely_claims(text).back().subject == "n4095");
}

TEST_CASE("no text takes long") {
  for (const auto* piece :
       {"namespace: # ", "namespace", "namespace ", "namespace:", "namespace: a ", "namespace: &a ",
        "&a a ", "\"", "namespace:\n", "namespace: *a ", ":", "\xc3\xa4", "namespace: \xff,", "#",
        "\\\\", "namespace: \"\\\\\\\\", "# \n"}) {
    CAPTURE(piece);
    const std::string part = piece;
    std::string text;
    while (text.size() < std::size_t{256} * 1024) text += part;
    CHECK(likely_claims(text).size() <= 2);
  }
}

TEST_CASE("a bad file claims what is read in it, and what its text is likely for") {
  const std::string head = "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\n";
  const struct {
    const char* what;
    std::string text;
    const char* claims;
  } cases[] = {
      {"good", head + "metadata: {namespace: a}\nspec: {}\n", "a@3:23"},
      {"nothing but a bad value", head + "metadata: {namespace: a}\nspec: {x: 1}\n", "a@3:23"},
      {"a bad document after it",
       head + "metadata: {namespace: a}\n---\n" + head + "metadata: {namespace: b}\n---\nkind: 1\n",
       "a@3:23 b@7:23"},
      {"the key", head + "metadata: {namespce: team-a}\nspec: {}\n", "team-a@3:22"},
      {"the key above", head + "metdata: {namespace: team-a}\nspec: {}\n", "team-a@3:22"},
      {"no indentation", head + "metadata:\nnamespace: team-a\nspec: {}\n", "team-a@4:12"},
      {"no list", head + "- metadata: {namespace: team-a}\n", "team-a@3:25"},
      {"a number", head + "metadata: {namespace: 123}\nspec: {}\n", "123@3:23"},
      {"an escape", head + "metadata: {namespace: \"team\\x2da\"}\nspec: {x: 1}\n", "team-a@3:23"},
      {"YAML", head + "metadata: {namespace: &n team-a}\nspec: {\n", "team-a@3:26"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.what);
    CHECK(shown(parse(one.text, "t.yaml").claims) == one.claims);
  }
}
