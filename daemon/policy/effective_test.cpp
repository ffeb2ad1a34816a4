#include "policy/effective.h"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

using namespace mps::policy;

namespace {

// Lines 1 to 3, the namespace at 3:23; the spec begins in line 5.
std::string doc(const std::string& subject, const std::string& spec) {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"" + subject +
         "\"}\nspec:\n" + spec;
}

// Each document is a file: 0.yaml, 1.yaml, …
std::shared_ptr<const Generation> in_force(const std::vector<std::string>& documents) {
  std::vector<SourceFile> files;
  for (const auto& text : documents) {
    files.push_back({std::to_string(files.size()) + ".yaml", text, ""});
  }
  auto generation = next_generation({}, files, {});
  for (const auto& file : generation->files) {
    INFO((file.errors.empty() ? std::string() : file.errors[0]));
    REQUIRE(file.errors.empty());
  }
  return generation;
}

DeviceFacts gpu(unsigned index) {
  DeviceFacts device;
  device.name = "gpu" + std::to_string(index);
  device.uuid = "GPU-" + std::to_string(index);
  device.index = index;
  return device;
}

Effective limits(const Generation& generation, const std::string& subject,
                 const Labels& labels = {}, const DeviceFacts& device = gpu(0)) {
  const auto found = effective(generation, subject, labels, device);
  REQUIRE(std::holds_alternative<Effective>(found));
  return std::get<Effective>(found);
}

std::string refusal(const Generation& generation, const std::string& subject,
                    const DeviceFacts& device = gpu(0)) {
  const auto found = effective(generation, subject, {}, device);
  const auto* none = std::get_if<NoPolicy>(&found);
  return none == nullptr ? "" : none->reason;
}

const std::string k_overrides =
    "  client:\n"
    "    activeThreadPercentage: 50\n"
    "    pinnedDeviceMemory: 20Gi\n"
    "  overrides:\n"
    "    - match: {podLabels: {app: notebook, size: large}}\n"
    "      client: {activeThreadPercentage: 75.5}\n"
    "    - match: {podLabels: {app: notebook}}\n"
    "      client: {pinnedDeviceMemory: 4Gi, priority: below-normal}\n";

}  // namespace

TEST_CASE("a namespace has its own policy, or the one that stands in for it, or none") {
  const auto generation = in_force({doc("a", "  client: {activeThreadPercentage: 10}\n"),
                                    doc("*", "  client: {activeThreadPercentage: 20}\n"),
                                    doc("unit:*", "  client: {activeThreadPercentage: 30}\n"),
                                    doc("unit:x", "  client: {priority: below-normal}\n")});
  const struct {
    const char* subject;
    double percentage;
    const char* policy;
    bool by_default;
  } cases[] = {{"a", 10, "a", false},
               {"b", 20, "*", true},
               {"*", 20, "*", false},
               {"unit:a", 30, "unit:*", true},
               {"unit:x", 100, "unit:x", false}};  // inherits nothing
  for (const auto& [subject, percentage, policy, by_default] : cases) {
    CAPTURE(subject);
    const auto found = limits(*generation, subject);
    CHECK(found.active_thread_percentage.value == percentage);
    CHECK(found.policy->subject == policy);
    CHECK(found.by_default == by_default);
    CHECK_FALSE(found.override);
  }
  CHECK(refusal(*generation, "docker:web") ==
        "no policy is for namespace \"docker:web\", nor for \"docker:*\"");
}

TEST_CASE("the first override whose labels are all there wins, the rest is spec.client's") {
  const auto generation = in_force({doc("a", k_overrides)});
  const struct {
    Labels labels;
    std::optional<std::size_t> override;
    double percentage;
    std::uint64_t memory;
    Priority priority;
  } cases[] = {
      {{}, std::nullopt, 50, 20480, Priority::normal},
      {{{"app", "train"}}, std::nullopt, 50, 20480, Priority::normal},
      {{{"size", "large"}}, std::nullopt, 50, 20480, Priority::normal},
      {{{"app", "notebook"}}, 1, 50, 4096, Priority::below_normal},
      {{{"app", "notebook"}, {"size", "small"}}, 1, 50, 4096, Priority::below_normal},
      {{{"app", "notebook"}, {"size", "large"}, {"x", "y"}}, 0, 75.5, 20480, Priority::normal},
      {{{"app", "Notebook"}}, std::nullopt, 50, 20480, Priority::normal},
  };
  for (const auto& one : cases) {
    const auto found = limits(*generation, "a", one.labels);
    CHECK(found.override == one.override);
    CHECK(found.active_thread_percentage.value == one.percentage);
    CHECK(found.pinned_memory_mebibytes.value == one.memory);
    CHECK(found.priority.value == one.priority);
  }
}

TEST_CASE("each value says where it is from") {
  const auto generation = in_force({doc("a", k_overrides)});
  const auto large = limits(*generation, "a", {{"app", "notebook"}, {"size", "large"}});
  CHECK(large.active_thread_percentage.origin.policy == generation->policies.at("a"));
  CHECK(large.active_thread_percentage.origin.override == 0U);
  CHECK(large.active_thread_percentage.origin.mark == Mark{10, 40});
  CHECK(describe(large.active_thread_percentage.origin) ==
        "0.yaml:10:40 (spec.overrides[0].client)");
  CHECK(describe(large.pinned_memory_mebibytes.origin) == "0.yaml:7:25 (spec.client)");
  CHECK_FALSE(large.priority.origin.mark);
  CHECK(describe(large.priority.origin) == "0.yaml:3:23 (gives none)");
  const auto small = limits(*generation, "a", {{"app", "notebook"}});
  CHECK(describe(small.priority.origin) == "0.yaml:12:51 (spec.overrides[1].client)");
  CHECK(describe(Origin{}) == "the default");
}

TEST_CASE("a policy is for the devices that it names") {
  auto mig = gpu(0);
  mig.name = "gpu0-mig3";
  mig.uuid = "MIG-3";
  mig.mig_index = 3;
  const struct {
    const char* devices;
    bool on_gpu0, on_gpu1, on_mig;
  } cases[] = {{"[\"*\"]", true, true, true},          {"[0]", true, false, true},
               {"[\"0\", 1]", true, true, true},       {"[\"0:3\"]", false, false, true},
               {"[\"*\", \"0:3\"]", true, true, true}, {"[\"0:2\"]", false, false, false},
               {"[\"1:3\"]", false, false, false},     {"[GPU-1]", false, true, false},
               {"[MIG-3]", false, false, true},        {"[GPU-9, \"*\"]", true, true, true}};
  for (const auto& one : cases) {
    CAPTURE(one.devices);
    const auto generation = in_force({doc("a", std::string("  devices: ") + one.devices + "\n")});
    CHECK(refusal(*generation, "a", gpu(0)).empty() == one.on_gpu0);
    CHECK(refusal(*generation, "a", gpu(1)).empty() == one.on_gpu1);
    CHECK(refusal(*generation, "a", mig).empty() == one.on_mig);
    CHECK(names(*generation->policies.at("a"), gpu(1)) == one.on_gpu1);
  }
  const auto generation = in_force({doc("a", "  devices: [1]\n"), doc("*", "  {}\n")});
  CHECK(refusal(*generation, "a") == "the policy for \"a\", 0.yaml:3:23, does not name gpu0");
  CHECK(refusal(*generation, "b").empty());
}

TEST_CASE("a ceiling is the largest that anybody gets") {
  const auto generation = in_force(
      {doc("a",
           "  devices: [0]\n"
           "  client:\n"
           "    {activeThreadPercentage: 20, pinnedDeviceMemory: 8Gi, priority: below-normal}\n"
           "  overrides:\n"
           "    - match: {podLabels: {app: big}}\n"
           "      client: {pinnedDeviceMemory: 16Gi}\n"),
       doc("b",
           "  client:\n"
           "    {activeThreadPercentage: 40, pinnedDeviceMemory: 4Gi, priority: below-normal}\n"),
       doc("c", "  isolation: dedicated\n")});
  const auto on0 = shared_ceiling(*generation, gpu(0));
  REQUIRE(on0);
  CHECK(on0->active_thread_percentage.value == 40);
  CHECK(describe(on0->active_thread_percentage.origin) == "1.yaml:6:30 (spec.client)");
  CHECK(on0->pinned_memory_mebibytes.value == 16384U);
  CHECK(describe(on0->pinned_memory_mebibytes.origin) == "0.yaml:10:36 (spec.overrides[0].client)");
  CHECK(on0->priority.value == Priority::below_normal);
  const auto on1 = shared_ceiling(*generation, gpu(1));
  REQUIRE(on1);
  CHECK(on1->pinned_memory_mebibytes.value == 4096U);
}

TEST_CASE("one policy without a limit takes the ceiling away, and is named") {
  const auto limited = doc("a",
                           "  client: {activeThreadPercentage: 20, pinnedDeviceMemory: 8Gi, "
                           "priority: below-normal}\n");
  const auto generation = in_force({limited, doc("*", "  {}\n")});
  const auto ceiling = shared_ceiling(*generation, gpu(0));
  REQUIRE(ceiling);
  CHECK(ceiling->active_thread_percentage.value == 100);
  CHECK(describe(ceiling->active_thread_percentage.origin) == "1.yaml:3:23 (gives none)");
  CHECK_FALSE(ceiling->pinned_memory_mebibytes.value);
  CHECK(describe(ceiling->pinned_memory_mebibytes.origin) == "1.yaml:3:23 (gives none)");
  CHECK(ceiling->priority.value == Priority::normal);
  CHECK(describe(ceiling->priority.origin) == "1.yaml:3:23 (gives none)");
}

TEST_CASE("where nobody shares there is no ceiling") {
  const auto generation =
      in_force({doc("a", "  isolation: dedicated\n"), doc("b", "  devices: [1]\n")});
  CHECK_FALSE(shared_ceiling(*generation, gpu(0)));
  CHECK(shared_ceiling(*generation, gpu(1)));
}

TEST_CASE("an instance of one's own has one's own ceiling") {
  const auto generation =
      in_force({doc("b", "  isolation: dedicated\n  devices: [0]\n" + k_overrides),
                doc("a", "  isolation: dedicated\n"), doc("c", "  {}\n")});
  const auto& policy = *generation->policies.at("b");
  const auto ceiling = dedicated_ceiling(policy);
  CHECK(ceiling.active_thread_percentage.value == 75.5);
  CHECK(ceiling.pinned_memory_mebibytes.value == 20480U);
  CHECK(ceiling.priority.value == Priority::normal);
  const auto on0 = dedicated_on(*generation, gpu(0));
  REQUIRE(on0.size() == 2);
  CHECK(on0[0]->subject == "a");
  CHECK(on0[1]->subject == "b");
  const auto on1 = dedicated_on(*generation, gpu(1));
  REQUIRE(on1.size() == 1);
  CHECK(on1[0]->subject == "a");
}
