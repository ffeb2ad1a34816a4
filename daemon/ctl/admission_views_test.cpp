#include <doctest/doctest.h>

#include "base/text.h"
#include "ctl/views.h"

using namespace mps::ctl;
using nlohmann::json;

namespace {

SystemTime now() {
  return mps::parse_time("2026-11-20T12:00:00.000Z").value();
}

json admission() {
  return json::parse(R"j({"id": 7, "instance": "gpu0.shared", "device": "GPU-0a", "share": "open",
    "namespace": "team-a", "container": "/kubepods/pod1/c1 4711",
    "description": "pod web-0, container cuda",
    "limits": {"activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 10240},
    "clients": 2, "pids": [100, 101]})j");
}

json use() {
  return json::parse(R"j({"gated": true, "admissions": 2, "clients": 4, "waiting": 1,
    "leftOut": {"admissions": 0, "clients": 0, "waiting": 0},
    "namespaces": [
      {"namespace": "team-a", "device": "GPU-0a", "clients": 3, "activeThreadPercentage": 75.0,
       "pinnedDeviceMemoryMiB": 30720, "waiting": 1,
       "quota": {"clients": 4, "activeThreadPercentage": 100.0, "pinnedDeviceMemoryMiB": null}},
      {"namespace": "user:ann", "device": "GPU-1b", "clients": 1, "activeThreadPercentage": 12.5,
       "pinnedDeviceMemoryMiB": 0, "waiting": 0, "quota": null}],
    "devices": [{"device": "GPU-0a", "id": "gpu0", "clients": 4, "adopted": 1,
                 "activeThreadPercentage": 75.0, "pinnedDeviceMemoryMiB": 30720,
                 "limits": {"activeThreadPercentage": 200.0, "pinnedDeviceMemoryMiB": 144384}}],
    "refused": {}})j");
}

}  // namespace

TEST_CASE("admissions") {
  auto second = admission();
  second["id"] = 12;
  second["namespace"] = "user:ann";
  second["description"] = "user \x1b[1m";
  second["limits"] = {{"activeThreadPercentage", 100.0}, {"pinnedDeviceMemoryMiB", nullptr}};
  second["clients"] = 0;
  second["pids"] = json::array();
  CHECK(admissions_text({admission(), second}, false) ==
        "ID  INSTANCE     SHARE  NAMESPACE  CONTAINER                  LIMITS    CLIENTS\n"
        "7   gpu0.shared  open   team-a     pod web-0, container cuda  25% 10Gi  2\n"
        "12  gpu0.shared  open   user:ann   user \\x1b[1m               none      0\n");
  CHECK(admissions_text(json::array({admission()}), true) ==
        "ID  INSTANCE     SHARE  NAMESPACE  CONTAINER                  LIMITS    CLIENTS  PIDS     "
        "DEVICE  CONTAINER ID\n"
        "7   gpu0.shared  open   team-a     pod web-0, container cuda  25% 10Gi  2        100 101  "
        "GPU-0a  /kubepods/pod1/c1 4711\n");
}

TEST_CASE("who waits, for how long, and why") {
  auto one = admission();
  one.update(json::parse(R"({"pid": 102, "uid": 1000, "since": "2026-11-20T11:59:50.000Z",
    "deadline": "2026-11-20T12:00:50.000Z", "code": "quota_clients", "roomIsKept": false,
    "message": "team-a has 4 of 4 clients"})"));
  CHECK(waiting_text(json::array({one}), false, now()) ==
        "INSTANCE     NAMESPACE  CONTAINER                  PID  WAITS  LEFT  CODE           WHY\n"
        "gpu0.shared  team-a     pod web-0, container cuda  102  10s    50s   quota_clients  "
        "team-a has 4 of 4 clients\n");
  one["deadline"] = "2026-11-20T11:59:59.000Z";
  CHECK(waiting_text(json::array({one}), true, now()) ==
        "INSTANCE     NAMESPACE  CONTAINER                  PID  WAITS  LEFT  UID   SHARE  "
        "LIMITS    ROOM KEPT  CODE           WHY\n"
        "gpu0.shared  team-a     pod web-0, container cuda  102  10s    0s    1000  open   "
        "25% 10Gi  no         quota_clients  team-a has 4 of 4 clients\n");
}

TEST_CASE("what it all comes to") {
  const std::string tables =
      "DEVICE  UUID    CLIENTS  THREADS      MEMORY         ADOPTED\n"
      "gpu0    GPU-0a  4        75% of 200%  30Gi of 141Gi  1\n"
      "\n"
      "NAMESPACE  DEVICE  CLIENTS  THREADS      MEMORY  WAITING\n"
      "team-a     gpu0    3 of 4   75% of 100%  30Gi    1\n"
      "user:ann   GPU-1b  1        12.5%        0Mi     0\n";
  auto value = use();
  CHECK(use_text(value) == tables);
  value["refused"] = {{"no_policy", 3}, {"quota_clients", 1}};
  value["leftOut"] = {{"admissions", 5}, {"clients", 0}, {"waiting", 7}};
  CHECK(use_text(value) ==
        tables +
            "\n"
            "refused since the supervisor's start: 3 no_policy, 1 quota_clients\n"
            "too many to be listed: 5 admissions, 7 waiting\n");
  CHECK(use_text({{"gated", false}}) ==
        "no instance has a gate: whoever reaches its socket gets in, and is not counted here\n");
}

TEST_CASE("another version's admissions are shown as far as they go") {
  const auto odd = json::parse(R"([{"id": 5, "limits": [], "clients": {"a": 1}, "pids": 3,
                                    "since": 7, "deadline": "soon"}, null, "text", {}])");
  CHECK(admissions_text(odd, true).find("{\"a\":1}") != std::string::npos);
  CHECK(!waiting_text(odd, true, now()).empty());
  CHECK(!use_text(odd).empty());
  CHECK(!use_text(json::parse(R"({"devices": 3, "namespaces": [7], "refused": []})")).empty());
}
