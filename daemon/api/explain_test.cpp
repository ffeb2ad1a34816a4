#include "api/explain.h"

#include <doctest/doctest.h>

#include "api/policy_json.h"
#include "api/test_support.h"

using namespace mps::api;
using mps::api::test::document;
using mps::api::test::generation_of;
using mps::policy::DeviceFacts;
using nlohmann::json;

namespace {

std::vector<DeviceFacts> two_devices() {
  DeviceFacts first;
  first.name = "gpu0";
  first.uuid = "GPU-0a";
  DeviceFacts second;
  second.name = "gpu1-mig3";
  second.uuid = "MIG-1b";
  second.index = 1;
  second.mig_index = 3;
  return {first, second};
}

json explained(const std::vector<std::pair<std::string, std::string>>& files,
               const Question& question) {
  const auto devices = two_devices();
  return explain(*generation_of(files, devices), question, devices);
}

}  // namespace

TEST_CASE("every value has its place, and what is below the ceiling is said") {
  const auto answer = explained({{"a.yaml", document("team-a",
                                                     "  devices: [0]\n"
                                                     "  client: {activeThreadPercentage: 25}\n"
                                                     "  quota: {clients: 2}\n"
                                                     "  overrides: [{match: {podLabels: {app: nb}},"
                                                     " client: {pinnedDeviceMemory: 1Gi}}]\n")},
                                 {"b.yaml", document("\"*\"", "  {}\n")}},
                                {"team-a", {{"app", "nb"}}});
  CHECK(answer["devices"][0] == json::parse(R"j({
    "device": "gpu0", "uuid": "GPU-0a", "admitted": true, "reason": null,
    "policy": {"namespace": "team-a", "file": "a.yaml", "line": 4, "isolation": "shared"},
    "byDefault": false, "override": 0,
    "limits": {
      "activeThreadPercentage": {"value": 25.0, "from": "a.yaml:7:36 (spec.client)"},
      "pinnedDeviceMemoryMiB": {"value": 1024,
                                "from": "a.yaml:9:76 (spec.overrides[0].client)"},
      "priority": {"value": "normal", "from": "a.yaml:4:14 (gives none)"}},
    "instance": "gpu0.shared",
    "ceiling": {
      "activeThreadPercentage": {"value": null, "from": "b.yaml:4:14 (gives none)"},
      "pinnedDeviceMemoryMiB": {"value": null, "from": "a.yaml:4:14 (gives none)"}},
    "quota": {"clients": 2, "activeThreadPercentage": null, "pinnedDeviceMemoryMiB": null},
    "notes": ["activeThreadPercentage is below the ceiling: it holds only where the client's own environment sets it",
              "pinnedDeviceMemory is below the ceiling: it holds only where the client's own environment sets it",
              "the quota counts where the instance has a gate"]})j"));
  CHECK(answer["devices"][1] == json::parse(R"({
    "device": "gpu1-mig3", "uuid": "MIG-1b", "admitted": false,
    "reason": "the policy for \"team-a\", a.yaml:4:14, does not name gpu1-mig3",
    "policy": null, "byDefault": false, "override": null, "limits": null, "instance": null,
    "ceiling": null, "quota": null, "notes": []})"));
}

TEST_CASE("dedicated namespaces have an instance and a ceiling of their own") {
  const auto answer = explained({{"a.yaml", document("team-a",
                                                     "  isolation: dedicated\n"
                                                     "  client: {activeThreadPercentage: 25}\n")},
                                 {"b.yaml", document("\"unit:*\"", "  {}\n")}},
                                {"team-a", {}});
  const auto& first = answer["devices"][0];
  CHECK(first["instance"] == "gpu0.ns-team-a");
  CHECK(first["policy"]["isolation"] == "dedicated");
  CHECK(first["ceiling"]["activeThreadPercentage"]["value"] == 25.0);
  CHECK(first["notes"].empty());
}

TEST_CASE("a kind's default, and labels where there are no pods") {
  const auto answer = explained({{"b.yaml", document("\"unit:*\"", "  {}\n")}},
                                {"unit:cron.service", {{"a", "b"}}});
  const auto& first = answer["devices"][0];
  CHECK(first["byDefault"] == true);
  CHECK(first["policy"]["namespace"] == "unit:*");
  CHECK(first["notes"] == json{"labels do not count here: only pods have them"});
}

TEST_CASE("devices are chosen by name, index or UUID") {
  const auto names = [](const std::string& wanted) {
    const auto chosen = choose_devices(two_devices(), wanted);
    if (!chosen) return chosen.error().message;
    std::string list;
    for (const auto& device : *chosen) list += device.name + " ";
    return list;
  };
  CHECK(names("") == "gpu0 gpu1-mig3 ");
  CHECK(names("gpu0") == "gpu0 ");
  CHECK(names("1") == "gpu1-mig3 ");
  CHECK(names("1:3") == "gpu1-mig3 ");
  CHECK(names("MIG-1b") == "gpu1-mig3 ");
  CHECK(names("gpu9") == "no device \"gpu9\"; did you mean \"gpu0\"?");
}
