#include "api/shares.h"

#include <doctest/doctest.h>

using namespace mps;
using namespace mps::api;

namespace {

std::string wrong(const std::string& body) {
  const auto order = order_from(body);
  return order ? "it was taken" : order.error().message;
}

}  // namespace

TEST_CASE("what a share is to be") {
  const auto order = order_from(
      R"({"device": 0, "activeThreadPercentage": 33.39, "pinnedDeviceMemory": "12Gi",
          "namespace": "team-a", "ttl": "90m"})");
  REQUIRE(order.has_value());
  CHECK(order->device == "0");
  CHECK(order->subject == "team-a");
  CHECK(order->grant == share::Grant{33.3, 12288});
  CHECK(order->ttl == std::chrono::minutes(90));
  const auto least = order_from(R"({"device": "gpu1"})");
  REQUIRE(least.has_value());
  CHECK(least->grant == share::Grant{});
  CHECK_FALSE(least->ttl);
  CHECK(order_from(R"({"device": "0", "activeThreadPercentage": 0.01})")
            ->grant.active_thread_percentage == 0.1);
  CHECK(order_from(R"({"device": "0", "namespace": "docker:web"})")->subject == "docker:web");
}

TEST_CASE("what is wrong with it is said") {
  CHECK(wrong("") == "the body must be a JSON object");
  CHECK(wrong("[]") == "the body must be a JSON object");
  CHECK(wrong("{}") == "device: is missing");
  CHECK(wrong(R"({"device": -1})") == "device: must be an index, a name or a UUID: -1");
  CHECK(wrong(R"({"device": ""})") == "device: must be an index, a name or a UUID: \"\"");
  for (const auto* value : {"0", "-5", "100.1", "\"25\"", "null"}) {
    CHECK(wrong(std::string(R"({"device": 0, "activeThreadPercentage": )") + value + "}") ==
          std::string("activeThreadPercentage: must be above 0 and at most 100: ") + value);
  }
  CHECK(wrong(R"({"device": 0, "pinnedDeviceMemory": 12})") ==
        "pinnedDeviceMemory: must be a quantity such as 10Gi: 12");
  CHECK(wrong(R"({"device": 0, "pinnedDeviceMemory": "12Gib"})") ==
        "pinnedDeviceMemory: must be a quantity such as 10Gi: \"12Gib\"");
  CHECK(wrong(R"({"device": 0, "pinnedDeviceMemory": "1000"})") ==
        "pinnedDeviceMemory: must be at least 1Mi: \"1000\"");
  CHECK(wrong(R"({"device": 0, "namespace": 5})") == "namespace: must be text");
  CHECK(wrong(R"({"device": 0, "namespace": "*"})") ==
        "namespace: must be one; without it the share is for whoever has it mounted: \"*\"");
  CHECK(wrong(R"({"device": 0, "ttl": 60})") == "ttl: must be a duration such as 90m or 8h: 60");
  CHECK(wrong(R"({"device": 0, "ttl": "10ms"})") ==
        "ttl: must be 1s at least and 8784h at most: \"10ms\"");
  CHECK(wrong(R"({"device": 0, "threads": 10})") == "unknown field \"threads\" in the body");
  CHECK(wrong(R"({"device": 0, "namespaces": "a"})") ==
        "unknown field \"namespaces\" in the body; did you mean \"namespace\"?");
}

TEST_CASE("a share is shown") {
  ShareView view;
  view.share = {7, "s7", "gpu0.shared", "team-a", {25, 12288}, 0, 3'600'000, true};
  view.device = "GPU-0";
  view.directory = "/run/mps/gpu0.shared/shares/s7";
  view.clients = 2;
  view.cdi_device = "mps-supervisor.dev/share=s7";
  CHECK(to_json(view) == nlohmann::json::parse(R"({
    "id": "s7", "instance": "gpu0.shared", "device": "GPU-0", "namespace": "team-a",
    "limits": {"activeThreadPercentage": 25.0, "pinnedDeviceMemoryMiB": 12288},
    "state": "closing", "clients": 2, "createdAt": "1970-01-01T00:00:00.000Z",
    "expiresAt": "1970-01-01T01:00:00.000Z", "directory": "/run/mps/gpu0.shared/shares/s7",
    "pipeDirectory": "/run/mps/gpu0.shared/shares/s7/pipe",
    "cdiDevice": "mps-supervisor.dev/share=s7", "noCdiDevice": null})"));
  view.cdi_device.clear();
  view.no_cdi_because = "CDI is off (cdiDir)";
  CHECK(to_json(view)["cdiDevice"].is_null());
  CHECK(to_json(view)["noCdiDevice"] == "CDI is off (cdiDir)");
  view.share = {0, "open", "gpu0.shared"};
  view.is_open_share = true;
  const auto open = to_json(view);
  CHECK(open["limits"].is_null());
  CHECK(open["createdAt"].is_null());
  CHECK(open["namespace"].is_null());
  CHECK(open["state"] == "open");
}
