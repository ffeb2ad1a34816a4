#include "api/admissions.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>
#include <variant>

#include "policy/effective.h"

namespace mps::api {

namespace {

constexpr auto k_all = std::numeric_limits<std::size_t>::max();

// Returns how many were too many.
template <typename T>
std::size_t cut(std::vector<T>& list, std::size_t most) {
  const auto too_many = list.size() - std::min(list.size(), most);
  list.erase(list.end() - static_cast<std::ptrdiff_t>(too_many), list.end());
  return too_many;
}

// An instance that is gone may have clients left: its id says the domain, unless it was shortened.
void locate(PlaceUse& use, const std::vector<instance::Snapshot>& instances) {
  const auto found = std::find_if(instances.begin(), instances.end(), [&use](const auto& instance) {
    return instance.id == use.instance;
  });
  if (found != instances.end()) {
    use.device = found->device;
    use.domain = found->domain;
  } else if (const auto dot = use.instance.find('.'); dot != std::string::npos) {
    use.domain = use.instance.substr(dot + 1);
  }
}

std::vector<PlaceUse> places_of(const AdmissionStatus& status,
                                const std::vector<instance::Snapshot>& instances) {
  std::map<std::pair<std::string, std::string>, PlaceUse> places;
  for (const auto& [admission, slots] : status.admissions) {
    auto& use = places[{admission.instance, admission.subject}];
    use.device = admission.device;
    ++use.admissions;
    use.clients += slots;
  }
  for (const auto& view : status.waiting) {
    ++places[{view.request.instance, view.request.subject}].waiting;
  }
  std::vector<PlaceUse> list;
  for (auto& [key, use] : places) {
    std::tie(use.instance, use.subject) = key;
    locate(use, instances);
    list.push_back(std::move(use));
  }
  return list;
}

const policy::DeviceFacts* facts_of(const AdmissionSources& sources, const std::string& uuid) {
  const auto found = std::find_if(sources.devices.begin(), sources.devices.end(),
                                  [&uuid](const auto& facts) { return facts.uuid == uuid; });
  return found == sources.devices.end() ? nullptr : &*found;
}

std::optional<policy::Quota> quota_of(const AdmissionSources& sources, const std::string& subject,
                                      const std::string& device) {
  const auto* facts = facts_of(sources, device);
  const auto found = policy::find_policy(sources.policies, subject);
  const auto* policy = std::get_if<const policy::Policy*>(&found);
  if (facts == nullptr || policy == nullptr || !policy::names(**policy, *facts)) {
    return std::nullopt;
  }
  return (*policy)->quota;
}

std::vector<NamespaceUse> namespaces_of(const AdmissionSources& sources,
                                        const std::vector<PlaceUse>& places) {
  std::map<std::pair<std::string, std::string>, std::size_t> waiting;
  for (const auto& place : places) waiting[{place.device, place.subject}] += place.waiting;
  std::vector<NamespaceUse> list;
  for (auto& view : sources.ledger.namespaces()) {
    NamespaceUse use{std::move(view.subject), std::move(view.device), view.use};
    use.waiting = waiting[{use.device, use.subject}];
    use.quota = quota_of(sources, use.subject, use.device);
    list.push_back(std::move(use));
  }
  return list;
}

std::vector<DeviceUse> devices_of(const AdmissionSources& sources,
                                  const std::vector<NamespaceUse>& namespaces) {
  std::vector<DeviceUse> list;
  for (auto& view : sources.ledger.devices()) {
    DeviceUse use{std::move(view.device), std::move(view.name), view.use, view.use.clients, 0, {}};
    for (const auto& one : namespaces) {
      if (one.device == use.device) use.adopted -= std::min(use.adopted, one.use.clients);
    }
    use.thread_limit = std::round(sources.overcommit_threads * 1000) / 10;
    const auto* facts = facts_of(sources, use.device);
    if (facts != nullptr && facts->memory_mebibytes != 0) {
      // As the ledger rounds.
      use.memory_limit = static_cast<std::uint64_t>(std::floor(
          static_cast<double>(facts->memory_mebibytes) * sources.overcommit_memory + 1e-6));
    }
    list.push_back(std::move(use));
  }
  return list;
}

}  // namespace

AdmissionStatus admission_status(const AdmissionSources& sources, const AdmissionBounds& bounds) {
  AdmissionStatus status;
  status.gated = true;
  status.now = sources.now;
  status.time = sources.time;
  status.admissions = sources.ledger.admissions(k_all);
  status.slots = sources.ledger.slots(bounds.slots);
  status.waiting = sources.ledger.waiting(k_all);
  status.places = places_of(status, sources.instances);
  status.namespaces = namespaces_of(sources, status.places);
  status.devices = devices_of(sources, status.namespaces);
  status.refused = sources.refused;
  status.admissions_left_out = cut(status.admissions, bounds.admissions);
  status.slots_left_out = sources.ledger.slot_count() - status.slots.size();
  status.waiting_left_out = cut(status.waiting, bounds.waiting);
  return status;
}

}  // namespace mps::api
