#include "app/wanted.h"

#include <doctest/doctest.h>

using namespace mps;
using namespace mps::app;

namespace {

device::Device gpu(unsigned index) {
  device::Device device;
  device.uuid = "GPU-" + std::to_string(index);
  device.index = index;
  device.memory_mebibytes = 80 * 1024;
  device.sm_count = 132;
  return device;
}

device::Device mig(unsigned index, unsigned sms) {
  auto device = gpu(0);
  device.uuid = "MIG-" + std::to_string(index);
  device.kind = device::Kind::mig;
  device.mig_index = index;
  device.sm_count = sms;
  return device;
}

std::string policy_text(const std::string& subject, const std::string& spec) {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"" + subject +
         "\"}\nspec: {" + spec + "}\n";
}

std::shared_ptr<const policy::Generation> generation(std::vector<policy::SourceFile> files) {
  auto made = policy::next_generation({}, files, {});
  for (const auto& file : made->files) REQUIRE(file.errors.empty());
  return made;
}

const instance::Limits k_settings{50, 10240, 0};

}  // namespace

TEST_CASE("without policies each device has a shared instance with the settings' limits") {
  const device::Inventory inventory{{gpu(0), gpu(1)}, "", ""};
  const auto wanted = wanted_instances(inventory, {}, k_settings);
  REQUIRE(wanted.size() == 2);
  CHECK(wanted[0] == WantedInstance{"gpu0.shared", "GPU-0", "shared", k_settings,
                                    "the settings (limits)", "the settings (limits)"});
  CHECK(wanted[1].id == "gpu1.shared");
}

TEST_CASE("clients are to see their device by its UUID where a number could be another's") {
  const auto of = [](const device::Device& device, std::size_t known) {
    return visible_devices(device_facts({{device}, "", ""}, false).at(0), known);
  };
  CHECK(of(gpu(0), 1).empty());
  CHECK(of(gpu(0), 2) == "GPU-0");
  CHECK(of(mig(3, 16), 1) == "MIG-3");
  policy::DeviceFacts gone;  // not in the inventory any more
  gone.uuid = "MIG-4";
  CHECK(visible_devices(gone, 1) == "MIG-4");
}

TEST_CASE("a shared instance gets the largest limits, and says whose they are") {
  const device::Inventory inventory{{gpu(0), gpu(1)}, "", ""};
  const auto policies = generation(
      {{"a.yaml",
        policy_text("team-a", "client: {activeThreadPercentage: 25, pinnedDeviceMemory: 10Gi}"),
        ""},
       {"b.yaml",
        policy_text("team-b",
                    "devices: [\"0\"], client: {activeThreadPercentage: 40, pinnedDeviceMemory: "
                    "4Gi}"),
        ""}});
  const auto wanted = wanted_instances(inventory, *policies, k_settings);
  REQUIRE(wanted.size() == 2);
  CHECK(wanted[0].limits == instance::Limits{40, 10240, 0});
  CHECK(wanted[0].percentage_from == "b.yaml:4:57 (spec.client)");
  CHECK(wanted[0].memory_from == "a.yaml:4:65 (spec.client)");
  CHECK(wanted[1].limits == instance::Limits{25, 10240, 0});
}

TEST_CASE("no ceiling says because of whom") {
  const device::Inventory inventory{{gpu(0)}, "", ""};
  const auto policies =
      generation({{"a.yaml", policy_text("team-a", "client: {pinnedDeviceMemory: 10Gi}"), ""},
                  {"default.yaml", policy_text("*", ""), ""}});
  const auto wanted = wanted_instances(inventory, *policies, k_settings);
  REQUIRE(wanted.size() == 1);
  CHECK(wanted[0].limits == instance::Limits{100, std::nullopt, 0});
  CHECK(wanted[0].memory_from == "default.yaml:3:23 (gives none)");
}

TEST_CASE("a namespace of its own has an instance of its own on each of its devices") {
  const device::Inventory inventory{{gpu(0), gpu(1)}, "", ""};
  const auto policies = generation(
      {{"a.yaml",
        policy_text("team-a",
                    "devices: [GPU-1], isolation: dedicated, client: {activeThreadPercentage: 30, "
                    "priority: below-normal}"),
        ""}});
  const auto wanted = wanted_instances(inventory, *policies, k_settings);
  REQUIRE(wanted.size() == 3);
  CHECK(wanted[0].limits == k_settings);
  CHECK(wanted[1].limits == k_settings);  // its limits are not those of the shared one
  CHECK(wanted[2].id == "gpu1.ns-team-a");
  CHECK(wanted[2].domain == "ns-team-a");
  CHECK(wanted[2].limits == instance::Limits{30, std::nullopt, 1});
}

TEST_CASE("a device that MPS cannot run on has no instance") {
  auto parent = gpu(0);
  parent.not_capable = "MIG is enabled";
  const device::Inventory inventory{{parent, mig(0, 16)}, "", ""};
  const auto wanted = wanted_instances(inventory, {}, k_settings);
  REQUIRE(wanted.size() == 1);
  CHECK(wanted[0].id == "gpu0-mig0.shared");
}

TEST_CASE("how many clients MPS allows follows the driver, and on MIG the part of the GPU") {
  auto parent = gpu(0);
  parent.not_capable = "MIG is enabled";
  struct Row {
    std::string driver;
    std::optional<unsigned> gpu, mig;
  };
  for (const auto& row : {Row{"535.261.03", 48, 6}, Row{"580.65.06", 48, 6},
                          Row{"590.44.01", 60, 8}, Row{"", std::nullopt, std::nullopt}}) {
    CAPTURE(row.driver);
    const device::Inventory inventory{{parent, mig(0, 16), gpu(1)}, row.driver, ""};
    const auto facts = device_facts(inventory, false);
    REQUIRE(facts.size() == 2);
    CHECK(facts[0].max_clients == row.mig);
    CHECK(facts[0].mig_index == 0U);
    CHECK(facts[1].max_clients == row.gpu);
  }
}

TEST_CASE("exclusive is a device that is, or is meant to be; never a MIG device") {
  auto exclusive = gpu(1);
  exclusive.compute_mode = device::ComputeMode::exclusive_process;
  const device::Inventory inventory{{gpu(0), exclusive, mig(2, 16)}, "", ""};
  const auto as_they_are = device_facts(inventory, false);
  CHECK_FALSE(as_they_are[0].exclusive);
  CHECK(as_they_are[1].exclusive);
  const auto meant = device_facts(inventory, true);
  CHECK(meant[0].exclusive);
  CHECK_FALSE(meant[2].exclusive);
}

TEST_CASE("a share raises what its instance may give, and says so") {
  const device::Inventory inventory{{gpu(0), gpu(1)}, "", ""};
  instance::Limits otherwise{25, 1024, 0};
  admission::Shares shares;
  shares[1] = {1, "s1", "gpu0.shared", "", {50, 512}};
  shares[2] = {2, "s2", "gpu0.shared", "", {40, 2048}};
  shares[3] = {3, "s3", "gpu7.shared", "", {100, {}}};
  auto wanted = wanted_instances(inventory, {}, otherwise, shares);
  REQUIRE(wanted.size() == 2);
  CHECK(wanted[0].limits == instance::Limits{50, 2048, 0});
  CHECK(wanted[0].percentage_from == "share s1");
  CHECK(wanted[0].memory_from == "share s2");
  CHECK(wanted[1].limits == otherwise);
  CHECK(wanted[1].memory_from == "the settings (limits)");
  shares[4] = {4, "s4", "gpu1.shared", "", {10, {}}};
  wanted = wanted_instances(inventory, {}, otherwise, shares);
  CHECK(wanted[1].limits == instance::Limits{25, std::nullopt, 0});
  CHECK(wanted[1].memory_from == "share s4");
}
