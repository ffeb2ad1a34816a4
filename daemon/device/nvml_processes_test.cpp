#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "device/test_support.h"

using namespace mps;
using namespace mps::device;
using namespace mps::device::test;

namespace {

using Processes = std::vector<GpuProcess>;

class ProcessFixture : public Fixture {
 public:
  Result<std::vector<DeviceProcesses>> processes(std::vector<std::string> uuids = {"GPU-A"}) {
    return run(source->processes(std::move(uuids)));
  }
  DeviceProcesses one(const std::string& uuid = "GPU-A") { return processes({uuid}).value().at(0); }
};

}  // namespace

TEST_CASE_FIXTURE(ProcessFixture, "who uses a device, and with how much memory") {
  write(
      "gpu GPU-A\ngpu GPU-B\n"
      "process GPU-A 12 memory=300\nprocess GPU-A 11 memory=2048 mps=on\n"
      "process GPU-A 13\nprocess GPU-B 20 memory=7 mps=on\n");
  const auto answers = processes({"GPU-B", "GPU-A"}).value();
  REQUIRE(answers.size() == 2);
  CHECK(answers[0] == DeviceProcesses{"GPU-B", {{20, 7, true}}, ""});
  CHECK(answers[1] ==
        DeviceProcesses{"GPU-A", {{11, 2048, true}, {12, 300, false}, {13, {}, false}}, ""});
}

TEST_CASE_FIXTURE(ProcessFixture, "who is in both lists is a client, with the larger of the two") {
  write("gpu GPU-A\nprocess GPU-A 11 memory=300\nprocess GPU-A 11 memory=200 mps=on\n");
  CHECK(one().processes == Processes{{11, 300, true}});
}

TEST_CASE_FIXTURE(ProcessFixture, "nobody is no error") {
  write("gpu GPU-A\n");
  CHECK(one() == DeviceProcesses{"GPU-A", {}, ""});
}

TEST_CASE_FIXTURE(ProcessFixture, "more of them than there is usually room for") {
  std::string text = "gpu GPU-A\n";
  for (int pid = 1; pid <= 600; ++pid) {
    text += "process GPU-A " + std::to_string(pid) + " memory=1\n";
  }
  write(text);
  const auto list = one().processes;
  REQUIRE(list.size() == 600);
  CHECK(list.back() == GpuProcess{600, 1, false});
}

TEST_CASE_FIXTURE(ProcessFixture, "a MIG device has its own") {
  write(
      "gpu GPU-A mig=on\nmig MIG-1\nmig MIG-2\n"
      "process MIG-1 11 memory=1\nprocess MIG-2 12 memory=2\n");
  CHECK(one("MIG-1").processes == Processes{{11, 1, false}});
  CHECK(one("MIG-2").processes == Processes{{12, 2, false}});
}

TEST_CASE_FIXTURE(ProcessFixture, "entries are as large as the driver writes them") {
  const std::string text =
      "gpu GPU-A\nprocess GPU-A 11 memory=1\nprocess GPU-A 12 memory=2\n"
      "process GPU-A 13\nprocess_size ";
  const Processes all{{11, 1, false}, {12, 2, false}, {13, {}, false}};
  for (const char* size : {"16", "24", "32"}) {
    CAPTURE(size);
    write(text + size + "\n");
    CHECK(one().processes == all);
  }
  write(text + "28\n");
  CHECK(one() == DeviceProcesses{"GPU-A",
                                 {},
                                 "nvmlDeviceGetComputeRunningProcesses_v3: its answer has a layout "
                                 "that is not known"});
}

TEST_CASE_FIXTURE(ProcessFixture, "an older library has older entry points, or fewer") {
  const std::string text =
      "gpu GPU-A\nprocess GPU-A 11 memory=1\nprocess GPU-A 12 memory=2 mps=on\n"
      "fail nvmlDeviceGetComputeRunningProcesses_v3 13\n";
  const Processes both{{11, 1, false}, {12, 2, true}};
  write(text);
  CHECK(one().processes == both);
  write(text + "fail nvmlDeviceGetComputeRunningProcesses_v2 13\n");
  CHECK(one().processes == both);
  write(text + "fail nvmlDeviceGetMPSComputeRunningProcesses_v3 3\n");
  CHECK(one() == DeviceProcesses{"GPU-A", {{11, 1, false}}, ""});
  write(text + "fail nvmlDeviceGetComputeRunningProcesses_v2 13\n" +
        "fail nvmlDeviceGetComputeRunningProcesses 13\n");
  CHECK(one().error == "nvmlDeviceGetComputeRunningProcesses: Function Not Found");
}

TEST_CASE_FIXTURE(ProcessFixture, "a device or a node that NVML says nothing about") {
  write("gpu GPU-A\ngpu GPU-B\nfail nvmlDeviceGetComputeRunningProcesses_v3 4 GPU-A\n");
  const auto answers = processes({"GPU-A", "GPU-B", "GPU-Z"}).value();
  CHECK(answers.at(0).error == "nvmlDeviceGetComputeRunningProcesses: Insufficient Permissions");
  CHECK(answers.at(1).error.empty());
  CHECK(answers.at(2).error == "nvmlDeviceGetHandleByUUID: Not Found");
  write("gpu GPU-A\nfail nvmlDeviceGetMPSComputeRunningProcesses_v3 999\n");
  CHECK(one().error == "nvmlDeviceGetMPSComputeRunningProcesses: Unknown Error");
  write("gpu GPU-A\nfail nvmlInit_v2 9\n");
  CHECK(processes().error().message == "nvmlInit: Driver Not Loaded");
  source = make_declared_source({{.uuid = "GPU-A"}});
  CHECK(processes().error().message ==
        "devices are declared in the settings: who uses them is not known without NVML");
}
