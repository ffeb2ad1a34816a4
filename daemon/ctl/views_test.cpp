#include "ctl/views.h"

#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include "base/text.h"

using namespace mps::ctl;
using nlohmann::json;

namespace {

SystemTime now() {
  return mps::parse_time("2026-11-20T12:00:00.000Z").value();
}

json instance() {
  return json::parse(R"j({
    "id": "gpu0.shared", "device": "GPU-0a", "domain": "shared", "state": "ready",
    "stateSince": "2026-11-20T11:59:30.000Z",
    "control": {"pid": 41, "startedAt": "2026-11-20T09:59:59.500Z", "adopted": true},
    "server": {"pid": null, "uid": 1000, "status": "startFailed", "cause": "805",
               "failedStarts": 5},
    "channel": "blocked",
    "channelDetail": {"holder": 77, "holderName": "nc", "detail": "silent on control"},
    "restarts": 2, "gate": "direct", "bypass": "open",
    "limits": {"activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 10240,
               "clientPriority": "normal", "confirmed": true,
               "from": {"activeThreadPercentage": "a.yaml:7:9 (spec.client)",
                        "pinnedDeviceMemoryMiB": null}},
    "limitsDrifted": 0, "clients": 1, "lastError": null,
    "pipeDirectory": "/run/mps/gpu0.shared/open/pipe", "unknownLogLines": 0,
    "nextStart": null, "serverStatusKnown": false})j");
}

}  // namespace

TEST_CASE("instances") {
  auto second = instance();
  second["id"] = "gpu1.shared";
  second["control"] = nullptr;
  second["server"] = nullptr;
  second["channel"] = "ok";
  second["channelDetail"] = {{"holder", nullptr}, {"holderName", nullptr}, {"detail", nullptr}};
  second["limits"]["activeThreadPercentage"] = 12.5;
  second["limits"]["pinnedDeviceMemoryMiB"] = nullptr;
  second["limits"]["confirmed"] = false;
  second["lastError"] = "no program\nat all";
  CHECK(instances_text({instance(), second}, false, now()) ==
        "ID           STATE  AGE  CONTROL       SERVER             CHANNEL             CLIENTS  "
        "RESTARTS  LIMITS                               LAST ERROR\n"
        "gpu0.shared  ready  30s  41 (adopted)  startFailed (805)  blocked by 77 (nc)  1        "
        "2         25% 10Gi                             -\n"
        "gpu1.shared  ready  30s  -             -                  ok                  1        "
        "2         12.5% no memory limit (unconfirmed)  no program\\x0aat all\n");
  CHECK(instances_text(json::array({instance()}), true, now()) ==
        "ID           STATE  AGE  CONTROL       SERVER             CHANNEL             CLIENTS  "
        "RESTARTS  LIMITS    LIMITS FROM                                   DEVICE  DOMAIN  GATE  "
        "  BYPASS  PIPE                            "
        "LAST ERROR\n"
        "gpu0.shared  ready  30s  41 (adopted)  startFailed (805)  blocked by 77 (nc)  1        "
        "2         25% 10Gi  threads: a.yaml:7:9 (spec.client), memory: -  GPU-0a  shared  direct  "
        "open    /run/mps/gpu0.shared/open/pipe  "
        "-\n");
}

TEST_CASE("an instance without any limit") {
  auto one = instance();
  one["limits"] = {{"activeThreadPercentage", 100.0}, {"pinnedDeviceMemoryMiB", nullptr}};
  CHECK(instances_text(json::array({one}), false, now()).find("2         none    -\n") !=
        std::string::npos);
}

TEST_CASE("devices") {
  const auto device = json::parse(R"({
    "uuid": "GPU-1", "id": "gpu0", "kind": "gpu", "index": 0, "migIndex": null,
    "name": "NVIDIA H200", "pciBusId": null, "memoryMiB": 144384, "reservedMemoryMiB": 512,
    "smCount": 132, "computeCapability": "9.0", "computeMode": "default", "migEnabled": true,
    "declared": false, "mpsCapable": false, "notCapableBecause": "is a MIG parent", "error": null})");
  CHECK(devices_text(json::array({device}), false) ==
        "ID    UUID   NAME         MEMORY  SMS  CC   MPS                  ERROR\n"
        "gpu0  GPU-1  NVIDIA H200  141Gi   132  9.0  no: is a MIG parent  -\n");
  auto out = device;
  out["outOfService"] = {{"needs", "reset"}, {"reason", "Xid 46 (GPU timeout)"}};
  CHECK(devices_text(json::array({out}), false) ==
        "ID    UUID   NAME         MEMORY  SMS  CC   MPS                                    ERROR\n"
        "gpu0  GPU-1  NVIDIA H200  141Gi   132  9.0  out until reset: Xid 46 (GPU timeout)  -\n");
  CHECK(devices_text(json::array({device}), true) ==
        "ID    UUID   NAME         MEMORY  RESERVED  SMS  CC   PCI  COMPUTE MODE  MIG  DECLARED  "
        "MPS                  ERROR\n"
        "gpu0  GPU-1  NVIDIA H200  141Gi   512Mi     132  9.0  -    default       yes  no        "
        "no: is a MIG parent  -\n");
}

TEST_CASE("clients") {
  const auto client = json::parse(R"({"instance": "gpu0.shared", "pid": 100, "uid": 1000,
    "command": "train", "since": "2026-11-20T09:00:00.000Z", "connected": false,
    "adopted": true})");
  CHECK(clients_text(json::array({client}), false, now()) ==
        "INSTANCE     PID  UID   COMMAND  AGE  CONNECTED\n"
        "gpu0.shared  100  1000  train    3h   no\n");
  CHECK(clients_text(json::array({client}), true, now()) ==
        "INSTANCE     PID  UID   COMMAND  AGE  CONNECTED  ADOPTED  SINCE                     "
        "NAMESPACE  CONTAINER  SHARE  LIMITS\n"
        "gpu0.shared  100  1000  train    3h   no         yes      2026-11-20T09:00:00.000Z  "
        "-          -          -      -\n");
  auto let_in = client;
  let_in.update(json::parse(R"({"namespace": "team-a", "container": "/c1 4711",
    "description": "pod web-0", "share": "open",
    "limits": {"activeThreadPercentage": 12.5, "pinnedDeviceMemoryMiB": null}})"));
  CHECK(clients_text(json::array({let_in}), true, now()) ==
        "INSTANCE     PID  UID   COMMAND  AGE  CONNECTED  ADOPTED  SINCE                     "
        "NAMESPACE  CONTAINER  SHARE  LIMITS\n"
        "gpu0.shared  100  1000  train    3h   no         yes      2026-11-20T09:00:00.000Z  "
        "team-a     pod web-0  open   12.5% no memory limit\n");
}

TEST_CASE("status") {
  auto status = json::parse(R"({
    "version": "0.1.0", "pid": 12, "startedAt": "2026-11-18T09:00:00.000Z", "ready": false,
    "notReadyBecause": "gpu1.shared is failed", "runDirectory": "/run/mps",
    "stateDirectory": "/var/lib/mps-supervisor", "driverVersion": "550.163.01", "devices": 2,
    "devicesError": null, "instances": 2, "instancesByState": {"failed": 1, "ready": 1},
    "clients": 3, "lastErrors": [{"instance": "gpu1.shared", "message": "no program"}],
    "policies": {"generation": 3, "hash": "0123456789ab", "files": 12, "badFiles": 1,
                 "error": "cannot read it"},
    "lastEventId": 1, "journalWriteErrors": 4})");
  CHECK(status_text(status, now()) ==
        "mps-supervisor 0.1.0, pid 12, up 2d\n"
        "not ready: gpu1.shared is failed\n"
        "driver     550.163.01\n"
        "devices    2\n"
        "instances  2 (1 failed, 1 ready)\n"
        "clients    3\n"
        "policies   generation 3 (0123456789ab), 12 files, 1 bad\n"
        "           cannot read it\n"
        "journal    4 writes failed\n"
        "gpu1.shared: no program\n");
  status = json::parse(R"({"version": "0.1.0", "pid": 12, "ready": true, "instances": 0,
    "instancesByState": {}, "devices": 0, "devicesError": "NVML: not there"})");
  CHECK(status_text(status, now()) ==
        "mps-supervisor 0.1.0, pid 12, up -\n"
        "ready\n"
        "devices    0\n"
        "           NVML: not there\n"
        "instances  0\n");
}

TEST_CASE("status: devices that are out of service") {
  const auto status = json::parse(R"j({"version": "0.1.0", "pid": 12, "ready": true,
    "outOfService": [{"device": "GPU-0a", "message": "GPU-0a is out of service"}],
    "lastErrors": [{"instance": "gpu0.shared", "message": "no program"}]})j");
  CHECK(status_text(status, now())
            .ends_with("ready\nGPU-0a is out of service\ngpu0.shared: no program\n"));
}

TEST_CASE("status: what the audit has found") {
  const auto status = json::parse(R"j({"version": "0.1.0", "pid": 12, "ready": true,
    "findings": [{"device": "GPU-0a", "kind": "outside_mps", "processes": 2}]})j");
  const auto said = status_text(status, now());
  CHECK(said.ends_with("GPU-0a: 2 outside_mps, see mps-ctl events\n"));
}

TEST_CASE("status: a line for each instance without a ceiling, and not too many") {
  auto status = json::parse(R"j({"version": "0.1.0", "pid": 12, "ready": true,
    "lastErrors": [{"instance": "gpu1.shared", "message": "no program"}], "noCeiling": [
      {"instance": "gpu0.shared", "limit": "activeThreadPercentage",
       "from": "default.yaml:17:29 (spec.client)"},
      {"instance": "gpu0.shared", "limit": "pinnedDeviceMemory",
       "from": "default.yaml:14:14 (gives none)"},
      {"instance": "gpu1.shared", "limit": "activeThreadPercentage",
       "from": "a.yaml:4:14 (gives none)"},
      {"instance": "gpu1.shared", "limit": "pinnedDeviceMemory",
       "from": "a.yaml:4:14 (gives none)"},
      {"instance": "gpu2.shared", "limit": "pinnedDeviceMemory", "from": null}]})j");
  const auto said = [&status] {
    const auto text = status_text(status, now());
    return text.substr(text.find("gpu1.shared: no program\n"));
  };
  const std::string three =
      "gpu1.shared: no program\n"
      "gpu0.shared: no ceiling for threads because of default.yaml:17:29 (spec.client), for memory "
      "because of default.yaml:14:14 (gives none)\n"
      "gpu1.shared: no ceiling for threads and memory because of a.yaml:4:14 (gives none)\n"
      "gpu2.shared: no ceiling for memory\n";
  CHECK(said() == three);
  auto more = three;
  for (int i = 3; i < 8; ++i) {
    const auto id = "gpu" + std::to_string(i) + ".shared";
    status["noCeiling"].push_back(
        {{"instance", id}, {"limit", "pinnedDeviceMemory"}, {"from", "a.yaml:4:14 (gives none)"}});
    more += id + ": no ceiling for memory because of a.yaml:4:14 (gives none)\n";
  }
  CHECK(said() == more);
  for (const auto* id : {"gpu8.shared", "gpu9.shared"}) {
    status["noCeiling"].push_back({{"instance", id}, {"limit", "activeThreadPercentage"}});
  }
  CHECK(said() == more + "and 2 more\n");
}

TEST_CASE("events are a line each") {
  const auto event = json::parse(R"({"id": 7, "time": "2026-11-20T10:00:00.000Z",
    "kind": "client_asked", "instance": "gpu0.shared", "message": "pid 100\u001b[1m asked",
    "data": {"pid": 100}})");
  CHECK(event_line(event, false) ==
        "2026-11-20T10:00:00.000Z gpu0.shared   client_asked        pid 100\\x1b[1m asked\n");
  CHECK(event_line(event, true) ==
        "2026-11-20T10:00:00.000Z 7      gpu0.shared   client_asked        "
        "pid 100\\x1b[1m asked {\"pid\":100}\n");
  CHECK(event_line({{"kind", "stream_lagged"}, {"message", "read too slowly"}}, false) ==
        "-                        -             stream_lagged       read too slowly\n");
}

TEST_CASE("another version's answers are shown as far as they go") {
  const auto odd = json::parse(R"([{"id": 5, "control": 7, "limits": [], "clients": {"a": 1}},
                                   null, "text", {}])");
  CHECK(instances_text(odd, false, now()).find("{\"a\":1}") != std::string::npos);
  CHECK(devices_text(odd, true).find('5') != std::string::npos);
  CHECK(!clients_text(odd, true, now()).empty());
  CHECK(!status_text(odd, now()).empty());
  CHECK(event_line(odd, true) == "-                        -      -             -\n");
}

TEST_CASE("ages") {
  CHECK(age("2026-11-20T11:58:01.000Z", now()) == "119s");
  CHECK(age("2026-11-20T11:58:00.000Z", now()) == "2m");
  CHECK(age("2026-11-20T10:00:00.000Z", now()) == "2h");
  CHECK(age("2026-11-18T12:00:00.000Z", now()) == "2d");
  CHECK(age("2026-11-20T13:00:00.000Z", now()) == "0s");
  CHECK(age("then", now()) == "-");
  CHECK(age(nullptr, now()) == "-");
}

TEST_CASE("YAML keeps types") {
  const auto value = json::parse(R"({"a": [1, 2.5, true, null, "x: y"], "b": {}, "c": [],
    "d": "1", "e": "yes", "f": "", "g": "null", "h": "two\nlines", "i": {"j": -3}, "k": "0x1F"})");
  CHECK(to_yaml(value) ==
        "a:\n  - 1\n  - 2.5\n  - true\n  - ~\n  - \"x: y\"\nb: {}\nc: []\nd: \"1\"\n"
        "e: \"yes\"\nf: \"\"\ng: \"null\"\nh: \"two\\nlines\"\ni:\n  j: -3\nk: \"0x1F\"\n");
  CHECK(to_yaml(json::array({{{"a", 1}, {"b", 2}}})) == "- a: 1\n  b: 2\n");
  CHECK(YAML::Load(to_yaml(value))["h"].as<std::string>() == "two\nlines");
}

TEST_CASE("a share that was made, and how to give it to a container") {
  auto share = json::parse(R"j({"id": "s12", "instance": "gpu0.shared", "namespace": null,
    "limits": {"activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 12288},
    "directory": "/run/mps/gpu0.shared/shares/s12",
    "cdiDevice": "mps-supervisor.dev/share=s12", "noCdiDevice": null})j");
  const std::string first =
      "share s12 of gpu0.shared, 25% 12Gi for each client, for whoever has it mounted\n"
      "mount /run/mps/gpu0.shared/shares/s12 at any path (read-only is enough), and set "
      "CUDA_MPS_PIPE_DIRECTORY to that path with /pipe behind it\n";
  CHECK(share_created_text(share) ==
        first +
            "or take it as the CDI device mps-supervisor.dev/share=s12, beside the GPU itself:\n"
            "  docker run --device mps-supervisor.dev/share=s12 IMAGE "
            "/run/mps-share/s12/bin/mps-run -- COMMAND\n"
            "  podman run --device mps-supervisor.dev/share=s12 IMAGE "
            "/run/mps-share/s12/bin/mps-run -- COMMAND\n");
  share["cdiDevice"] = nullptr;
  share["noCdiDevice"] = "CDI is off (cdiDir)";
  CHECK(share_created_text(share) == first + "no CDI device: CDI is off (cdiDir)\n");
  share.erase("cdiDevice");
  share.erase("noCdiDevice");
  CHECK(share_created_text(share) == first);
}
