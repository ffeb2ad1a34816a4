#include "api/policy_json.h"

#include <algorithm>
#include <set>

#include "base/text.h"

namespace mps::api {

namespace {

using nlohmann::json;
using policy::File;
using policy::Policy;

template <typename T>
json value_or_null(const std::optional<policy::Given<T>>& given) {
  return given ? json(given->value) : json(nullptr);
}

json client_to_json(const policy::Client& client) {
  return {{"activeThreadPercentage", value_or_null(client.active_thread_percentage)},
          {"pinnedDeviceMemoryMiB", value_or_null(client.pinned_memory_mebibytes)},
          {"priority",
           client.priority ? json(policy::to_string(client.priority->value)) : json(nullptr)}};
}

json devices_to_json(const Policy& policy) {
  auto list = json::array();
  for (const auto& device : policy.devices) list.push_back(device.text);
  if (list.empty()) list.push_back("*");
  return list;
}

json overrides_to_json(const Policy& policy) {
  auto list = json::array();
  for (const auto& override : policy.overrides) {
    list.push_back({{"match", {{"podLabels", override.pod_labels}}},
                    {"client", client_to_json(override.client)}});
  }
  return list;
}

json seconds(std::chrono::milliseconds time) {
  if (time.count() % 1000 == 0) return time.count() / 1000;
  return static_cast<double>(time.count()) / 1000;
}

json fault_to_json(const Policy& policy) {
  json quarantine = nullptr;
  if (policy.quarantine) {
    quarantine = {{"after", policy.quarantine->after},
                  {"withinSeconds", seconds(policy.quarantine->within)},
                  {"forSeconds", seconds(policy.quarantine->duration)},
                  {"onSuspicion", policy.quarantine->on_suspicion}};
  }
  return {{"clients", policy.wait_for_faulted ? "wait" : "terminate"}, {"quarantine", quarantine}};
}

json errors_of(const policy::Generation& generation, const std::string& name) {
  const auto found = std::find_if(generation.files.begin(), generation.files.end(),
                                  [&name](const File& file) { return file.name == name; });
  return found == generation.files.end() ? json::array() : json(found->errors);
}

json in_force(const Policy& policy, File::State state, const json& errors) {
  return {{"namespace", policy.subject},
          {"file", policy.file},
          {"line", policy.mark.line},
          {"column", policy.mark.column},
          {"state", policy::to_string(state)},
          {"isolation", policy::to_string(policy.isolation.value)},
          {"devices", devices_to_json(policy)},
          {"client", client_to_json(policy.client)},
          {"quota", to_json(policy.quota)},
          {"overrides", overrides_to_json(policy)},
          {"onViolation", policy.terminate_violators ? "terminate" : "report"},
          {"onFault", fault_to_json(policy)},
          {"errors", errors}};
}

json not_in_force(const std::string& file, const json& errors) {
  json entry{{"file", file}, {"state", "refused"}, {"errors", errors}};
  for (const char* name : {"namespace", "line", "column", "isolation", "devices", "client", "quota",
                           "overrides", "onViolation", "onFault"}) {
    entry[name] = nullptr;
  }
  return entry;
}

File::State state_of(const policy::Generation& generation, const std::string& name) {
  const auto found = std::find_if(generation.files.begin(), generation.files.end(),
                                  [&name](const File& file) { return file.name == name; });
  return found == generation.files.end() ? File::State::good : found->state;
}

}  // namespace

json to_json(const policy::Quota& quota) {
  return {{"clients", value_or_null(quota.clients)},
          {"activeThreadPercentage", value_or_null(quota.active_thread_percentage)},
          {"pinnedDeviceMemoryMiB", value_or_null(quota.pinned_memory_mebibytes)}};
}

json policies_to_json(const policy::Generation& generation) {
  auto list = json::array();
  for (const auto& [subject, policy] : generation.policies) {
    list.push_back(
        in_force(*policy, state_of(generation, policy->file), errors_of(generation, policy->file)));
  }
  std::set<std::string> shown;
  for (const auto& [subject, refused] : generation.refused) {
    auto entry = not_in_force(refused.file, errors_of(generation, refused.file));
    entry["namespace"] = subject;
    entry["line"] = refused.mark.line;
    entry["column"] = refused.mark.column;
    list.push_back(std::move(entry));
    shown.insert(refused.file);
  }
  for (const auto& file : generation.files) {
    if (file.accepted || shown.contains(file.name)) continue;
    list.push_back(not_in_force(file.name, file.errors));
  }
  return list;
}

json to_json(const PolicyStatus& status) {
  const auto& generation = *status.generation;
  return {{"generation", generation.number},
          {"hash", generation.hash},
          {"changedAt", format_time(status.changed_at)},
          {"directory", status.directory},
          {"files", generation.files.size()},
          {"badFiles", generation.bad_files()},
          {"error", status.error.empty() ? json(nullptr) : json(status.error)}};
}

std::string summary(const PolicyStatus& status) {
  const auto& generation = *status.generation;
  const auto files = generation.files.size();
  auto text = "generation " + std::to_string(generation.number) + ", hash " + generation.hash +
              ", " + std::to_string(files) + (files == 1 ? " file" : " files");
  if (const auto bad = generation.bad_files(); bad != 0)
    text += ", " + std::to_string(bad) + " bad";
  return text;
}

}  // namespace mps::api
