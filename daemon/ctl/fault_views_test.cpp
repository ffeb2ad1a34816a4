#include <doctest/doctest.h>

#include "base/text.h"
#include "ctl/views.h"

using namespace mps::ctl;
using nlohmann::json;

namespace {

SystemTime now() {
  return mps::parse_time("2026-11-20T12:05:00.000Z").value();
}

json client(int pid) {
  return {{"pid", pid},
          {"startTicks", 5},
          {"uid", 1000},
          {"command", "train.py\n"},
          {"container", nullptr},
          {"pod", "web-0"},
          {"namespace", "team-a"},
          {"owner", "Deployment/web"},
          {"share", "open"},
          {"limits", {{"activeThreadPercentage", 25.0}, {"pinnedDeviceMemoryMiB", 10240U}}},
          {"since", "2026-11-20T11:00:00.000Z"}};
}

json story() {
  auto fault = json::parse(R"j({
    "id": "f12", "instance": "gpu0.shared", "device": "GPU-0a", "domain": "shared",
    "kind": "app_fault", "summary": "2 faults of clients by pid 8", "faults": 2, "rounds": 2,
    "noticed": "2026-11-20T12:00:00.000Z", "attributed": "2026-11-20T12:00:00.001Z",
    "serving": "2026-11-20T12:00:00.100Z", "closed": "2026-11-20T12:00:00.100Z", "end": "serving",
    "durations": {"attributedMs": 1, "servingMs": 100}, "cause": null,
    "deviceNeeds": "out_until_reset", "hardware": false, "attribution": "named",
    "unattributedRounds": 1, "suspectCount": 70, "victimCount": 1,
    "recoveryAction": null, "strangers": [], "culpritsLeftOut": 0,
    "xids": [{"xid": 31, "text": "MMU page fault", "times": 1, "first": "x"},
             {"xid": 45, "text": "preemptive channel removal", "times": 3, "first": "x"}],
    "consequences": [{"kind": "server_died", "at": "x", "text": "was killed"}],
    "signals": [{"at": "2026-11-20T12:00:00.000Z", "kind": "xid", "text": "Xid 31"}],
    "signalsLeftOut": 7,
    "steps": [{"at": "2026-11-20T12:00:00.020Z", "name": "terminate_client 7",
               "outcome": "answered", "round": 1}],
    "stepsLeftOut": 0})j");
  fault["culprit"] = client(8);
  fault["culprits"] = json::array({client(8)});
  fault["suspects"] = json::array({client(9)});
  fault["victims"] = json::array({client(7)});
  return fault;
}

}  // namespace

TEST_CASE("a list of faults") {
  auto open = story();
  open["id"] = "f13";
  open["end"] = nullptr;
  open["culprit"] = nullptr;
  open["attribution"] = "one_of";
  open["deviceNeeds"] = "nothing";
  CHECK(faults_text(json::array({open, story()}), false, now()) ==
        "FAULT  AGE  INSTANCE     KIND       FAULTS  VICTIMS  STATE               BY\n"
        "f13    5m   gpu0.shared  app_fault  2       1        open                one of 70\n"
        "f12    5m   gpu0.shared  app_fault  2       1        served after 100ms  pid 8 "
        "(train.py\\x0a) of team-a, pod web-0\n");
  const auto wide = faults_text(json::array({story()}), true, now());
  CHECK(wide.find("  a reset  GPU-0a  2026-11-20T12:00:00.000Z\n") != std::string::npos);
  CHECK(faults_text(json::array({json::object()}), false, now()) ==
        "FAULT  AGE  INSTANCE  KIND  FAULTS  VICTIMS  STATE  BY\n"
        "-      -    -         -     -       -        open   -\n");
}

TEST_CASE("the whole story of a fault") {
  const std::string head =
      "PID  UID   NAMESPACE  POD    OWNER           LIMITS    SINCE                     COMMAND\n";
  const std::string rest =
      "    1000  team-a     web-0  Deployment/web  25% 10Gi  2026-11-20T11:00:00.000Z  "
      "train.py\\x0a\n";
  CHECK(fault_story(story()) ==
        "fault      f12\n"
        "what       2 faults of clients by pid 8\n"
        "kind       app_fault\n"
        "instance   gpu0.shared\n"
        "device     GPU-0a\n"
        "noticed    2026-11-20T12:00:00.000Z\n"
        "attributed 2026-11-20T12:00:00.001Z (after 1ms)\n"
        "serving    2026-11-20T12:00:00.100Z (after 100ms)\n"
        "state      served after 100ms\n"
        "faults     2 in 2 rounds\n"
        "xids       31 (MMU page fault), 45 (preemptive channel removal) 3 times\n"
        "needs      a reset\n"
        "then       server_died: was killed\n"
        "\n"
        "who did it (1)\n" +
            head + "8" + rest + "\none of these did (70)\n" + head + "9" + rest +
            "\nwho suffered (1)\n" + head + "7" + rest +
            "\n"
            "what was noticed\n"
            "TIME                      SIGNAL  TEXT\n"
            "2026-11-20T12:00:00.000Z  xid     Xid 31\n"
            "and 7 more\n"
            "\n"
            "what was done\n"
            "TIME                      ROUND  STEP                OUTCOME\n"
            "2026-11-20T12:00:00.020Z  1      terminate_client 7  answered\n");
}

TEST_CASE("who is kept out") {
  const auto entries = json::parse(R"j([
    {"id": "q1", "namespace": "team-a", "owner": "Job/x", "command": "a b", "faults": 3,
     "since": "2026-11-20T12:00:00.000Z", "until": "2026-11-20T12:15:00.000Z",
     "reason": "3 faults within 10m", "by": null},
    {"id": "q2", "namespace": "team-b", "owner": null, "command": null, "faults": 0,
     "since": "2026-11-20T12:00:00.000Z", "until": "2026-11-20T12:05:30.000Z",
     "reason": "until it is mended", "by": "uid 0"}])j");
  CHECK(quarantine_text(entries, now()) ==
        "ENTRY  NAMESPACE  OWNER  COMMAND  LEFT  BY      REASON\n"
        "q1     team-a     Job/x  a b      10m   policy  3 faults within 10m\n"
        "q2     team-b     -      -        30s   uid 0   until it is mended\n");
}
