#include "policy/generation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "policy/effective.h"
#include "policy/subject.h"

using namespace mps::policy;

namespace {

using Ptr = std::shared_ptr<const Generation>;
using Files = std::vector<SourceFile>;
using Errors = std::vector<std::string>;

// Three lines, the namespace at 3:23, and the spec.
std::string doc(const std::string& subject, const std::string& spec = "{}") {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"" + subject +
         "\"}\nspec: " + spec + "\n";
}

std::string docs(const std::vector<std::string>& subjects, const std::string& spec = "{}") {
  std::string all;
  for (const auto& subject : subjects) all += (all.empty() ? "" : "---\n") + doc(subject, spec);
  return all;
}

SourceFile file(const std::string& name, const std::string& text) {
  return {name, text, ""};
}

SourceFile unreadable(const std::string& name) {
  return {name, "", "is not a regular file"};
}

Ptr step(const Ptr& before, const Files& files, const std::vector<DeviceFacts>& devices = {}) {
  return next_generation(before ? *before : Generation{}, files, devices);
}

const File& find(const Ptr& generation, const std::string& name) {
  const auto& files = generation->files;
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const File& one) { return one.name == name; });
  REQUIRE(found != files.end());
  return *found;
}

// "good", or the state and the errors, one per line.
std::string state(const Ptr& generation, const std::string& name) {
  const auto& one = find(generation, name);
  std::string text = to_string(one.state);
  for (const auto& error : one.errors) text += "\n" + error;
  return text;
}

// "team-a team-b", as a generation has them in force.
std::string in_force(const Ptr& generation) {
  std::string all;
  for (const auto& [subject, policy] : generation->policies) {
    all += (all.empty() ? "" : " ") + subject + "@" + policy->file;
  }
  return all;
}

std::string refusal(const Ptr& generation, const std::string& subject) {
  const auto found = find_policy(*generation, subject);
  const auto* none = std::get_if<NoPolicy>(&found);
  return none == nullptr ? "" : none->reason;
}

const std::string k_bad = "{isolation: none}";

std::string taken(const std::string& name, const std::string& other,
                  const std::string& subject = "x") {
  return name + ":3:23: metadata.namespace: has a policy already, at " + other + ":3:23: \"" +
         subject + "\"";
}

DeviceFacts gpu0() {
  DeviceFacts device;
  device.name = "gpu0";
  device.uuid = "GPU-0";
  device.memory_mebibytes = 80UL * 1024;
  device.sm_count = 100;
  return device;
}

}  // namespace

TEST_CASE("the first generation is number 1, and what stays as it is stays the very same") {
  const Files files{file("a.yaml", doc("x")), file("b.yaml", docs({"y", "*"}))};
  const auto first = step(nullptr, files);
  CHECK(first->number == 1);
  CHECK(first->hash.size() == 12);
  CHECK(in_force(first) == "*@b.yaml x@a.yaml y@b.yaml");
  CHECK(first->bad_files() == 0);
  CHECK(first->refused.empty());
  const auto second = step(first, files);
  CHECK(second->number == 1);
  CHECK(second->hash == first->hash);
  CHECK(find(second, "a.yaml").accepted == find(first, "a.yaml").accepted);
  CHECK(second->policies.at("y") == first->policies.at("y"));
}

TEST_CASE("no files are a generation too") {
  const auto none = step(nullptr, {});
  CHECK(none->number == 1);
  CHECK(none->policies.empty());
  CHECK(refusal(none, "x") == "no policy is for namespace \"x\", nor for \"*\"");
  CHECK(refusal(none, "unit:a") == "no policy is for namespace \"unit:a\", nor for \"unit:*\"");
}

TEST_CASE("what changes is counted, whatever the files' order") {
  const auto a = file("a.yaml", doc("x"));
  const auto b = file("b.yaml", doc("y"));
  const auto first = step(nullptr, {a, b});
  CHECK(step(first, {b, a})->number == 1);
  CHECK(step(nullptr, {b, a})->hash == first->hash);
  CHECK(step(nullptr, {b, a})->files.front().name == "a.yaml");

  const auto second = step(first, {a, file("b.yaml", doc("y", "{isolation: dedicated}"))});
  CHECK(second->number == 2);
  CHECK(second->hash != first->hash);
  CHECK(find(second, "a.yaml").accepted == find(first, "a.yaml").accepted);
  CHECK(second->policies.at("y")->isolation.value == Isolation::dedicated);

  const auto third = step(second, {a});
  CHECK(third->number == 3);
  CHECK(in_force(third) == "x@a.yaml");
  CHECK(step(third, {a, b})->hash == first->hash);
}

TEST_CASE("the files' names count, else one file that took another's place would go unseen") {
  const auto first = step(nullptr, {file("a.yaml", doc("x"))});
  CHECK(step(first, {file("b.yaml", doc("x"))})->number == 2);
}

TEST_CASE("a bad file keeps what it said last") {
  const auto good = doc("x", "{client: {activeThreadPercentage: 10}}");
  const auto first = step(nullptr, {file("a.yaml", good)});
  for (const auto& [changed, error] :
       {std::pair{file("a.yaml", doc("x", k_bad)),
                  "a.yaml:4:19: spec.isolation: must be shared or dedicated: \"none\""},
        {file("a.yaml", ""), "a.yaml:1:1: has no policy in it; remove the file if none is meant"},
        {unreadable("a.yaml"), "a.yaml: is not a regular file"}}) {
    CAPTURE(error);
    const auto second = step(first, {changed});
    CHECK(state(second, "a.yaml") == std::string("lastGood\n") + error);
    CHECK(second->number == 1);
    CHECK(second->hash == first->hash);
    CHECK(second->policies.at("x") == first->policies.at("x"));
    CHECK(second->bad_files() == 1);
    const auto third = step(second, {changed});
    CHECK(state(third, "a.yaml") == std::string("lastGood\n") + error);
    CHECK(third->policies.at("x") == first->policies.at("x"));
    CHECK(state(step(third, {file("a.yaml", good)}), "a.yaml") == "good");
    CHECK(in_force(step(third, {})).empty());
  }
}

TEST_CASE("who is named by bad files alone is refused, not given the default") {
  const std::string error = "bad.yaml:4:19: spec.isolation: must be shared or dedicated: \"none\"";
  const auto generation =
      step(nullptr, {file("bad.yaml", doc("x", k_bad)), file("default.yaml", doc("*"))});
  CHECK(state(generation, "bad.yaml") == "bad\n" + error);
  CHECK(refusal(generation, "x") ==
        "the policy for \"x\" is not in force, as its file is bad: " + error);
  CHECK(refusal(generation, "y").empty());
  CHECK(generation->refused.at("x").file == "bad.yaml");
  CHECK(generation->refused.at("x").mark == Mark{3, 23});
}

TEST_CASE("a file that is not even YAML does not give its namespaces to the default") {
  const auto generation = step(nullptr, {file("bad.yaml", doc("x", "{client: {priority: normal")),
                                         file("d.yaml", doc("*"))});
  CHECK(refusal(generation, "x")
            .starts_with("the policy for \"x\" is not in force, as its file is bad: bad.yaml:5:1: "
                         "not YAML: "));
  CHECK(refusal(generation, "y").empty());
}

TEST_CASE("a mistyped policy does not give its namespace the default") {
  const std::string head = "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\n";
  std::string many;
  for (int i = 0; i < 200; ++i) many += "namespace: n" + std::to_string(i) + "\n";
  const std::string texts[] = {
      head + "metadata: {namespce: team-a}\nspec: {}\n",
      head + "metdata: {namespace: team-a}\nspec: {}\n",
      head + "metadata:\nnamespace: team-a\nspec: {}\n",
      head + "metadata: {name: team-a}\nspec: {}\n",
      head + "metadata:\n  namespace:team-a\nspec: {}\n",
      head + "metadata:\n  namespace: Team-A\nspec: {}\n",
      head + "metadata: {namespace: &n team-a}\nspec: {\n",
      head + "metadata:\n  namespace:\n    team-a\nspec: {\n",
      "{\"metadata\":{\"name\":\"namespace\",\"namespace\":\"team-a\"},\"spec\":{",
      many + "namespace: team-a\n",
  };
  for (const auto& text : texts) {
    CAPTURE(text);
    const auto generation = step(nullptr, {file("a.yaml", text), file("d.yaml", doc("*"))});
    CHECK(
        refusal(generation, "team-a")
            .starts_with("the policy for \"team-a\" is not in force, as its file is bad: a.yaml:"));
    CHECK(refusal(generation, "team-b").empty());
  }
}

TEST_CASE("a file that is not taken is for whom its text is for, as far as there is one") {
  const auto other = file("d.yaml", doc("*"));
  const std::string trouble = "must not be larger than 262144 bytes: \"300000\"";
  const SourceFile large{"a.yaml", doc("team-a") + "---\nmeta", trouble};
  const auto generation = step(nullptr, {large, other});
  CHECK(state(generation, "a.yaml") == "bad\na.yaml: " + trouble);
  CHECK(refusal(generation, "team-a") ==
        "the policy for \"team-a\" is not in force, as its file is bad: a.yaml: " + trouble);
  CHECK(refusal(generation, "team-b").empty());
  // Whom this one is for nobody knows.
  CHECK(refusal(step(nullptr, {unreadable("a.yaml"), other}), "team-a").empty());
  const auto first = step(nullptr, {file("a.yaml", doc("team-b")), other});
  const auto second = step(first, {large, other});
  CHECK(state(second, "a.yaml") == "lastGood\na.yaml: " + trouble);
  CHECK(refusal(second, "team-b").empty());
  CHECK_FALSE(refusal(second, "team-a").empty());
}

TEST_CASE("a bad default lets nobody in who would have it") {
  const auto generation =
      step(nullptr, {file("default.yaml", doc("*", k_bad)), file("x.yaml", doc("x"))});
  CHECK(refusal(generation, "y") ==
        "the policy for \"*\" is not in force, as its file is bad: default.yaml:4:19: "
        "spec.isolation: must be shared or dedicated: \"none\"");
  CHECK(refusal(generation, "x").empty());
}

TEST_CASE("a last good file's new namespaces are refused, its old ones stay") {
  const auto first = step(nullptr, {file("a.yaml", doc("x")), file("default.yaml", doc("*"))});
  const auto second =
      step(first, {file("a.yaml", docs({"x", "y"}, k_bad)), file("default.yaml", doc("*"))});
  CHECK(refusal(second, "x").empty());
  CHECK(refusal(second, "y").starts_with("the policy for \"y\" is not in force"));
}

TEST_CASE("a newcomer does not take a namespace from the file that has it") {
  const auto a = file("a.yaml", doc("x"));
  const auto b = file("b.yaml", doc("x", "{isolation: dedicated}"));
  const auto first = step(nullptr, {b});
  for (const auto& before : {first, step(first, {a, b})}) {
    const auto next = step(before, {a, b});
    CHECK(state(next, "a.yaml") == "bad\n" + taken("a.yaml", "b.yaml"));
    CHECK(state(next, "b.yaml") == "good");
    CHECK(in_force(next) == "x@b.yaml");
    CHECK(next->number == 1);
  }
  const auto after = step(step(first, {a, b}), {a});
  CHECK(state(after, "a.yaml") == "good");
  CHECK(in_force(after) == "x@a.yaml");
}

TEST_CASE("of several newcomers with one namespace none has it, and each names another") {
  const auto a = file("a.yaml", doc("x"));
  const auto b = file("b.yaml", doc("x"));
  const auto c = file("c.yaml", doc("x"));
  const auto two = step(nullptr, {b, a});
  CHECK(state(two, "a.yaml") == "bad\n" + taken("a.yaml", "b.yaml"));
  CHECK(state(two, "b.yaml") == "bad\n" + taken("b.yaml", "a.yaml"));
  CHECK(refusal(two, "x") ==
        "the policy for \"x\" is not in force, as its file is bad: " + taken("a.yaml", "b.yaml"));
  const auto three = step(two, {c, b, a});
  CHECK(state(three, "a.yaml") == "bad\n" + taken("a.yaml", "b.yaml"));
  CHECK(state(three, "b.yaml") == "bad\n" + taken("b.yaml", "a.yaml"));
  CHECK(state(three, "c.yaml") == "bad\n" + taken("c.yaml", "a.yaml"));
  CHECK(in_force(step(three, {b})) == "x@b.yaml");
  const auto one_had_it = step(step(nullptr, {b}), {a, b, c});
  CHECK(state(one_had_it, "a.yaml") == "bad\n" + taken("a.yaml", "b.yaml"));
  CHECK(state(one_had_it, "c.yaml") == "bad\n" + taken("c.yaml", "b.yaml"));
}

TEST_CASE("a namespace moves from one file to another") {
  const auto first = step(nullptr, {file("a.yaml", docs({"x", "y"})), file("b.yaml", doc("z"))});
  const auto a_without = file("a.yaml", doc("y"));
  const auto b_with = file("b.yaml", docs({"z", "x"}));
  SUBCASE("in one step") {
    const auto moved = step(first, {a_without, b_with});
    CHECK(moved->bad_files() == 0);
    CHECK(in_force(moved) == "x@b.yaml y@a.yaml z@b.yaml");
  }
  SUBCASE("to a file that is read before") {
    const auto moved = step(step(nullptr, {file("b.yaml", doc("x")), file("a.yaml", doc("z"))}),
                            {file("b.yaml", doc("y")), file("a.yaml", doc("x"))});
    CHECK(in_force(moved) == "x@a.yaml y@b.yaml");
  }
  SUBCASE("in two steps, the new place first") {
    const auto between = step(first, {file("a.yaml", docs({"x", "y"})), b_with});
    CHECK(state(between, "b.yaml") ==
          "lastGood\nb.yaml:8:23: metadata.namespace: has a policy already, at a.yaml:3:23: \"x\"");
    CHECK(in_force(between) == "x@a.yaml y@a.yaml z@b.yaml");
    const auto moved = step(between, {a_without, b_with});
    CHECK(moved->bad_files() == 0);
    CHECK(in_force(moved) == "x@b.yaml y@a.yaml z@b.yaml");
  }
  SUBCASE("in two steps, away first") {
    const auto between = step(first, {a_without, file("b.yaml", doc("z"))});
    CHECK(in_force(between) == "y@a.yaml z@b.yaml");
    CHECK(in_force(step(between, {a_without, b_with})) == "x@b.yaml y@a.yaml z@b.yaml");
  }
}

TEST_CASE("a file that falls back takes what it had from who came for it") {
  const auto first = step(nullptr, {file("a.yaml", doc("x")), file("c.yaml", doc("y"))});
  const Files files{file("a.yaml", doc("y")), file("b.yaml", doc("x")), file("c.yaml", doc("y"))};
  const auto next = step(first, files);
  CHECK(state(next, "a.yaml") == "lastGood\n" + taken("a.yaml", "c.yaml", "y"));
  CHECK(state(next, "b.yaml") == "bad\n" + taken("b.yaml", "a.yaml"));
  CHECK(state(next, "c.yaml") == "good");
  CHECK(in_force(next) == "x@a.yaml y@c.yaml");
  CHECK(next->number == 1);
}

TEST_CASE("a long row of files that wait for each other's namespaces stays as it is") {
  constexpr int k_files = 2000;
  Files before;
  Files after;
  for (int i = 0; i < k_files; ++i) {
    const auto name = "f" + std::to_string(10000 + i) + ".yaml";
    before.push_back(file(name, doc("n" + std::to_string(i))));
    after.push_back(file(name, doc("n" + std::to_string(i + 1))));
  }
  const auto first = step(nullptr, before);
  const auto moved = step(first, after);
  CHECK(moved->bad_files() == 0);
  CHECK(moved->policies.contains("n2000"));
  after.back() = file(after.back().name, doc("n2000", k_bad));
  const auto stuck = step(first, after);
  CHECK(stuck->bad_files() == k_files);
  CHECK(stuck->number == 1);
  CHECK(stuck->hash == first->hash);
  CHECK(state(stuck, "f10000.yaml") == "lastGood\n" + taken("f10000.yaml", "f10001.yaml", "n1"));
  CHECK(refusal(stuck, "n0").empty());
}

TEST_CASE("many files with many namespaces in common have none of them") {
  std::vector<std::string> subjects;
  for (int i = 0; i < 50; ++i) subjects.push_back("n" + std::to_string(i));
  Files files;
  for (int i = 0; i < 200; ++i) {
    files.push_back(file("f" + std::to_string(1000 + i), docs(subjects)));
  }
  const auto none = step(nullptr, files);
  CHECK(none->policies.empty());
  CHECK(find(none, "f1000").errors.size() == 50);
  files.pop_back();
  const auto first = step(nullptr, {files.back()});
  CHECK(in_force(step(first, files)) == in_force(first));
}

TEST_CASE("two files change their namespaces for each other's") {
  const Files before{file("a.yaml", doc("x")), file("b.yaml", doc("y"))};
  const auto first = step(nullptr, before);
  CHECK(in_force(step(first, {file("a.yaml", doc("y")), file("b.yaml", doc("x"))})) ==
        "x@b.yaml y@a.yaml");
  const auto half = step(first, {file("a.yaml", doc("y", k_bad)), file("b.yaml", doc("x"))});
  CHECK(find(half, "a.yaml").state == File::State::last_good);
  CHECK(state(half, "b.yaml") == "lastGood\n" + taken("b.yaml", "a.yaml"));
  CHECK(in_force(half) == "x@a.yaml y@b.yaml");
  CHECK(half->number == 1);
}

TEST_CASE("two instances do not get one name") {
  const std::string long_name = "team-machine-learning";
  const auto id = instance_id("gpu0", dedicated_domain(long_name));
  const auto short_name = id.substr(std::string("gpu0.ns-").size());
  const auto a = file("a.yaml", doc(long_name, "{isolation: dedicated}"));
  const auto b = file("b.yaml", doc(short_name, "{isolation: dedicated}"));
  const std::string clash_b = "b.yaml:4:19: spec.isolation: the instance " + id +
                              " would have the name of that of namespace " + long_name +
                              ", at a.yaml:3:23: \"dedicated\"";
  const auto first = step(nullptr, {a}, {gpu0()});
  const auto next = step(first, {a, b}, {gpu0()});
  CHECK(state(next, "a.yaml") == "good");
  CHECK(state(next, "b.yaml") == "bad\n" + clash_b);
  CHECK(step(nullptr, {a, b}, {gpu0()})->policies.empty());
  CHECK(step(first, {a, file("b.yaml", doc(short_name))}, {gpu0()})->bad_files() == 0);

  // Both were in force when there was no such device yet: one of them has to go, always the same.
  const auto unseen = step(nullptr, {a, b});
  CHECK(unseen->bad_files() == 0);
  for (const auto& files : {Files{a, b}, Files{b, a}}) {
    const auto seen = step(unseen, files, {gpu0()});
    CHECK(state(seen, "a.yaml") == "good");
    CHECK(state(seen, "b.yaml") == "bad\n" + clash_b);
    CHECK(state(step(seen, files, {gpu0()}), "b.yaml") == "bad\n" + clash_b);
    CHECK(step(seen, files)->bad_files() == 0);
  }
}

TEST_CASE("what fits no longer, as the devices changed, stays and says so") {
  const auto a = file("a.yaml", doc("x", "{client: {pinnedDeviceMemory: 40Gi}}"));
  const auto first = step(nullptr, {a}, {gpu0()});
  auto small = gpu0();
  small.memory_mebibytes = 16UL * 1024;
  const std::string error =
      "a.yaml:4:37: spec.client.pinnedDeviceMemory: must not be more than gpu0 has, 16Gi: \"40Gi\"";
  const auto second = step(first, {a}, {small});
  CHECK(state(second, "a.yaml") == "lastGood\n" + error);
  CHECK(second->number == 1);
  CHECK(in_force(second) == "x@a.yaml");
  CHECK(refusal(second, "x").empty());
  CHECK(state(step(second, {a}, {gpu0()}), "a.yaml") == "good");
  const auto never = step(nullptr, {a}, {small});
  CHECK(state(never, "a.yaml") == "bad\n" + error);
  CHECK(refusal(never, "x") ==
        "the policy for \"x\" is not in force, as its file is bad: " + error);
}

TEST_CASE("a file's name cannot move the cursor") {
  CHECK(find(step(nullptr, {unreadable("a\x1b.yaml")}), "a\x1b.yaml").errors ==
        Errors{"a\\x1b.yaml: is not a regular file"});
}

namespace {

class Chance {
 public:
  explicit Chance(unsigned seed) : engine_(seed) {}
  unsigned below(unsigned limit) { return static_cast<unsigned>(engine_() % limit); }

  std::string text() {
    static const std::vector<std::string> names{"x", "y", "z", "*"};
    std::vector<std::string> subjects{names[below(4)]};
    while (below(3) == 0) subjects.push_back(names[below(4)]);
    const std::string spec = "{quota: {clients: " + std::to_string(1 + below(3)) + "}}";
    const auto kind = below(8);
    if (kind == 0) return docs(subjects, k_bad);
    if (kind == 1) return "}";
    return docs(subjects, spec);
  }

  void change(Files& files) {
    const std::string name(1, static_cast<char>('a' + below(4)));
    std::erase_if(files, [&](const SourceFile& one) { return one.name == name; });
    const auto kind = below(8);
    if (kind == 0) return;
    files.push_back(kind == 1 ? unreadable(name) : file(name, text()));
    std::shuffle(files.begin(), files.end(), engine_);
  }

 private:
  std::mt19937 engine_;
};

void check_generation(const Ptr& generation, const std::set<std::string>& valid) {
  std::set<std::string> subjects;
  for (const auto& one : generation->files) {
    CHECK((one.state == File::State::good) == one.errors.empty());
    CHECK((one.state == File::State::bad) == (one.accepted == nullptr));
    if (!one.accepted) continue;
    CHECK(valid.contains(one.accepted->text));
    for (const auto& policy : one.accepted->policies) CHECK(subjects.insert(policy.subject).second);
  }
  CHECK(subjects.size() == generation->policies.size());
  for (const auto& [subject, refused] : generation->refused)
    CHECK_FALSE(subjects.contains(subject));
}

void check_nothing_lost(const Ptr& before, const Ptr& after, const Files& files) {
  for (const auto& [subject, policy] : before->policies) {
    if (after->policies.contains(subject)) continue;
    const auto source =
        std::find_if(files.begin(), files.end(),
                     [owner = policy->file](const SourceFile& one) { return one.name == owner; });
    if (source == files.end()) continue;
    CAPTURE(subject);
    CHECK(find(after, source->name).state == File::State::good);
  }
}

}  // namespace

TEST_CASE("whatever happens to the files, nothing is in force twice, by chance or unchecked") {
  for (unsigned seed = 0; seed < 25; ++seed) {
    CAPTURE(seed);
    Chance chance(seed);
    Files files;
    std::set<std::string> valid;
    auto generation = step(nullptr, files);
    for (int round = 0; round < 40; ++round) {
      for (auto changes = 1 + chance.below(3); changes > 0; --changes) chance.change(files);
      for (const auto& one : files) {
        if (one.trouble.empty() && parse(one.text, one.name).errors.empty()) valid.insert(one.text);
      }
      const auto next = step(generation, files);
      check_generation(next, valid);
      check_nothing_lost(generation, next, files);
      CHECK((next->number != generation->number) == (next->hash != generation->hash));
      auto backwards = files;
      std::reverse(backwards.begin(), backwards.end());
      const auto same = step(generation, backwards);
      CHECK(same->hash == next->hash);
      for (const auto& one : next->files) CHECK(state(same, one.name) == state(next, one.name));
      const auto again = step(next, files);
      CHECK(again->number == next->number);
      for (const auto& one : next->files) CHECK(state(again, one.name) == state(next, one.name));
      generation = next;
    }
  }
}

TEST_CASE("a large directory, read by several threads, comes out as a small one does") {
  Files files;
  for (int n = 499; n >= 0; --n) {
    const auto name = "team-" + std::to_string(n);
    files.push_back(file(name + ".yaml", n % 7 == 0 ? "kind: " + name : doc(name)));
  }
  const auto all = step(nullptr, files);
  REQUIRE(all->files.size() == files.size());
  CHECK(std::is_sorted(all->files.begin(), all->files.end(),
                       [](const File& a, const File& b) { return a.name < b.name; }));
  CHECK(all->policies.size() == 428);
  for (const auto& source : files) {
    const auto alone = step(nullptr, {source});
    CHECK(state(all, source.name) == state(alone, source.name));
  }
}
