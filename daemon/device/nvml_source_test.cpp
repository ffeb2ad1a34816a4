#include <doctest/doctest.h>
#include <stdlib.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <vector>

#include "device/test_support.h"

using namespace mps::device;
using namespace mps::device::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

std::string read(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "without an inventory file there are three GPUs") {
  // No thread is in the library yet.
  unsetenv("MPS_SIM_NVML");
  const auto inventory = list();
  setenv("MPS_SIM_NVML", folder().file().c_str(), 1);
  REQUIRE(inventory.devices.size() == 5);
  CHECK(inventory.devices[0].name == "Simulated H200");
  CHECK(inventory.devices[4].short_name() == "gpu2-mig1");
}

TEST_CASE_FIXTURE(Fixture, "what NVML tells of GPUs and MIG devices") {
  write(
      "driver 535.261.03\n"
      "gpu GPU-A name=\"Simulated H200\" memory=143771 reserved=610 cc=9.0 sms=132 "
      "mode=exclusive-process pci=00000000:1B:00.0\n"
      "gpu GPU-B mig=on\n"
      "mig MIG-1 memory=16384 reserved=12 sms=16 name=\"Simulated H200 MIG 1g.18gb\"\n"
      "mig MIG-2 memory=16384 sms=16 place=4\n"
      "gpu GPU-C vgpu=guest\n"
      "gpu GPU-D cc=6.1 sms=20\n");
  const auto inventory = list();
  CHECK(inventory.error.empty());
  CHECK(inventory.driver_version == "535.261.03");
  REQUIRE(inventory.devices.size() == 6);
  CHECK(inventory.devices[0] == Device{.uuid = "GPU-A",
                                       .index = 0,
                                       .name = "Simulated H200",
                                       .pci_bus_id = "00000000:1B:00.0",
                                       .memory_mebibytes = 143771,
                                       .reserved_memory_mebibytes = 610,
                                       .sm_count = 132,
                                       .compute_capability_major = 9,
                                       .compute_capability_minor = 0,
                                       .compute_mode = ComputeMode::exclusive_process});
  CHECK(inventory.devices[1].mig_enabled);
  CHECK(inventory.devices[1].not_capable ==
        "MIG is enabled: its MIG devices have instances of their own");
  CHECK(inventory.devices[2] == Device{.uuid = "MIG-1",
                                       .kind = Kind::mig,
                                       .index = 1,
                                       .mig_index = 0,
                                       .name = "Simulated H200 MIG 1g.18gb",
                                       .pci_bus_id = "00000000:1C:00.0",
                                       .memory_mebibytes = 16384,
                                       .reserved_memory_mebibytes = 12,
                                       .sm_count = 16,
                                       .compute_capability_major = 9,
                                       .compute_capability_minor = 0});
  CHECK(inventory.devices[3].short_name() == "gpu1-mig4");
  CHECK(inventory.devices[4].not_capable == "vGPU guest: MPS is not available in a virtual GPU");
  CHECK(inventory.devices[5].sm_count == 20);
  CHECK(inventory.devices[5].not_capable ==
        "compute capability 6.1: MPS with limits needs 7.0 (Volta) or later");
}

TEST_CASE_FIXTURE(Fixture, "a device comes and goes under us") {
  write("gpu GPU-A\ngpu GPU-B\n");
  CHECK(list().devices.size() == 2);
  write("gpu GPU-B\n");
  auto inventory = list();
  REQUIRE(inventory.devices.size() == 2);
  CHECK(inventory.devices[0].error == "NVML no longer reports it");
  CHECK(inventory.devices[1].short_name() == "gpu1");
  CHECK(inventory.devices[1].error.empty());
  write("gpu GPU-A\ngpu GPU-B\ngpu GPU-C\n");
  inventory = list();
  REQUIRE(inventory.devices.size() == 3);
  for (const auto& device : inventory.devices) CHECK(device.error.empty());
}

TEST_CASE_FIXTURE(Fixture, "a failing call is an error of its device") {
  write("gpu GPU-A\ngpu GPU-B\n");
  list();
  write("gpu GPU-A\ngpu GPU-B\nfail nvmlDeviceGetMemoryInfo_v2 999 GPU-B\n");
  auto inventory = list();
  CHECK(inventory.devices.at(0).error.empty());
  CHECK(inventory.devices.at(1).error == "nvmlDeviceGetMemoryInfo: Unknown Error");
  CHECK(inventory.devices.at(1).memory_mebibytes == 143771);
  write("gpu GPU-A\ngpu GPU-B\nfail nvmlDeviceGetHandleByIndex_v2 15 GPU-B\n");
  CHECK(list().devices.at(1).error == "nvmlDeviceGetHandleByIndex: GPU is lost");
  write("gpu GPU-A\ngpu GPU-B\nfail nvmlDeviceGetUUID 15 GPU-B\n");
  CHECK(list().devices.at(1).error == "nvmlDeviceGetUUID: GPU is lost");
}

TEST_CASE_FIXTURE(Fixture, "a GPU is capable again as soon as NVML says so, whatever else fails") {
  write("gpu GPU-A mode=prohibited\n");
  CHECK_FALSE(list().devices.at(0).not_capable.empty());
  write("gpu GPU-A mode=default\nfail nvmlDeviceGetComputeMode 999 GPU-A\n");
  auto device = list().devices.at(0);
  CHECK_FALSE(device.capability_known);
  CHECK_FALSE(device.not_capable.empty());
  CHECK(device.error == "nvmlDeviceGetComputeMode: Unknown Error");
  write("gpu GPU-A mode=default\nfail nvmlDeviceGetMemoryInfo_v2 999 GPU-A\n");
  device = list().devices.at(0);
  CHECK(device.capability_known);
  CHECK(device.not_capable.empty());
  CHECK(device.error == "nvmlDeviceGetMemoryInfo: Unknown Error");
}

TEST_CASE_FIXTURE(Fixture, "an older library has fewer entry points") {
  write(
      "gpu GPU-A\nfail nvmlDeviceGetMemoryInfo_v2 13\nfail nvmlDeviceGetNumGpuCores 13\n"
      "fail nvmlDeviceGetMigMode 13\nfail nvmlDeviceGetVirtualizationMode 13\n"
      "fail nvmlDeviceGetComputeMode 3\nfail nvmlDeviceGetPciInfo_v3 13\n");
  const auto inventory = list();
  CHECK(inventory.devices.at(0) == Device{.uuid = "GPU-A",
                                          .index = 0,
                                          .name = "Simulated H200",
                                          .memory_mebibytes = 143771,
                                          .compute_capability_major = 9,
                                          .compute_capability_minor = 0});
}

TEST_CASE_FIXTURE(Fixture, "a driver that is not loaded is tried again") {
  write("gpu GPU-A\nfail nvmlInit_v2 9\n");
  auto inventory = list();
  CHECK(inventory.error == "NVML: nvmlInit: Driver Not Loaded");
  CHECK(inventory.devices.empty());
  write("gpu GPU-A\n");
  inventory = list();
  CHECK(inventory.error.empty());
  CHECK(inventory.devices.size() == 1);
  write("gpu GPU-A\nfail nvmlDeviceGetCount_v2 999\n");
  inventory = list();
  CHECK(inventory.error == "NVML: nvmlDeviceGetCount: Unknown Error");
  CHECK(inventory.devices.at(0).error == "nvmlDeviceGetCount: Unknown Error");
}

TEST_CASE_FIXTURE(Fixture, "a driver that was replaced under us needs a new process") {
  write("gpu GPU-A\nfail nvmlInit_v2 18\n");
  const auto error = list().error;
  CHECK(error.starts_with("NVML: nvmlInit: "));
  CHECK(error.ends_with("; restart mps-supervisor to load the new library"));
}

TEST_CASE_FIXTURE(Fixture, "a library that is missing, and one that is another") {
  source = make(k_generous, "libno-such-nvml.so.1");
  CHECK(list().error ==
        "NVML: libno-such-nvml.so.1: cannot open shared object file: No such file or directory");
  source = make(k_generous, "libc.so.6");
  CHECK(list().error == "NVML: libc.so.6: lacks entry points of NVML: is it another library?");
  const auto done = run(source->set_compute_mode("GPU-A", ComputeMode::default_mode));
  CHECK(done.error().message ==
        "setting the compute mode to default: libc.so.6: lacks entry points of NVML: is it another "
        "library?");
}

TEST_CASE_FIXTURE(Fixture, "NVML that hangs is one stuck thread and an error, until it is back") {
  write("gpu GPU-A\n");
  source = make(100ms);
  // Loading the library takes its time under a sanitizer: the first list may well be late.
  Inventory inventory;
  for (int i = 0; i < 600 && inventory.devices.empty(); ++i) inventory = list();
  REQUIRE(inventory.devices.size() == 1);
  write("gpu GPU-A\nhang nvmlDeviceGetCount_v2\n");
  inventory = list();
  CHECK(inventory.devices.at(0).error == "NVML did not answer within 100ms");
  CHECK(inventory.error.empty());
  // From here nothing is queued: many answers come at once.
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) {
    CHECK(list().devices.at(0).error == "NVML did not answer within 100ms");
  }
  CHECK(std::chrono::steady_clock::now() - begin < 1000 * 100ms);
  const auto done = run(source->set_compute_mode("GPU-A", ComputeMode::default_mode));
  CHECK(done.error().message ==
        "setting the compute mode to default: NVML did not answer within 100ms");
  write("gpu GPU-A\n");
  const auto deadline = std::chrono::steady_clock::now() + k_generous;
  while (!inventory.devices.at(0).error.empty() && std::chrono::steady_clock::now() < deadline) {
    inventory = list();
  }
  CHECK(inventory.devices.at(0).error.empty());
}

TEST_CASE_FIXTURE(Fixture, "nothing known and no answer") {
  write("gpu GPU-A\nhang nvmlInit_v2\n");
  source = make(20ms);
  const auto inventory = list();
  CHECK(inventory.devices.empty());
  CHECK(inventory.error == "NVML did not answer within 20ms");
  // The stuck thread is left behind; it must neither be waited for nor reach what is gone.
  source.reset();
  write("gpu GPU-A\n");
}

TEST_CASE_FIXTURE(Fixture, "several calls at once are answered one after the other") {
  write("gpu GPU-A\n");
  std::vector<std::future<Inventory>> answers;
  for (int i = 0; i < 8; ++i) {
    answers.push_back(asio::co_spawn(io(), source->list(), asio::use_future));
  }
  io().run_for(k_generous);
  for (auto& answer : answers) {
    REQUIRE(answer.wait_for(0s) == std::future_status::ready);
    CHECK(answer.get().devices.at(0).error.empty());
  }
}

TEST_CASE_FIXTURE(Fixture, "a source may go while it is being asked") {
  write("gpu GPU-A\nhang nvmlDeviceGetCount_v2\n");
  source = make(50ms);
  auto answer = asio::co_spawn(io(), source->list(), asio::use_future);
  io().poll();
  source.reset();
  io().run_for(k_generous);
  REQUIRE(answer.wait_for(0s) == std::future_status::ready);
  CHECK(answer.get().error == "NVML did not answer within 50ms");
  write("gpu GPU-A\n");
}

TEST_CASE_FIXTURE(Fixture, "a compute mode is set, or it is said why not") {
  write("gpu GPU-A name=\"Simulated H200\"\ngpu GPU-B mode=default pci=1\n");
  REQUIRE(run(source->set_compute_mode("GPU-B", ComputeMode::exclusive_process)).has_value());
  CHECK(read(folder().file()) ==
        "gpu GPU-A name=\"Simulated H200\"\ngpu GPU-B pci=1 mode=exclusive-process\n");
  CHECK(list().devices.at(1).compute_mode == ComputeMode::exclusive_process);
  const auto error_of = [this](const std::string& uuid) {
    const auto done = run(source->set_compute_mode(uuid, ComputeMode::exclusive_process));
    return done ? std::string() : done.error().message;
  };
  CHECK(error_of("GPU-Z") ==
        "setting the compute mode to exclusive-process: GPU-Z: nvmlDeviceGetHandleByUUID: Not "
        "Found");
  CHECK(error_of("MIG-Z") ==
        "setting the compute mode to exclusive-process: MIG-Z: a MIG device has no compute mode of "
        "its own");
  write("gpu GPU-A\nfail nvmlDeviceSetComputeMode 4\n");
  CHECK(error_of("GPU-A") ==
        "setting the compute mode to exclusive-process: GPU-A: nvmlDeviceSetComputeMode: "
        "Insufficient Permissions");
}

TEST_CASE_FIXTURE(Fixture, "declared devices stand as they are") {
  source = make_declared_source({{.uuid = "GPU-B", .index = 1}, {.uuid = "GPU-A", .index = 0}});
  const auto inventory = list();
  CHECK(inventory.error.empty());
  REQUIRE(inventory.devices.size() == 2);
  CHECK(inventory.devices[0].uuid == "GPU-A");
  CHECK(inventory.devices[0].declared);
  const auto done = run(source->set_compute_mode("GPU-A", ComputeMode::exclusive_process));
  CHECK(done.error().message ==
        "GPU-A: declared in the settings: its compute mode cannot be set without NVML");
}
