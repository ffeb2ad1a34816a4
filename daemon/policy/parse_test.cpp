#include "policy/parse.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

using namespace mps::policy;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

using Errors = std::vector<std::string>;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<Policy> good(const std::string& text) {
  auto parsed = parse(text, "t.yaml");
  CHECK(parsed.errors == Errors{});
  return std::move(parsed.policies);
}

Policy only(const std::string& spec) {
  auto policies =
      good("apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: a}\nspec:\n" +
           spec);
  REQUIRE(policies.size() == 1);
  return policies.front();
}

}  // namespace

TEST_CASE("every field arrives with its place") {
  const auto policies = good(R"(apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata:
  namespace: team-a
spec:
  devices: ["*", 0, "1", "0:3", "12:0", GPU-8ca1, MIG-41b3]
  isolation: dedicated
  client:
    activeThreadPercentage: 12.5
    pinnedDeviceMemory: 1.5Gi
    priority: below-normal
  quota:
    clients: 4
    activeThreadPercentage: 200
    pinnedDeviceMemory: 40Gi
  overrides:
    - match:
        podLabels: {app: notebook, example.com/size: "1"}
      client: {priority: normal}
  onViolation: terminate
  onFault:
    clients: wait
    quarantine: {after: 3, within: 10m, for: 1.5h}
)");
  REQUIRE(policies.size() == 1);
  const auto& policy = policies[0];
  CHECK(policy.subject == "team-a");
  CHECK(policy.file == "t.yaml");
  CHECK(policy.mark == Mark{4, 14});
  CHECK(place(policy, policy.mark) == "t.yaml:4:14");

  using Kind = DeviceName::Kind;
  const struct {
    Kind kind;
    unsigned index, mig_index;
    const char* text;
    int column;
  } devices[] = {{Kind::any, 0, 0, "*", 13},           {Kind::index, 0, 0, "0", 18},
                 {Kind::index, 1, 0, "1", 21},         {Kind::mig_index, 0, 3, "0:3", 26},
                 {Kind::mig_index, 12, 0, "12:0", 33}, {Kind::uuid, 0, 0, "GPU-8ca1", 41},
                 {Kind::uuid, 0, 0, "MIG-41b3", 51}};
  REQUIRE(policy.devices.size() == std::size(devices));
  for (std::size_t i = 0; i < std::size(devices); ++i) {
    CAPTURE(i);
    const auto& device = policy.devices[i];
    CHECK(device.kind == devices[i].kind);
    CHECK(device.index == devices[i].index);
    CHECK(device.mig_index == devices[i].mig_index);
    CHECK(device.text == devices[i].text);
    CHECK(device.uuid == (devices[i].kind == Kind::uuid ? devices[i].text : ""));
    CHECK(device.mark == Mark{6, devices[i].column});
  }
  CHECK(policy.isolation.value == Isolation::dedicated);
  CHECK(policy.isolation.mark == Mark{7, 14});
  CHECK(policy.client.active_thread_percentage.value().value == 12.5);
  CHECK(policy.client.active_thread_percentage.value().mark == Mark{9, 29});
  CHECK(policy.client.pinned_memory_mebibytes.value().value == 1536);
  CHECK(policy.client.pinned_memory_mebibytes.value().mark == Mark{10, 25});
  CHECK(policy.client.priority.value().value == Priority::below_normal);
  CHECK(policy.client.priority.value().mark == Mark{11, 15});
  CHECK(policy.quota.clients.value().value == 4);
  CHECK(policy.quota.clients.value().mark == Mark{13, 14});
  CHECK(policy.quota.active_thread_percentage.value().value == 200);
  CHECK(policy.quota.active_thread_percentage.value().mark == Mark{14, 29});
  CHECK(policy.quota.pinned_memory_mebibytes.value().value == 40960);
  CHECK(policy.quota.pinned_memory_mebibytes.value().mark == Mark{15, 25});
  REQUIRE(policy.overrides.size() == 1);
  CHECK(policy.overrides[0].mark == Mark{17, 7});
  CHECK(policy.overrides[0].pod_labels == Labels{{"app", "notebook"}, {"example.com/size", "1"}});
  CHECK(policy.overrides[0].client.priority.value().value == Priority::normal);
  CHECK(policy.overrides[0].client.priority.value().mark == Mark{19, 26});
  CHECK_FALSE(policy.overrides[0].client.active_thread_percentage);
  CHECK(policy.terminate_violators);
  CHECK(policy.wait_for_faulted);
  CHECK(policy.quarantine.value().after == 3);
  CHECK(policy.quarantine.value().within == 10min);
  CHECK(policy.quarantine.value().duration == 90min);
  CHECK_FALSE(policy.quarantine.value().on_suspicion);
}

TEST_CASE("what is not given is the default") {
  const auto policy = only("  {}\n");
  CHECK(policy.devices.empty());
  CHECK(policy.isolation.value == Isolation::shared);
  CHECK_FALSE(policy.client.active_thread_percentage);
  CHECK_FALSE(policy.client.pinned_memory_mebibytes);
  CHECK_FALSE(policy.client.priority);
  CHECK_FALSE(policy.quota.clients);
  CHECK_FALSE(policy.quota.active_thread_percentage);
  CHECK_FALSE(policy.quota.pinned_memory_mebibytes);
  CHECK(policy.overrides.empty());
  CHECK_FALSE(policy.terminate_violators);
  CHECK_FALSE(policy.wait_for_faulted);
  CHECK_FALSE(policy.quarantine);
}

TEST_CASE("bounds that are just inside") {
  CHECK(only("  client: {activeThreadPercentage: 0.1}\n").client.active_thread_percentage->value ==
        0.1);
  CHECK(
      only("  client: {activeThreadPercentage: 99.90}\n").client.active_thread_percentage->value ==
      99.9);
  CHECK(only("  client: {pinnedDeviceMemory: 65.863155712G}\n")
            .client.pinned_memory_mebibytes->value == 62812);
  CHECK(only("  client: {pinnedDeviceMemory: 1e9}\n").client.pinned_memory_mebibytes->value == 953);
  CHECK(only("  quota: {clients: 60, activeThreadPercentage: 6000}\n").quota.clients->value == 60);
  CHECK(only("  client: {pinnedDeviceMemory: 1048576}\n").client.pinned_memory_mebibytes->value ==
        1);
  CHECK(only("  devices: [255, \"255:255\"]\n").devices.size() == 2);
  CHECK(only("  onFault: {quarantine: {after: 1000, within: 1s, for: 720h}}\n")
            .quarantine->duration == 720h);
  CHECK(only("  onFault: {quarantine: {after: 1, within: 1s, for: 1s, onSuspicion: true}}\n")
            .quarantine->on_suspicion);
  CHECK(only("  overrides:\n    - match: {podLabels: {version: 1.2.3, empty: \"\"}}\n"
             "      client: {priority: normal}\n")
            .overrides[0]
            .pod_labels == Labels{{"version", "1.2.3"}, {"empty", ""}});
  CHECK(only("  client: &c {activeThreadPercentage: 50}\n  overrides:\n"
             "    - match: {podLabels: {app: a}}\n      client: *c\n")
            .overrides[0]
            .client.active_thread_percentage->value == 50);
}

TEST_CASE("a file has several documents, and some may be empty") {
  const std::string head = "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\n";
  const auto text = "---\n# a comment\n---\n" + head + "metadata: {namespace: a}\nspec: {}\n---\n" +
                    head + "metadata: {namespace: \"user:*\"}\nspec: {}\n---\n";
  const auto parsed = parse(text, "t.yaml");
  CHECK(parsed.errors == Errors{});
  REQUIRE(parsed.policies.size() == 2);
  CHECK(parsed.policies[0].subject == "a");
  CHECK(parsed.policies[1].subject == "user:*");
  CHECK(parsed.policies[1].mark == Mark{11, 23});
  REQUIRE(parsed.claims.size() == 2);
  CHECK(parsed.claims[1].subject == "user:*");
  CHECK(parsed.claims[1].mark == Mark{11, 23});
}

TEST_CASE("what is installed and shown as examples is good") {
  std::vector<std::filesystem::path> files{std::filesystem::path(MPS_POLICIES) / "default.yaml"};
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(MPS_POLICIES) / "examples")) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  }
  CHECK(files.size() >= 6);
  for (const auto& path : files) {
    CAPTURE(path.string());
    const auto parsed = parse(read_file(path), path.filename());
    CHECK(parsed.errors == Errors{});
    CHECK_FALSE(parsed.policies.empty());
  }
}

// ---- the schema ----

namespace {

const json& schema() {
  static const auto parsed = json::parse(read_file(MPS_POLICY_SCHEMA));
  return parsed;
}

// What a part of the schema refers to, if it does.
const json& resolved(const json& part) {
  const auto reference = part.find("$ref");
  if (reference == part.end()) return part;
  return schema().at(json::json_pointer(reference->get<std::string>().substr(1)));
}

struct Level {
  const char* pointer;  // in a document
  const char* path;     // as errors have it
  const char* properties;
};

// Every mapping with known keys.
constexpr Level k_levels[] = {
    {"", "", ""},
    {"/metadata", "metadata.", "/properties/metadata"},
    {"/spec", "spec.", "/properties/spec"},
    {"/spec/client", "spec.client.", "/properties/spec/properties/client"},
    {"/spec/quota", "spec.quota.", "/properties/spec/properties/quota"},
    {"/spec/overrides/0", "spec.overrides[0].", "/properties/spec/properties/overrides/items"},
    {"/spec/overrides/0/match", "spec.overrides[0].match.",
     "/properties/spec/properties/overrides/items/properties/match"},
    {"/spec/overrides/0/client", "spec.overrides[0].client.",
     "/properties/spec/properties/overrides/items/properties/client"},
    {"/spec/onFault", "spec.onFault.", "/properties/spec/properties/onFault"},
    {"/spec/onFault/quarantine", "spec.onFault.quarantine.",
     "/properties/spec/properties/onFault/properties/quarantine"},
};

const json& properties(const Level& level) {
  return resolved(schema().at(json::json_pointer(level.properties))).at("properties");
}

json document() {
  return json::parse(R"({
    "apiVersion": "mps-supervisor.dev/v1", "kind": "MpsPolicy", "metadata": {"namespace": "a"},
    "spec": {"client": {"pinnedDeviceMemory": "1Mi", "activeThreadPercentage": 1}, "quota": {},
      "overrides": [{"match": {"podLabels": {"app": "a"}}, "client": {"priority": "normal"}}],
      "onFault": {"quarantine": {"after": 1, "within": "1s", "for": "1s"}}}})");
}

// Every key there is, at whichever level, and some that others might expect.
std::set<std::string> all_names() {
  std::set<std::string> names{"name",   "labels", "limits", "status", "annotations",
                              "memory", "action", "limit",  "pods",   "<<"};
  for (const auto& level : k_levels) {
    for (const auto& [name, property] : properties(level).items()) names.insert(name);
  }
  return names;
}

bool is_unknown(const Level& level, const std::string& name) {
  auto with = document();
  with[json::json_pointer(level.pointer)][name] = nullptr;
  const auto start = level.path + name + ": unknown key";
  const auto errors = parse(with.dump(), "t.yaml").errors;
  return std::any_of(errors.begin(), errors.end(), [&start](const std::string& error) {
    return error.find(": " + start) != std::string::npos;
  });
}

}  // namespace

TEST_CASE("the schema and the parser know the same keys, at every level") {
  for (const auto& name : all_names()) {
    for (const auto& level : k_levels) {
      CAPTURE(name);
      CAPTURE(level.path);
      CHECK(is_unknown(level, name) != properties(level).contains(name));
    }
  }
}

TEST_CASE("what the schema gives as an example or as the default is right") {
  std::size_t count = 0;
  for (const auto& level : k_levels) {
    for (const auto& [name, property] : properties(level).items()) {
      auto values = property.value("examples", resolved(property).value("examples", json::array()));
      if (property.contains("default")) values.push_back(property.at("default"));
      for (const auto& value : values) {
        auto with = document();
        if (name == "namespace") with["spec"].erase("overrides");
        with[json::json_pointer(level.pointer)][name] = value;
        CAPTURE(level.path);
        CAPTURE(name);
        CAPTURE(value.dump());
        CHECK(parse(with.dump(), "t.yaml").errors == Errors{});
        ++count;
      }
    }
  }
  CHECK(count > 30);
}

// ---- against the devices ----

namespace {

DeviceFacts gpu(unsigned index) {
  DeviceFacts device;
  device.name = "gpu" + std::to_string(index);
  device.uuid = "GPU-" + std::to_string(index);
  device.index = index;
  device.memory_mebibytes = 16UL * 1024;
  device.sm_count = 132;
  device.max_clients = 48;
  return device;
}

DeviceFacts mig(unsigned index, unsigned mig_index) {
  auto device = gpu(index);
  device.name += "-mig" + std::to_string(mig_index);
  device.uuid = "MIG-" + std::to_string(mig_index);
  device.mig_index = mig_index;
  device.memory_mebibytes = 4UL * 1024;
  device.sm_count = 16;
  device.max_clients = 7;
  return device;
}

Errors checked(const std::string& spec, const std::vector<DeviceFacts>& devices) {
  return check_devices({only(spec)}, "t.yaml", devices);
}

}  // namespace

TEST_CASE("a policy fits the devices that it is for") {
  const auto exclusive = [] {
    auto device = gpu(0);
    device.exclusive = true;
    return device;
  }();
  const struct {
    const char* spec;
    std::vector<DeviceFacts> devices;
    Errors errors;
  } cases[] = {
      {"  client: {pinnedDeviceMemory: 16Gi}\n", {gpu(0)}, {}},
      {"  client: {pinnedDeviceMemory: 17Gi}\n",
       {gpu(0), gpu(1)},
       {"t.yaml:5:32: spec.client.pinnedDeviceMemory: must not be more than gpu0 has, 16Gi: "
        "\"17Gi\""}},
      {"  client: {pinnedDeviceMemory: 4Gi}\n  quota: {pinnedDeviceMemory: 20Gi}\n",
       {gpu(0)},
       {"t.yaml:6:31: spec.quota.pinnedDeviceMemory: must not be more than gpu0 has, 16Gi: "
        "\"20Gi\""}},
      {"  overrides:\n    - match: {podLabels: {app: a}}\n"
       "      client: {pinnedDeviceMemory: 5000Mi, activeThreadPercentage: 6.2}\n",
       {gpu(0), mig(0, 3)},
       {"t.yaml:7:36: spec.overrides[0].client.pinnedDeviceMemory: must not be more than gpu0-mig3 "
        "has, 4Gi: \"5000Mi\"",
        "t.yaml:7:68: spec.overrides[0].client.activeThreadPercentage: is less than one of the 16 "
        "SMs of gpu0-mig3; the least is 6.3 %: \"6.2\""}},
      {"  client: {activeThreadPercentage: 0.8}\n", {gpu(0)}, {}},
      {"  client: {activeThreadPercentage: 0.7}\n",
       {gpu(0)},
       {"t.yaml:5:36: spec.client.activeThreadPercentage: is less than one of the 132 SMs of gpu0; "
        "the least is 0.8 %: \"0.7\""}},
      {"  quota: {clients: 48}\n", {gpu(0)}, {}},
      {"  quota: {clients: 49}\n",
       {gpu(0), gpu(1)},
       {"t.yaml:5:20: spec.quota.clients: must not be more than MPS allows on gpu0, 48: \"49\""}},
      {"  quota: {clients: 8}\n",
       {gpu(0), mig(0, 3)},
       {"t.yaml:5:20: spec.quota.clients: must not be more than MPS allows on gpu0-mig3, 7: "
        "\"8\""}},
      {"  isolation: dedicated\n",
       {exclusive},
       {"t.yaml:5:14: spec.isolation: the compute mode of gpu0 is exclusive, which lets one MPS "
        "server onto it: \"dedicated\""}},
      {"  isolation: shared\n", {exclusive}, {}},
      {"  isolation: dedicated\n", {gpu(0)}, {}},
  };
  for (const auto& one : cases) {
    CAPTURE(one.spec);
    CHECK(checked(one.spec, one.devices) == one.errors);
  }
}

TEST_CASE("a device that a policy is not for does not matter, nor what is not known of one") {
  const std::string limits = "  client: {pinnedDeviceMemory: 10Gi}\n";
  const std::vector<DeviceFacts> devices{gpu(0), mig(0, 3), gpu(1)};
  const struct {
    const char* devices;
    std::size_t errors;
  } cases[] = {{"[\"*\"]", 1},   {"[0]", 1},     {"[1]", 0},     {"[\"0:3\"]", 1},
               {"[\"0:2\"]", 0}, {"[GPU-0]", 0}, {"[MIG-3]", 1}, {"[GPU-0, MIG-3]", 1}};
  for (const auto& one : cases) {
    CAPTURE(one.devices);
    const auto spec = std::string("  devices: ") + one.devices + "\n" + limits;
    CHECK(checked(spec, devices).size() == one.errors);
  }
  DeviceFacts unknown;
  unknown.name = "gpu0";
  CHECK(checked("  isolation: dedicated\n  quota: {clients: 60, pinnedDeviceMemory: 1Pi}\n"
                "  client: {pinnedDeviceMemory: 1Pi, activeThreadPercentage: 0.1}\n",
                {unknown}) == Errors{});
  CHECK(checked(limits, {}) == Errors{});
}
