#include "ctl/policy_commands.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "api/test_support.h"
#include "ctl/cli_kit.h"
#include "ctl/doctor_policies.h"
#include "ctl/offline_devices.h"
#include "ctl/policy_views.h"

using mps::api::test::document;
using mps::api::test::generation_of;
using mps::api::test::TempDir;
using nlohmann::json;

namespace {

mps::ctl::test::Result run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"--socket", "/nonexistent/s.sock"});
  return mps::ctl::test::run(arguments);
}

struct Folder {
  std::string write(const std::string& name, const std::string& text) const {
    auto path = (directory.path() / name).string();
    std::ofstream(path) << text;
    return path;
  }
  [[nodiscard]] std::string path() const { return directory.path().string(); }

  TempDir directory;
};

const std::string k_usage_hint = "\nRun mps-ctl --help for usage.\n";

}  // namespace

TEST_CASE_FIXTURE(Folder, "check: good files, bad ones, and two with one namespace") {
  const auto a = write("a.yaml", document("team-a", "  {}\n"));
  const auto b = write("b.yaml", document("team-b", "  {}\n"));
  CHECK(run({"policy", "check", path()}).out == "2 policies in 2 files are fine\n");
  CHECK(run({"policy", "check", a, a}).out == "1 policy in 1 file is fine\n");
  write("b.yaml", document("team-a", "  {}\n"));
  const auto both = run({"policy", "check", path() + "/"});
  CHECK(both.status == 1);
  CHECK(both.out ==
        a + ":4:14: metadata.namespace: has a policy already, at " + b + ":4:14: \"team-a\"\n" + b +
            ":4:14: metadata.namespace: has a policy already, at " + a + ":4:14: \"team-a\"\n");
  const auto odd = write("odd name", document("team-c", "  clint: {}\n"));
  const auto wrong = run({"policy", "check", odd, "-o", "json"});
  CHECK(wrong.status == 1);
  CHECK(json::parse(wrong.out) ==
        json{{"files", 1},
             {"policies", 0},
             {"errors", {odd + ":6:3: spec.clint: unknown key, did you mean client: \"clint\""}}});
  const auto missing = run({"policy", "check", "/nonexistent/x"});
  CHECK(missing.status == 1);
  CHECK(missing.out == "/nonexistent/x: cannot be read: No such file or directory\n");
}

TEST_CASE_FIXTURE(Folder, "check: for the devices of settings") {
  const auto policy =
      write("a.yaml", document("team-a", "  client: {pinnedDeviceMemory: 100Gi}\n"));
  const auto settings =
      write("supervisor.yml",
            "devices:\n  - {uuid: GPU-12345678-1234-1234-1234-123456789abc, index: 0, "
            "memory: 80Gi, smCount: 108, name: A100}\n");
  CHECK(run({"policy", "check", policy}).status == 0);
  const auto checked = run({"policy", "check", "--config", settings, policy});
  CHECK(checked.status == 1);
  CHECK(checked.out.starts_with(policy + ":6:"));
  CHECK(checked.err.empty());
  CHECK(run({"policy", "check", "--node", policy}).status == 3);
}

TEST_CASE_FIXTURE(Folder, "check: the devices of settings that name none") {
  const auto policy = write("a.yaml", document("team-a", "  {}\n"));
  const auto settings = write("supervisor.yml", "devices: auto\n");
  const auto checked = run({"policy", "check", "--config", settings, policy});
  CHECK(checked.status == 0);
  CHECK(checked.out == "1 policy in 1 file is fine\n");
  CHECK(checked.err ==
        "mps-ctl: limits are not checked against devices, as " + settings + " names none\n");
}

TEST_CASE_FIXTURE(Folder, "check: one file by several names counts once") {
  const auto policy = write("team-a.yaml", document("team-a", "  clint: {}\n"));
  const auto error = ":6:3: spec.clint: unknown key, did you mean client: \"clint\"\n";
  const auto linked = (directory.path() / "linked").string();
  std::filesystem::create_symlink(policy, linked);
  const auto dotted = (directory.path() / "." / "team-a.yaml").string();
  CHECK(run({"policy", "check", policy, dotted, linked}).out == policy + error);
  CHECK(run({"policy", "check", dotted, policy}).out == dotted + error);
  CHECK(run({"policy", "check", linked, path()}).out == linked + error);
  CHECK(run({"policy", "check", path(), linked}).out == policy + error);
  CHECK(run({"policy", "check", path(), path() + "/."}).out == policy + error);
}

TEST_CASE_FIXTURE(Folder, "check: two names in one directory are two files there") {
  const auto one = write("a.yaml", document("team-a", "  {}\n"));
  std::filesystem::create_symlink("a.yaml", directory.path() / "b.yaml");
  CHECK(run({"policy", "check", path()}).status == 1);
  CHECK(run({"policy", "check", one, path()}).status == 0);
}

TEST_CASE_FIXTURE(Folder, "check: nothing to check is no success") {
  write("a.txt", document("team-a", "  {}\n"));
  const auto empty = run({"policy", "check", path()});
  CHECK(empty.status == 1);
  CHECK(empty.out == path() + ": has no policy file (*.yaml, *.yml)\n");
  const auto other = Folder();
  const auto policy = other.write("a.yaml", document("team-a", "  {}\n"));
  CHECK(run({"policy", "check", path(), policy}).out == empty.out);
}

TEST_CASE_FIXTURE(Folder, "check: a file that is too large, as a file and in a directory") {
  const auto large = write("a.yaml", std::string(1000000, '#'));
  const auto said = large + ":1:1: must not be larger than 262144 bytes: \"1000000\"\n";
  const auto checked = run({"policy", "check", large});
  CHECK(checked.status == 1);
  CHECK(checked.out == said);
  CHECK(run({"policy", "check", path()}).out == said);
}

TEST_CASE("policy: wrong usage") {
  const auto usage = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "policy");
    const auto result = run(arguments);
    CHECK(result.status == 2);
    return result.err;
  };
  CHECK(usage({"chek"}) ==
        "mps-ctl: unknown command \"chek\"; did you mean \"check\"?" + k_usage_hint);
  CHECK(usage({}) == "mps-ctl: A subcommand is required" + k_usage_hint);
  CHECK(usage({"check"}) == "mps-ctl: path is required" + k_usage_hint);
  CHECK(usage({"explain", "--namespace", "a", "--label", "b"}) ==
        "mps-ctl: --label: must be KEY=VALUE: \"b\"" + k_usage_hint);
  CHECK(usage({"explain", "--namespace", "a", "--label", "b=1", "--label", "b=2"}) ==
        "mps-ctl: --label has a key twice: \"b\"\n");
}

TEST_CASE_FIXTURE(Folder, "explain without a supervisor") {
  write("a.yaml", document("team-a",
                           "  devices: [0]\n"
                           "  client: {pinnedDeviceMemory: 10Gi}\n"
                           "  overrides: [{match: {podLabels: {app: nb}},"
                           " client: {activeThreadPercentage: 10}}]\n"));
  const auto explained = run(
      {"policy", "explain", "--namespace", "team-a", "--label", "app=nb", "--policies", path()});
  CHECK(explained.err.empty());
  CHECK(explained.out ==
        "team-a [app=nb] on gpu0: instance gpu0.shared\n"
        "  activeThreadPercentage  10 %        a.yaml:8:80 (spec.overrides[0].client)\n"
        "  pinnedDeviceMemory      10Gi        a.yaml:7:32 (spec.client)\n"
        "  priority                normal      a.yaml:4:14 (gives none)\n"
        "  ceiling: 100 %: none, because of a.yaml:4:14 (gives none); memory 10Gi, from "
        "a.yaml:7:32 (spec.client)\n"
        "  note: activeThreadPercentage is below the ceiling: it holds only where the client's own "
        "environment sets it\n");
  CHECK(run({"policy", "explain", "--namespace", "team-b", "--policies", path(), "--device", "3"})
            .out ==
        "team-b on gpu3: refused: no policy is for namespace \"team-b\", nor for \"*\"\n");
  CHECK(run({"policy", "explain", "--namespace", "team-b", "--policies", path()}).out ==
        "team-b on any device: refused: no policy is for namespace \"team-b\", nor for \"*\"\n");
}

TEST_CASE("names of devices, as --device takes them") {
  const auto said = [](const std::string& name) {
    const auto device = mps::ctl::parse_device(name);
    if (!device) return device.error().message;
    return std::to_string(static_cast<int>(device->kind)) + "|" + device->uuid + "|" +
           std::to_string(device->index) + "|" + std::to_string(device->mig_index);
  };
  CHECK(said("*") == "0||0|0");
  CHECK(said("GPU-deadbeef") == "1|GPU-deadbeef|0|0");
  CHECK(said("MIG-GPU-0a/3/0") == "1|MIG-GPU-0a/3/0|0|0");
  CHECK(said("7") == "2||7|0");
  CHECK(said("gpu7") == "2||7|0");
  CHECK(said("7:3") == "3||7|3");
  CHECK(said("gpu7-mig3") == "3||7|3");
  for (const auto& name : {"", "gpu", "007", "gpu007", "gpu7:3", "gpu-mig3", "gpu7-mig", "7-mig3",
                           "GPU-", "gpu*", "-1", "7:", "0\", \"1", "99999999999"}) {
    CAPTURE(name);
    CHECK(said(name) ==
          "must be a device's UUID, its index, such as 0, or 0:3 for a MIG device, its name, such "
          "as gpu0 or gpu0-mig3, or \"*\": \"" +
              std::string(name) + "\"");
  }
}

namespace {

struct Explained : Folder {
  // The first line for each device, without the namespace, and the notes.
  [[nodiscard]] std::string on(std::vector<std::string> device) const {
    std::vector<std::string> arguments{"policy", "explain",    "--namespace",
                                       "team-a", "--policies", path()};
    arguments.insert(arguments.end(), device.begin(), device.end());
    std::istringstream lines(run(arguments).out);
    std::string said;
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("team-a on ")) said += line.substr(10) + "\n";
      if (line.starts_with("  note: ")) said += line.substr(2) + "\n";
    }
    return said;
  }
  void for_devices(const std::string& devices, const std::string& more = "") const {
    write("a.yaml", document("team-a", "  devices: " + devices + "\n" + more));
  }
};

const std::string k_not_named = "refused: the policy for \"team-a\", a.yaml:4:14, does not name ";
const std::string k_unknown = "not known: the policy for \"team-a\", a.yaml:4:14, does not name ";
const std::string k_no_index =
    "; it names devices by index, and which index this one has is not known here\n";
const std::string k_no_uuid =
    "; it names devices by UUID, and which UUID this one has is not known here\n";

}  // namespace

TEST_CASE_FIXTURE(Explained, "explain without a supervisor: MIG devices") {
  const std::string admitted = "gpu0-mig3: instance gpu0-mig3.shared\n";
  for_devices("[\"0:3\"]");
  CHECK(on({"--device", "0:3"}) == admitted);
  CHECK(on({"--device", "gpu0-mig3"}) == admitted);
  CHECK(on({}) == admitted);
  CHECK(on({"--device", "*"}) == admitted);
  CHECK(on({"--device", "gpu0"}) == "gpu0: " + k_not_named + "gpu0\n");
  CHECK(on({"--device", "0"}) == "gpu0: " + k_not_named + "gpu0\n" + admitted);
  CHECK(on({"--device", "0:4"}) == "gpu0-mig4: " + k_not_named + "gpu0-mig4\n");
  CHECK(on({"--device", "MIG-0a"}) == "MIG-0a: " + k_unknown + "MIG-0a" + k_no_index);
  CHECK(on({"--device", "GPU-0a"}) == "GPU-0a: " + k_not_named + "GPU-0a\n");
  for_devices("[0]");
  CHECK(on({"--device", "0:3"}) == admitted);
}

TEST_CASE_FIXTURE(Explained, "explain without a supervisor: by UUID and by index") {
  for_devices("[0]");
  CHECK(on({"--device", "GPU-deadbeef"}) ==
        "GPU-deadbeef: " + k_unknown + "GPU-deadbeef" + k_no_index);
  for_devices("[\"GPU-deadbeef\"]");
  CHECK(on({"--device", "GPU-deadbeef"}) == "GPU-deadbeef: a shared instance\n");
  CHECK(on({"--device", "GPU-0a"}) == "GPU-0a: " + k_not_named + "GPU-0a\n");
  CHECK(on({"--device", "0"}) == "gpu0: " + k_unknown + "gpu0" + k_no_uuid);
  CHECK(on({"--device", "0:3"}) == "gpu0-mig3: " + k_not_named + "gpu0-mig3\n");
  for_devices("[\"*\"]", "  isolation: dedicated\n");
  CHECK(on({"--device", "GPU-deadbeef"}) == "GPU-deadbeef: a dedicated instance\n");
  CHECK(on({"--device", "1"}) == "gpu1: instance gpu1.ns-team-a\n");
}

TEST_CASE_FIXTURE(Explained, "explain without a supervisor: the devices that the policy names") {
  for_devices("[1, \"GPU-0a\"]");
  CHECK(on({}) == "gpu1: instance gpu1.shared\nGPU-0a: a shared instance\n");
  for_devices("[1, \"*\"]");
  CHECK(on({}) == "any device: a shared instance\n");
  const auto answer =
      run({"policy", "explain", "--namespace", "team-a", "--policies", path(), "-o", "json"});
  CHECK(json::parse(answer.out)["devices"][0]["instance"].is_null());
}

TEST_CASE_FIXTURE(Explained, "explain without a supervisor: whose ceilings are not counted") {
  for_devices("[\"*\"]", "  client: {activeThreadPercentage: 10, pinnedDeviceMemory: 1Gi}\n");
  CHECK(on({}) == "any device: a shared instance\n");
  write("b.yaml", document("team-b", "  devices: [0]\n"));
  CHECK(on({}) ==
        "any device: a shared instance\nnote: the ceiling leaves out policies that name single "
        "devices: name one with --device\n");
  CHECK(on({"--device", "GPU-0a"}) ==
        "GPU-0a: a shared instance\nnote: the ceiling leaves out policies that name devices by "
        "index, and which index this one has is not known here\n");
  CHECK(on({"--device", "1"}) == "gpu1: instance gpu1.shared\n");
  write("b.yaml", document("team-b", "  devices: [0]\n  isolation: dedicated\n"));
  CHECK(on({}) == "any device: a shared instance\n");
}

TEST_CASE_FIXTURE(Explained, "explain without a supervisor: a --device that is none") {
  for_devices("[0]");
  for (const auto& name : {"gpu", "007"}) {
    const auto wrong =
        run({"policy", "explain", "--namespace", "team-a", "--policies", path(), "--device", name});
    CHECK(wrong.status == 2);
    CHECK(wrong.out.empty());
    CHECK(wrong.err ==
          "mps-ctl: --device must be a device's UUID, its index, such as 0, or 0:3 for a MIG "
          "device, its name, such as gpu0 or gpu0-mig3, or \"*\": \"" +
              std::string(name) + "\"\n");
  }
}

TEST_CASE_FIXTURE(Explained, "explain without a supervisor: the devices of settings") {
  for_devices("[0]");
  const auto settings =
      write("supervisor.settings",
            "devices:\n  - {uuid: GPU-12345678-1234-1234-1234-123456789abc, index: 0, "
            "memory: 80Gi, smCount: 108, name: A100}\n");
  const std::string uuid = "GPU-12345678-1234-1234-1234-123456789abc";
  const auto admitted = "gpu0 (" + uuid + "): instance gpu0.shared\n";
  CHECK(on({"--config", settings}) == admitted);
  CHECK(on({"--config", settings, "--device", "*"}) == admitted);
  CHECK(on({"--config", settings, "--device", uuid}) == admitted);
  const auto none = run({"policy", "explain", "--namespace", "team-a", "--policies", path(),
                         "--config", settings, "--device", "gpu1"});
  CHECK(none.status == 1);
  CHECK(none.err == "mps-ctl: no device \"gpu1\"; did you mean \"gpu0\"?\n");
  const auto automatic = write("auto.settings", "devices: auto\n");
  CHECK(on({"--config", automatic}) == "gpu0: instance gpu0.shared\n");
}

TEST_CASE("the list, with the errors of bad files below it") {
  const auto list = json::parse(R"([
    {"namespace": "team-a", "file": "a.yaml", "line": 4, "column": 14, "state": "lastGood",
     "isolation": "shared", "devices": ["0", "1"],
     "client": {"activeThreadPercentage": 12.5, "pinnedDeviceMemoryMiB": null, "priority": null},
     "quota": {"clients": 4, "activeThreadPercentage": null, "pinnedDeviceMemoryMiB": 40960},
     "overrides": [], "onViolation": "report",
     "onFault": {"clients": "wait",
                 "quarantine": {"after": 3, "withinSeconds": 600, "forSeconds": 3600,
                                "onSuspicion": true}},
     "errors": ["a.yaml:9:1: no"]},
    {"namespace": null, "file": "b.yaml", "line": null, "state": "refused", "client": null,
     "errors": ["b.yaml:1:1: empty"]}])");
  CHECK(mps::ctl::policies_text(list) ==
        "NAMESPACE  FILE      STATE     ISOLATION  DEVICES  THREADS  MEMORY  QUOTA            "
        "OVERRIDES\n"
        "team-a     a.yaml:4  lastGood  shared     0, 1     12.5%    none    4 clients, 40Gi  0\n"
        "-          b.yaml    refused   -          -        -        -       -                -\n"
        "\n"
        "a.yaml:9:1: no\n"
        "b.yaml:1:1: empty\n");
  CHECK(mps::ctl::policy_text(list[0]) ==
        "namespace  team-a\n"
        "file       a.yaml:4:14\n"
        "state      lastGood\n"
        "isolation  shared\n"
        "devices    0, 1\n"
        "client     12.5%\n"
        "quota      4 clients, 40Gi\n"
        "violation  report\n"
        "fault      wait, quarantine after 3 within 600s, for 3600s, on suspicion too\n"
        "a.yaml:9:1: no\n");
}

TEST_CASE("doctor: what is wrong with policies") {
  mps::ctl::PolicyFacts facts;
  const auto said = [&facts] {
    mps::ctl::Findings findings;
    mps::ctl::check_policies(facts, findings);
    std::string text;
    for (const auto& finding : findings) {
      text += std::string(to_string(finding.severity)) + "|" + finding.message + "\n";
    }
    return text;
  };
  CHECK(said().empty());
  mps::policy::DeviceFacts device;
  device.name = "gpu0";
  facts.devices = {device};
  facts.generation =
      generation_of({{"a.yaml", document("team-a", "  client: {pinnedDeviceMemory: 1Gi}\n")},
                     {"b.yaml", document("team-b", "  clint: {}\n")}});
  CHECK(said() ==
        "ok|1 policy in 2 files, hash " + facts.generation->hash +
            "\n"
            "error|b.yaml:6:3: spec.clint: unknown key, did you mean client: \"clint\"\n"
            "warning|no ceiling on the shared instance of gpu0 for activeThreadPercentage because "
            "of a.yaml:4:14 (gives none)\n");
  facts.error = "cannot read the policy directory /x: No such file or directory";
  CHECK(said() == "warning|" + facts.error + "\n");
}
