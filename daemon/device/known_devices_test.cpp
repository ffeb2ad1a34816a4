#include "device/known_devices.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace mps::device;

namespace {

Device gpu(std::string uuid, unsigned index) {
  return {.uuid = std::move(uuid), .index = index};
}

Device mig(std::string uuid, unsigned index, unsigned place) {
  return {.uuid = std::move(uuid), .kind = Kind::mig, .index = index, .mig_index = place};
}

// "A gpu0; B gpu1: NVML no longer reports it"
std::string text_of(const Inventory& inventory) {
  std::string text;
  for (const auto& device : inventory.devices) {
    if (!text.empty()) text += "; ";
    text += device.uuid + " " + device.short_name();
    if (!device.error.empty()) text += ": " + device.error;
  }
  return text;
}

nvml::Scan scan_of(std::vector<Device> devices) {
  return {.devices = std::move(devices)};
}

}  // namespace

TEST_CASE("devices are sorted by index and place") {
  KnownDevices known;
  const auto inventory =
      known.update(scan_of({gpu("B", 1), mig("M2", 1, 2), mig("M1", 1, 0), gpu("A", 0)}));
  CHECK(text_of(inventory) == "A gpu0; B gpu1; M1 gpu1-mig0; M2 gpu1-mig2");
}

TEST_CASE("a device keeps its name when NVML numbers anew") {
  KnownDevices known;
  known.update(scan_of({gpu("A", 0), gpu("B", 1), mig("M", 1, 0)}));
  CHECK(text_of(known.update(scan_of({gpu("B", 0), mig("M", 0, 1)}))) ==
        "A gpu0: NVML no longer reports it; B gpu1; M gpu1-mig0");
  SUBCASE("and a MIG device that is new follows its parent's name") {
    CHECK(text_of(known.update(scan_of({gpu("B", 0), mig("M", 0, 0), mig("N", 0, 0)}))) ==
          "A gpu0: NVML no longer reports it; B gpu1; M gpu1-mig0; N gpu1-mig1");
  }
  SUBCASE("a device that is back is as it was") {
    CHECK(text_of(known.update(scan_of({gpu("A", 0), gpu("B", 1), mig("M", 1, 0)}))) ==
          "A gpu0; B gpu1; M gpu1-mig0");
  }
  SUBCASE("a newcomer takes the name of one that is gone, never of one that is there") {
    CHECK(text_of(known.update(scan_of({gpu("B", 0), gpu("C", 1)}))) ==
          "C gpu0; B gpu1; M gpu1-mig0: NVML no longer reports it");
  }
}

TEST_CASE("a GPU without a handle is shown on the device that is known") {
  KnownDevices known;
  known.update(scan_of({gpu("A", 0), gpu("B", 1)}));
  const nvml::Scan lost{.devices = {gpu("A", 0)},
                        .nameless = {{1, "nvmlDeviceGetHandleByIndex: GPU is lost"}},
                        .driver_version = "535"};
  auto inventory = known.update(lost);
  CHECK(text_of(inventory) == "A gpu0; B gpu1: nvmlDeviceGetHandleByIndex: GPU is lost");
  CHECK(inventory.error.empty());
  KnownDevices nothing_known;
  inventory = nothing_known.update(lost);
  CHECK(text_of(inventory) == "A gpu0");
  CHECK(inventory.error == "NVML: GPU 1: nvmlDeviceGetHandleByIndex: GPU is lost");
}

TEST_CASE("what was known stands in for what could not be asked") {
  KnownDevices known;
  auto device = gpu("A", 0);
  device.name = "Simulated H200";
  device.memory_mebibytes = 143771;
  device.compute_mode = ComputeMode::exclusive_process;
  known.update(scan_of({device}));
  auto failing = gpu("A", 0);
  failing.error = "nvmlDeviceGetMemoryInfo: Unknown Error";
  auto now = known.update(scan_of({failing})).devices.at(0);
  CHECK(now.memory_mebibytes == 143771);
  CHECK(now.name == "Simulated H200");
  CHECK(now.compute_mode == ComputeMode::exclusive_process);
  CHECK(now.error == "nvmlDeviceGetMemoryInfo: Unknown Error");
  now = known.update(scan_of({gpu("A", 0)})).devices.at(0);
  CHECK(now.memory_mebibytes == 0);
  CHECK(now.error.empty());
}

TEST_CASE("a reason against MPS stays only while nobody can say whether it still holds") {
  KnownDevices known;
  auto device = gpu("A", 0);
  device.mig_enabled = true;
  device.not_capable = "MIG is enabled";
  known.update(scan_of({device}));
  auto failing = gpu("A", 0);
  failing.error = "nvmlDeviceGetMigMode: Unknown Error";
  failing.capability_known = false;
  auto now = known.update(scan_of({failing})).devices.at(0);
  CHECK(now.mig_enabled);
  CHECK(now.not_capable == "MIG is enabled");
  failing.error = "nvmlDeviceGetMemoryInfo: Unknown Error";
  failing.capability_known = true;
  now = known.update(scan_of({failing})).devices.at(0);
  CHECK_FALSE(now.mig_enabled);
  CHECK(now.not_capable.empty());
}

TEST_CASE("the MIG devices of a parent that could not be asked show why") {
  KnownDevices known;
  known.update(scan_of({gpu("A", 0), mig("M", 0, 0)}));
  auto failing = gpu("A", 0);
  failing.error = "nvmlDeviceGetMigMode: Unknown Error";
  CHECK(text_of(known.update(scan_of({failing}))) ==
        "A gpu0: nvmlDeviceGetMigMode: Unknown Error; "
        "M gpu0-mig0: nvmlDeviceGetMigMode: Unknown Error");
}

TEST_CASE("no answer and a failure of the whole") {
  KnownDevices known;
  CHECK(known.unanswered("NVML did not answer within 30s").error ==
        "NVML did not answer within 30s");
  CHECK(known.failed("nvmlInit: Driver Not Loaded").error == "NVML: nvmlInit: Driver Not Loaded");
  known.update(scan_of({gpu("A", 0)}));
  auto inventory = known.unanswered("NVML did not answer within 30s");
  CHECK(text_of(inventory) == "A gpu0: NVML did not answer within 30s");
  CHECK(inventory.error.empty());
  inventory = known.failed("nvmlInit: Driver Not Loaded");
  CHECK(text_of(inventory) == "A gpu0: nvmlInit: Driver Not Loaded");
  CHECK(inventory.error == "NVML: nvmlInit: Driver Not Loaded");
  CHECK(text_of(known.update(scan_of({gpu("A", 0)}))) == "A gpu0");
}
