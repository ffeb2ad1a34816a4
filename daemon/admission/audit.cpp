#include "admission/audit.h"

#include <algorithm>
#include <array>
#include <utility>
#include <variant>

#include "base/text.h"
#include "policy/effective.h"

namespace mps::admission {

namespace {

constexpr std::array k_kinds{FindingKind::client_without_slot, FindingKind::client_over_memory,
                             FindingKind::outside_mps};

constexpr unsigned k_missed_when_over = 2;

using Pids = std::set<pid_t>;

Finding without_slot(const AuditedInstance& instance, const AuditedClient& client) {
  Finding finding;
  finding.kind = FindingKind::client_without_slot;
  finding.instance = instance.id;
  finding.device = instance.device;
  finding.process = client.process;
  finding.name = client.name;
  finding.uid = client.uid;
  finding.adopted = client.adopted;
  return finding;
}

void find_without_slot(const AuditedInstance& instance, std::vector<Finding>& found) {
  if (!instance.gated) return;
  for (const auto& client : instance.clients) {
    // Without a start time it is not known which process that was.
    if (client.has_slot || client.process.start_ticks == 0) continue;
    found.push_back(without_slot(instance, client));
  }
}

// What a process may have on a device, by all its slots there.
struct Granted {
  const AuditedSlot* first = nullptr;
  std::uint64_t mebibytes = 0;
  bool limited = true;
};

using GrantedByProcess = std::map<std::pair<pid_t, std::uint64_t>, Granted>;

GrantedByProcess granted_on(const std::string& device, const std::vector<AuditedSlot>& slots) {
  GrantedByProcess granted;
  for (const auto& one : slots) {
    if (one.slot.device != device) continue;
    auto& sum = granted[{one.slot.process.pid, one.slot.process.start_ticks}];
    if (sum.first == nullptr) sum.first = &one;
    const auto& limit = one.slot.grant.pinned_memory_mebibytes;
    // Of an adopted one nobody knows what it was granted.
    sum.limited = sum.limited && limit.has_value() && one.slot.admission != 0;
    sum.mebibytes += limit.value_or(0);
  }
  return granted;
}

void find_over_memory(const AuditedDevice& device, const std::vector<AuditedSlot>& slots,
                      std::vector<Finding>& found) {
  if (!device.known) return;
  const auto granted = granted_on(device.uuid, slots);
  for (const auto& process : device.processes) {
    const auto sum = granted.find({process.process.pid, process.process.start_ticks});
    if (sum == granted.end() || !sum->second.limited) continue;
    const auto used = process.memory_mebibytes.value_or(0);
    const auto limit = sum->second.mebibytes;
    if (used <= limit + tolerated_memory(limit)) continue;
    const auto& slot = *sum->second.first;
    found.push_back({.kind = FindingKind::client_over_memory,
                     .instance = slot.slot.instance,
                     .device = device.uuid,
                     .process = process.process,
                     .name = process.name,
                     .uid = process.uid,
                     .subject = slot.subject,
                     .description = slot.description,
                     .used = used,
                     .granted = limit});
  }
}

void find_outside_mps(const AuditedDevice& device, const std::vector<AuditedInstance>& instances,
                      std::vector<Finding>& found) {
  if (!device.known) return;
  Pids clients;
  const AuditedInstance* serving = nullptr;
  for (const auto& instance : instances) {
    if (instance.device != device.uuid) continue;
    // Its clients may not be listed yet, or still be ending.
    if (!instance.settled) return;
    if (instance.ready && serving == nullptr) serving = &instance;
    for (const auto& client : instance.clients) clients.insert(client.process.pid);
  }
  if (serving == nullptr) return;
  for (const auto& process : device.processes) {
    if (process.mps_client || process.is_ours || clients.contains(process.process.pid)) continue;
    found.push_back({.kind = FindingKind::outside_mps,
                     .instance = serving->id,
                     .device = device.uuid,
                     .process = process.process,
                     .name = process.name,
                     .uid = process.uid});
  }
}

// Whether this look could have seen it.
bool could_be_seen(const Finding& finding, const AuditInput& input) {
  const bool settled =
      std::all_of(input.instances.begin(), input.instances.end(), [&finding](const auto& instance) {
        return instance.device != finding.device || instance.settled;
      });
  if (finding.kind == FindingKind::client_without_slot) return settled;
  const bool known = std::any_of(
      input.devices.begin(), input.devices.end(),
      [&finding](const auto& device) { return device.uuid == finding.device && device.known; });
  return known && (settled || finding.kind != FindingKind::outside_mps);
}

}  // namespace

const char* to_string(FindingKind kind) {
  switch (kind) {
    case FindingKind::client_without_slot:
      return "client_without_slot";
    case FindingKind::client_over_memory:
      return "client_over_memory";
    case FindingKind::outside_mps:
      return "outside_mps";
  }
  return "";
}

std::uint64_t tolerated_memory(std::uint64_t granted_mebibytes) {
  return std::max(k_memory_tolerance, granted_mebibytes / 10);
}

std::string why_unusable(const device::DeviceProcesses& told, const std::set<pid_t>& ours,
                         bool node_pids) {
  if (!told.error.empty()) return told.error;
  bool any_of_ours = false;
  for (const auto& process : told.processes) {
    if (process.pid == 0) {
      return "NVML does not tell pids: the supervisor has to be in the node's pid namespace "
             "(hostPID)";
    }
    any_of_ours = any_of_ours || ours.contains(process.pid);
  }
  if (node_pids || any_of_ours) return "";
  return "NVML's pids may be others here: the supervisor has to be in the node's pid namespace "
         "(hostPID)";
}

std::string describe_process(const Finding& finding) {
  auto text = "process " + std::to_string(finding.process.pid) + " (" + printable(finding.name) +
              ") of uid " + std::to_string(finding.uid);
  if (finding.subject.empty()) return text;
  text += ", " + finding.subject + ",";
  return finding.description.empty() ? text : text + " " + finding.description + ",";
}

std::string describe(const Finding& finding) {
  switch (finding.kind) {
    case FindingKind::client_without_slot:
      return "is a client of " + finding.instance + " that no gate has let in" +
             (finding.adopted ? "; it was there before this supervisor, and is left alone" : "");
    case FindingKind::client_over_memory:
      return "has " + std::to_string(finding.used) + "Mi of the device's memory, and may have " +
             std::to_string(finding.granted) + "Mi";
    case FindingKind::outside_mps:
      return "uses the device of " + finding.instance + " without MPS, and without limits";
  }
  return "";
}

bool to_be_ended(const Finding& finding, const policy::Generation& policies) {
  if (finding.kind == FindingKind::outside_mps || finding.adopted || finding.subject.empty()) {
    return false;
  }
  const auto policy = policy::find_policy(policies, finding.subject);
  const auto* found = std::get_if<const policy::Policy*>(&policy);
  return found != nullptr && (*found)->terminate_violators;
}

// ---- what lasts ----

Audit::Key Audit::key_of(const Finding& finding) {
  const bool of_device = finding.kind == FindingKind::outside_mps;
  return {finding.kind, of_device ? finding.device : finding.instance, finding.process.pid,
          finding.process.start_ticks};
}

void Audit::note(Finding finding, News& news) {
  const auto key = key_of(finding);
  auto place = kept_.find(key);
  if (place == kept_.end()) {
    auto& remembered = remembered_[finding.device][finding.kind];
    if (remembered >= k_most) return;
    ++remembered;
    kept_.emplace(key, Kept{.finding = std::move(finding)});
    return;
  }
  auto& kept = place->second;
  kept.missed = 0;
  if (finding.subject.empty()) {
    finding.subject = kept.finding.subject;
    finding.description = kept.finding.description;
  }
  kept.finding = std::move(finding);
  if (kept.begun) return;
  kept.begun = true;
  auto& count = counts_[kept.finding.device][kept.finding.kind];
  ++count.standing;
  ++count.found;
  news.begun.push_back(kept.finding);
}

// All that this look did not note have missed it, or more.
void Audit::note_missing(const AuditInput& input, News& news) {
  for (auto place = kept_.begin(); place != kept_.end();) {
    auto& kept = place->second;
    const bool blind = kept.missed > 0 && !could_be_seen(kept.finding, input);
    if (blind) --kept.missed;
    if (blind || kept.missed == 0 || (kept.begun && kept.missed < k_missed_when_over)) {
      ++place;
      continue;
    }
    --remembered_[kept.finding.device][kept.finding.kind];
    if (kept.begun) {
      --counts_[kept.finding.device][kept.finding.kind].standing;
      news.over.push_back(std::move(kept.finding));
    }
    place = kept_.erase(place);
  }
}

Audit::News Audit::look(const AuditInput& input) {
  std::vector<Finding> found;
  for (const auto& instance : input.instances) find_without_slot(instance, found);
  for (const auto& device : input.devices) {
    for (const auto kind : k_kinds) counts_[device.uuid].try_emplace(kind);
    find_over_memory(device, input.slots, found);
    find_outside_mps(device, input.instances, found);
  }
  News news;
  for (auto& [key, kept] : kept_) ++kept.missed;
  for (auto& finding : found) note(std::move(finding), news);
  note_missing(input, news);
  return news;
}

void Audit::know(const Finding& finding) {
  const auto kept = kept_.find(key_of(finding));
  if (kept == kept_.end()) return;
  kept->second.finding.subject = finding.subject;
  kept->second.finding.description = finding.description;
}

std::vector<Finding> Audit::to_end(const policy::Generation& policies, TimePoint now) {
  std::vector<Finding> ends;
  for (auto& [key, kept] : kept_) {
    if (!kept.begun || kept.missed > 0 || !to_be_ended(kept.finding, policies)) continue;
    if (kept.asked && now - *kept.asked < k_ask_again) continue;
    kept.asked = now;
    ends.push_back(kept.finding);
  }
  return ends;
}

}  // namespace mps::admission
