// Copies for the API and the audit.
#include <algorithm>
#include <tuple>

#include "share/ledger.h"

namespace mps::share {

Use Ledger::use_of(const Sums& sums) {
  return {sums.clients, static_cast<double>(sums.tenths) / 10,
          static_cast<double>(sums.limited_tenths) / 10, sums.memory};
}

std::vector<AdmissionView> Ledger::admissions(std::size_t limit) const {
  std::vector<AdmissionView> views;
  views.reserve(std::min(limit, admissions_.size()));
  for (const auto& [id, entry] : admissions_) {
    if (views.size() >= limit) break;
    views.push_back({entry.admission, entry.slots});
  }
  return views;
}

std::vector<SlotView> Ledger::slots(std::size_t limit) const {
  std::vector<SlotView> views;
  views.reserve(std::min(limit, slots_.size()));
  for (const auto& [id, entry] : slots_) {
    if (views.size() >= limit) break;
    views.push_back({entry.slot, entry.connections});
  }
  return views;
}

std::vector<WaitingView> Ledger::waiting(std::size_t limit) const {
  std::vector<WaitingView> views;
  views.reserve(std::min(limit, waiting_.size()));
  for (const auto& [deadline, id] : deadlines_) {
    if (views.size() >= limit) break;
    const auto& asking = waiting_.at(id);
    const auto& kept = asking.line->instance->device->kept;
    views.push_back(
        {asking.request, explain_waiting(asking), asking.since, kept && kept->request == id});
  }
  return views;
}

std::vector<NamespaceView> Ledger::namespaces() const {
  std::vector<NamespaceView> views;
  for (const auto& [uuid, device] : devices_) {
    for (const auto& [subject, account] : device.accounts) {
      views.push_back({subject, uuid, use_of(account.sums), account.lines});
    }
  }
  std::sort(views.begin(), views.end(), [](const NamespaceView& a, const NamespaceView& b) {
    return std::tie(a.device, a.subject) < std::tie(b.device, b.subject);
  });
  return views;
}

std::vector<DeviceView> Ledger::devices() const {
  std::vector<DeviceView> views;
  for (const auto& [uuid, device] : devices_) {
    views.push_back({uuid, device.name, use_of(device.sums), device.accounts.size(),
                     device.kept ? std::optional(device.kept->request) : std::nullopt});
  }
  std::sort(views.begin(), views.end(),
            [](const DeviceView& a, const DeviceView& b) { return a.device < b.device; });
  return views;
}

std::optional<SlotId> Ledger::slot_of(std::string_view instance, const Process& process) const {
  const auto found = slots_of_.find(process);
  if (found == slots_of_.end()) return std::nullopt;
  for (const auto id : found->second) {
    if (slots_.at(id).slot.instance == instance) return id;
  }
  return std::nullopt;
}

std::optional<Door> Ledger::door_of(const std::string& instance) const {
  const auto found = instances_.find(instance);
  if (found == instances_.end()) return std::nullopt;
  return found->second.facts.door;
}

std::size_t Ledger::clients_of(std::string_view share, std::string_view container) const {
  const auto found = admission_of_.find(admission_key(share, container));
  return found == admission_of_.end() ? 0 : admissions_.at(found->second).slots;
}

std::vector<Process> Ledger::processes_of(std::string_view share, std::string_view container,
                                          std::size_t limit) const {
  std::vector<Process> processes;
  const auto found = admission_of_.find(admission_key(share, container));
  if (found == admission_of_.end()) return processes;
  for (const auto& [id, entry] : slots_) {
    if (processes.size() >= limit) break;
    if (entry.slot.admission == found->second) processes.push_back(entry.slot.process);
  }
  return processes;
}

std::optional<Admission> Ledger::admission_of(const Process& process) const {
  const auto found = slots_of_.find(process);
  if (found == slots_of_.end()) return std::nullopt;
  for (const auto id : found->second) {
    const auto* admission = slots_.at(id).admission;
    if (admission != nullptr) return admission->admission;
  }
  return std::nullopt;
}

std::vector<SlotId> Ledger::slots_of_share(std::string_view share) const {
  std::vector<SlotId> ids;
  for (const auto& [id, entry] : slots_) {
    if (entry.admission != nullptr && entry.admission->admission.share == share) ids.push_back(id);
  }
  return ids;
}

bool Ledger::has_slot(std::string_view share, const Process& process) const {
  const auto found = slots_of_.find(process);
  return found != slots_of_.end() &&
         std::any_of(found->second.begin(), found->second.end(), [&](SlotId id) {
           const auto* admission = slots_.at(id).admission;
           return admission != nullptr && admission->admission.share == share;
         });
}

}  // namespace mps::share
