#include "device/device.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "device/capability.h"

using namespace mps::device;

TEST_CASE("short names are unique on a node and fit for a path") {
  Device device;
  device.index = 12;
  CHECK(device.short_name() == "gpu12");
  device.mig_index = 3;
  CHECK(device.short_name() == "gpu12-mig3");
}

TEST_CASE("the GPU that a device is, or is a part of") {
  Inventory inventory;
  for (const unsigned index : {0U, 1U}) {
    Device gpu;
    gpu.uuid = "GPU-" + std::to_string(index);
    gpu.index = index;
    Device mig = gpu;
    mig.uuid = "MIG-" + std::to_string(index);
    mig.mig_index = 3;
    inventory.devices.push_back(gpu);
    inventory.devices.push_back(mig);
  }
  CHECK(gpu_of(inventory, "GPU-1") == "GPU-1");
  CHECK(gpu_of(inventory, "MIG-1") == "GPU-1");
  CHECK(gpu_of(inventory, "MIG-2").empty());
  inventory.devices.erase(inventory.devices.begin());
  CHECK(gpu_of(inventory, "MIG-0").empty());
}

TEST_CASE("compute modes have names, there and back") {
  for (const std::string name :
       {"default", "exclusive-thread", "prohibited", "exclusive-process"}) {
    const auto mode = parse_compute_mode(name);
    REQUIRE(mode.has_value());
    CHECK(to_string(*mode) == name);
  }
  CHECK_FALSE(parse_compute_mode("Default").has_value());
  CHECK_FALSE(parse_compute_mode("").has_value());
}

TEST_CASE("why MPS cannot run on a device") {
  struct Row {
    CapabilityFacts facts;
    std::string reason;
  };
  const std::vector<Row> rows{
      {{}, ""},
      {{.major = 7, .minor = 0}, ""},
      {{.major = 12, .minor = 1, .compute_mode = ComputeMode::exclusive_process}, ""},
      {{.compute_mode = ComputeMode::exclusive_thread}, ""},
      {{.major = 6, .minor = 1},
       "compute capability 6.1: MPS with limits needs 7.0 (Volta) or later"},
      {{.vgpu_guest = true, .mig_enabled = true, .major = 6, .minor = 0},
       "vGPU guest: MPS is not available in a virtual GPU"},
      {{.mig_enabled = true, .major = 9, .minor = 0},
       "MIG is enabled: its MIG devices have instances of their own"},
      {{.major = 9, .minor = 0, .compute_mode = ComputeMode::prohibited},
       "compute mode is prohibited: no CUDA program can run until it is set to default or "
       "exclusive-process"},
  };
  for (const auto& row : rows) CHECK(why_not_capable(row.facts) == row.reason);
}

TEST_CASE("SMs are counted from cores") {
  CHECK(sm_count_of(16896, 9, 0) == 132);  // H200
  CHECK(sm_count_of(6912, 8, 0) == 108);   // A100
  CHECK(sm_count_of(18176, 8, 9) == 142);  // L40
  CHECK(sm_count_of(5120, 7, 0) == 80);    // V100
  CHECK(sm_count_of(2560, 6, 1) == 20);
  CHECK(sm_count_of(3584, 6, 0) == 56);
  CHECK(sm_count_of(1000, 99, 0) == 0);
  CHECK(sm_count_of(100, 9, 0) == 0);
}
