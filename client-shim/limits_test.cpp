#include "limits.h"

#include <doctest/doctest.h>

#include <string>

using namespace mps::client;

namespace {

const char* const k_uuid = "GPU-2c7f1f9e-0000-0000-0000-000000000001";

Grant quarter() {
  Grant grant;
  grant.percentage.print("25.0");
  grant.memory_mib = 10240;
  return grant;
}

std::string text(const Setting& setting) {
  return setting.set ? setting.value.c_str() : "(left)";
}

std::string percentage(const char* user) {
  return text(settings_for(quarter(), {.percentage = user}).percentage);
}
std::string memory(const char* user) {
  return text(settings_for(quarter(), {.memory = user}).memory);
}

Settings on_device(const char* user) {
  auto grant = quarter();
  grant.visible_devices.print("%s", k_uuid);
  return settings_for(grant, {.visible_devices = user});
}

}  // namespace

TEST_CASE("a percentage is only ever lowered") {
  CHECK(percentage(nullptr) == "25.0");
  for (const char* lower : {"25", "25.0", "10", "0.5", "24.999"}) {
    CAPTURE(lower);
    CHECK(percentage(lower) == "(left)");
  }
  for (const char* other : {"25.1", "25.001", "100", "", "0", "0.0", "-5", "abc", "25%", "1e1",
                            "101", "10 ", " 10", "10.x", "1000000000000000000000"}) {
    CAPTURE(other);
    CHECK(percentage(other) == "25.0");
  }
}

TEST_CASE("a memory limit is only ever lowered, in the form with the ordinal") {
  CHECK(memory(nullptr) == "0=10240M");
  CHECK(memory("0=5G") == "0=5120M");
  CHECK(memory("0=5GB") == "0=5120M");
  CHECK(memory("0=512M") == "0=512M");
  CHECK(memory("0=512MB") == "0=512M");
  CHECK(memory("0=20G") == "0=10240M");
  CHECK(memory("1=1G") == "0=10240M");
  CHECK(memory("1=1G,0=2G") == "0=2048M");
  CHECK(memory("0=3G,0=2G") == "0=2048M");
  CHECK(memory("GPU-2c7f=2G") == "0=2048M");
  for (const char* bad : {"", ",", "0", "0=", "0=G", "0=5", "0=5K", "0=5GiB", "0=-5G", "0=0M",
                          "=5G", "00=5G", "5G", "0=5G5", "0=9999999999999999G"}) {
    CAPTURE(bad);
    CHECK(memory(bad) == "0=10240M");
  }
}

TEST_CASE("where there is no limit the user's own stay") {
  const auto settings = settings_for({}, {.percentage = "50", .memory = "0=1G", .priority = "1"});
  CHECK(text(settings.percentage) == "(left)");
  CHECK(text(settings.memory) == "(left)");
  CHECK(text(settings.priority) == "(left)");
  CHECK(text(settings.visible_devices) == "(left)");
  CHECK_FALSE(settings.other_device);
}

TEST_CASE("a priority below normal is set, whatever the user has") {
  auto grant = quarter();
  grant.below_normal = true;
  for (const char* user : {static_cast<const char*>(nullptr), "0", "1", "x"}) {
    CHECK(text(settings_for(grant, {.priority = user}).priority) == "1");
  }
}

TEST_CASE("the device is named where it has to be") {
  for (const char* same : {static_cast<const char*>(nullptr), "0", "3", "2,5", k_uuid, "GPU-2c7f",
                           "gpu-ignored", "GPU-ffff,GPU-2C7F1F9E", "GPU-ffff,0"}) {
    if (same != nullptr && std::string(same) == "gpu-ignored") continue;
    CAPTURE(same);
    CHECK(text(on_device(same).visible_devices) == k_uuid);
    CHECK_FALSE(on_device(same).other_device);
  }
}

TEST_CASE("who hid all devices sees none") {
  for (const char* hidden : {"", "-1", "NoDevFiles", "-1,0"}) {
    CAPTURE(hidden);
    CHECK(text(on_device(hidden).visible_devices) == "(left)");
    CHECK_FALSE(on_device(hidden).other_device);
  }
}

TEST_CASE("who wants another device is not given this one") {
  for (const char* other :
       {"GPU-ffff", "GPU-ffff,GPU-eeee", "MIG-2c7f1f9e", "GPU-", "GPU-ffff,x"}) {
    CAPTURE(other);
    CHECK(text(on_device(other).visible_devices) == "(left)");
    CHECK(on_device(other).other_device);
  }
}
