#include "app/wanted.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/text.h"
#include "policy/effective.h"
#include "policy/subject.h"

namespace mps::app {
namespace {

constexpr unsigned k_clients = 48;         // of one server on one device
constexpr unsigned k_clients_new = 60;     // from CUDA 13.1
constexpr unsigned k_driver_of_new = 590;  // the branch that CUDA 13.1 came with

policy::DeviceFacts facts_of(const device::Device& device) {
  policy::DeviceFacts facts;
  facts.name = device.short_name();
  facts.uuid = device.uuid;
  facts.index = device.index;
  if (device.kind == device::Kind::mig) facts.mig_index = device.mig_index;
  facts.memory_mebibytes = device.memory_mebibytes;
  facts.sm_count = device.sm_count;
  return facts;
}

// None where the driver is not known.
std::optional<unsigned> client_limit(const device::Inventory& inventory) {
  const auto& version = inventory.driver_version;
  const auto branch = parse_number<unsigned>(version.substr(0, version.find('.')));
  if (!branch) return std::nullopt;
  return *branch >= k_driver_of_new ? k_clients_new : k_clients;
}

// On a MIG device in proportion to its part of the GPU; rounded up, as the exact rule is not known
// and a policy should not be refused for it.
unsigned client_limit_on(const device::Inventory& inventory, const device::Device& device,
                         unsigned whole) {
  if (device.kind != device::Kind::mig || device.sm_count == 0) return whole;
  const auto parent = std::find_if(
      inventory.devices.begin(), inventory.devices.end(), [&device](const device::Device& other) {
        return other.kind == device::Kind::gpu && other.index == device.index;
      });
  if (parent == inventory.devices.end() || parent->sm_count <= device.sm_count) return whole;
  const double part = static_cast<double>(device.sm_count) / parent->sm_count;
  return static_cast<unsigned>(std::ceil(part * whole));
}

WantedInstance wanted(const device::Device& device, const std::string& domain,
                      const policy::Ceiling& ceiling) {
  WantedInstance instance;
  instance.id = policy::instance_id(device.short_name(), domain);
  instance.device = device.uuid;
  instance.domain = domain;
  instance.limits.active_thread_percentage = ceiling.active_thread_percentage.value;
  instance.limits.pinned_memory_mebibytes = ceiling.pinned_memory_mebibytes.value;
  instance.limits.client_priority =
      ceiling.priority.value == policy::Priority::below_normal ? 1 : 0;
  instance.percentage_from = policy::describe(ceiling.active_thread_percentage.origin);
  instance.memory_from = policy::describe(ceiling.pinned_memory_mebibytes.origin);
  return instance;
}

void raise(WantedInstance& instance, const share::Share& share) {
  auto& limits = instance.limits;
  const auto& grant = share.grant;
  if (grant.active_thread_percentage > limits.active_thread_percentage) {
    limits.active_thread_percentage = grant.active_thread_percentage;
    instance.percentage_from = "share " + share.id;
  }
  if (!limits.pinned_memory_mebibytes) return;
  if (!grant.pinned_memory_mebibytes ||
      *grant.pinned_memory_mebibytes > *limits.pinned_memory_mebibytes) {
    limits.pinned_memory_mebibytes = grant.pinned_memory_mebibytes;
    instance.memory_from = "share " + share.id;
  }
}

}  // namespace

std::vector<policy::DeviceFacts> device_facts(const device::Inventory& inventory, bool exclusive) {
  std::vector<policy::DeviceFacts> list;
  const auto clients = client_limit(inventory);
  for (const auto& device : inventory.devices) {
    if (!device.not_capable.empty()) continue;
    auto facts = facts_of(device);
    facts.exclusive = (exclusive && device.kind == device::Kind::gpu) ||
                      device.compute_mode == device::ComputeMode::exclusive_process;
    if (clients) facts.max_clients = client_limit_on(inventory, device, *clients);
    list.push_back(std::move(facts));
  }
  return list;
}

std::string visible_devices(const policy::DeviceFacts& device, std::size_t known) {
  const bool mig = device.mig_index || device.uuid.starts_with("MIG-");
  return mig || known > 1 ? device.uuid : std::string();
}

std::vector<WantedInstance> wanted_instances(const device::Inventory& inventory,
                                             const policy::Generation& policies,
                                             const instance::Limits& otherwise,
                                             const admission::Shares& shares) {
  std::vector<WantedInstance> list;
  for (const auto& device : inventory.devices) {
    if (!device.not_capable.empty()) continue;
    const auto facts = facts_of(device);
    if (const auto ceiling = policy::shared_ceiling(policies, facts)) {
      list.push_back(wanted(device, "shared", *ceiling));
    } else {
      list.push_back({device.short_name() + ".shared", device.uuid, "shared", otherwise,
                      "the settings (limits)", "the settings (limits)"});
    }
    for (const auto* policy : policy::dedicated_on(policies, facts)) {
      list.push_back(wanted(device, policy::dedicated_domain(policy->subject),
                            policy::dedicated_ceiling(*policy)));
    }
  }
  for (auto& instance : list) {
    for (const auto& [number, share] : shares) {
      if (share.instance == instance.id) raise(instance, share);
    }
  }
  return list;
}

}  // namespace mps::app
