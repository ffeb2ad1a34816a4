#include "ctl/policy_commands.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "api/test_support.h"
#include "ctl/cli.h"
#include "ctl/doctor_policies.h"
#include "ctl/policy_views.h"

using mps::api::test::document;
using mps::api::test::generation_of;
using mps::api::test::TempDir;
using nlohmann::json;

namespace {

struct Outcome {
  int status = 0;
  std::string out;
  std::string err;
};

Outcome run(std::vector<std::string> arguments) {
  std::ostringstream out;
  std::ostringstream err;
  arguments.insert(arguments.begin(), {"--socket", "/nonexistent/s.sock"});
  const int status = mps::ctl::run(arguments, out, err);
  return {status, out.str(), err.str()};
}

struct Folder {
  std::string write(const std::string& name, const std::string& text) const {
    const auto path = (directory.path() / name).string();
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
                           "  client: {pinnedDeviceMemory: 10Gi}\n"
                           "  overrides: [{match: {podLabels: {app: nb}},"
                           " client: {activeThreadPercentage: 10}}]\n"));
  const auto explained = run(
      {"policy", "explain", "--namespace", "team-a", "--label", "app=nb", "--policies", path()});
  CHECK(explained.err.empty());
  CHECK(explained.out ==
        "team-a [app=nb] on gpu0: instance gpu0.shared\n"
        "  activeThreadPercentage  10 %        a.yaml:7:80 (spec.overrides[0].client)\n"
        "  pinnedDeviceMemory      10Gi        a.yaml:6:32 (spec.client)\n"
        "  priority                normal      a.yaml:4:14 (gives none)\n"
        "  ceiling: 100 %: none, because of a.yaml:4:14 (gives none); memory 10Gi, from "
        "a.yaml:6:32 (spec.client)\n"
        "  note: activeThreadPercentage is below the ceiling: it holds only where the client's own "
        "environment sets it\n");
  CHECK(run({"policy", "explain", "--namespace", "team-b", "--policies", path(), "--device", "3"})
            .out ==
        "team-b on gpu3: refused: no policy is for namespace \"team-b\", nor for \"*\"\n");
}

TEST_CASE("the list, with the errors of bad files below it") {
  const auto list = json::parse(R"([
    {"namespace": "team-a", "file": "a.yaml", "line": 4, "column": 14, "state": "lastGood",
     "isolation": "shared", "devices": ["0", "1"],
     "client": {"activeThreadPercentage": 12.5, "pinnedDeviceMemoryMiB": null, "priority": null},
     "quota": {"clients": 4, "activeThreadPercentage": null, "pinnedDeviceMemoryMiB": 40960},
     "overrides": [], "onViolation": "report",
     "onFault": {"clients": "wait",
                 "quarantine": {"after": 3, "withinSeconds": 600, "forSeconds": 3600}},
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
        "fault      wait, quarantine after 3 within 600s, for 3600s\n"
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
