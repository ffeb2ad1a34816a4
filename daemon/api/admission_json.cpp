#include "api/admission_json.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "api/policy_json.h"
#include "base/text.h"

namespace mps::api {

namespace {

using nlohmann::json;

json limits_to_json(const share::Grant& grant) {
  return {{"activeThreadPercentage", grant.active_thread_percentage},
          {"pinnedDeviceMemoryMiB",
           grant.pinned_memory_mebibytes ? json(*grant.pinned_memory_mebibytes) : json(nullptr)}};
}

// The ledger's name of a share has its instance in front: "gpu0.shared/open".
std::string share_name(const std::string& share, const std::string& instance) {
  return share.starts_with(instance + "/") ? share.substr(instance.size() + 1) : share;
}

std::string system_time(const AdmissionStatus& status, share::TimePoint at) {
  return format_time(status.time + std::chrono::duration_cast<std::chrono::system_clock::duration>(
                                       at - status.now));
}

bool is_of(const std::string& subject, std::string_view wanted) {
  return wanted.empty() || wanted == subject;
}

json use_of_namespace(const NamespaceUse& one) {
  return {{"namespace", one.subject},
          {"device", one.device},
          {"clients", one.use.clients},
          {"activeThreadPercentage", one.use.active_thread_percentage},
          {"pinnedDeviceMemoryMiB", one.use.pinned_memory_mebibytes},
          {"waiting", one.waiting},
          {"quota", one.quota ? to_json(*one.quota) : json(nullptr)}};
}

json use_of_device(const DeviceUse& one) {
  return {
      {"device", one.device},
      {"id", one.name.empty() ? json(nullptr) : json(one.name)},
      {"clients", one.use.clients},
      {"adopted", one.adopted},
      {"activeThreadPercentage", one.use.limited_percentage},
      {"pinnedDeviceMemoryMiB", one.use.pinned_memory_mebibytes},
      {"limits",
       {{"activeThreadPercentage", one.thread_limit},
        {"pinnedDeviceMemoryMiB", one.memory_limit ? json(*one.memory_limit) : json(nullptr)}}}};
}

}  // namespace

json admissions_to_json(const AdmissionStatus& status, std::string_view subject) {
  std::map<share::AdmissionId, json> pids;
  for (const auto& view : status.slots) {
    pids.try_emplace(view.slot.admission, json::array())
        .first->second.push_back(view.slot.process.pid);
  }
  auto list = json::array();
  for (const auto& [admission, slots] : status.admissions) {
    if (!is_of(admission.subject, subject)) continue;
    list.push_back({{"id", admission.id},
                    {"instance", admission.instance},
                    {"device", admission.device},
                    {"share", share_name(admission.share, admission.instance)},
                    {"namespace", admission.subject},
                    {"container", admission.container},
                    {"description", admission.description},
                    {"limits", limits_to_json(admission.grant)},
                    {"clients", slots},
                    {"pids", pids.try_emplace(admission.id, json::array()).first->second}});
  }
  return list;
}

json waiting_to_json(const AdmissionStatus& status, std::string_view subject) {
  auto list = json::array();
  for (const auto& [request, why, since, room_is_kept] : status.waiting) {
    if (!is_of(request.subject, subject)) continue;
    list.push_back({{"instance", request.instance},
                    {"share", share_name(request.share, request.instance)},
                    {"namespace", request.subject},
                    {"container", request.container},
                    {"description", request.description},
                    {"pid", request.process.pid},
                    {"uid", request.uid},
                    {"limits", limits_to_json(request.grant)},
                    {"since", system_time(status, since)},
                    {"deadline", system_time(status, request.deadline)},
                    {"code", share::to_string(why.code)},
                    {"message", why.sentence},
                    {"roomIsKept", room_is_kept}});
  }
  return list;
}

json use_to_json(const AdmissionStatus& status) {
  auto namespaces = json::array();
  for (const auto& one : status.namespaces) namespaces.push_back(use_of_namespace(one));
  auto devices = json::array();
  for (const auto& one : status.devices) devices.push_back(use_of_device(one));
  auto refused = json::object();
  for (const auto& [code, times] : status.refused) refused[share::to_string(code)] = times;
  return {{"gated", status.gated},
          {"admissions", status.admissions.size() + status.admissions_left_out},
          {"clients", status.slots.size() + status.slots_left_out},
          {"waiting", status.waiting.size() + status.waiting_left_out},
          {"leftOut",
           {{"admissions", status.admissions_left_out},
            {"clients", status.slots_left_out},
            {"waiting", status.waiting_left_out}}},
          {"namespaces", std::move(namespaces)},
          {"devices", std::move(devices)},
          {"refused", std::move(refused)}};
}

SlotsByProcess::SlotsByProcess(const AdmissionStatus& status) {
  for (const auto& [slot, connections] : status.slots) {
    slots_[{slot.instance, slot.process.pid, slot.process.start_ticks}] = &slot;
  }
  for (const auto& [admission, slots] : status.admissions) admissions_[admission.id] = &admission;
}

void SlotsByProcess::add_to(json& client, const std::string& instance,
                            const share::Process& process) const {
  for (const char* name :
       {"admission", "namespace", "container", "description", "share", "limits"}) {
    client[name] = nullptr;
  }
  const auto slot = slots_.find({instance, process.pid, process.start_ticks});
  if (slot == slots_.end()) return;
  const auto found = admissions_.find(slot->second->admission);
  if (found == admissions_.end()) return;
  const auto& admission = *found->second;
  client["admission"] = admission.id;
  client["namespace"] = admission.subject;
  client["container"] = admission.container;
  client["description"] = admission.description;
  client["share"] = share_name(admission.share, admission.instance);
  client["limits"] = limits_to_json(slot->second->grant);
}

}  // namespace mps::api
