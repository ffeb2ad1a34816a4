#include "api/explain.h"

#include <algorithm>

#include "api/policy_json.h"
#include "base/text.h"
#include "policy/subject.h"

namespace mps::api {

namespace {

using nlohmann::json;
using policy::Ceiling;
using policy::DeviceFacts;
using policy::Effective;
using policy::Generation;
using policy::Isolation;
using policy::Policy;

constexpr double k_all_threads = 100.0;

template <typename T>
json decided(const policy::Decided<T>& limit, json value) {
  return {{"value", std::move(value)}, {"from", policy::describe(limit.origin)}};
}

json memory(const policy::Decided<std::optional<std::uint64_t>>& limit) {
  return decided(limit, limit.value ? json(*limit.value) : json(nullptr));
}

json limits_to_json(const Effective& limits) {
  return {{"activeThreadPercentage",
           decided(limits.active_thread_percentage, limits.active_thread_percentage.value)},
          {"pinnedDeviceMemoryMiB", memory(limits.pinned_memory_mebibytes)},
          {"priority", decided(limits.priority, policy::to_string(limits.priority.value))}};
}

bool has_threads(const Ceiling& ceiling) {
  return ceiling.active_thread_percentage.value < k_all_threads;
}

json ceiling_to_json(const Ceiling& ceiling) {
  const auto& threads = ceiling.active_thread_percentage;
  return {{"activeThreadPercentage",
           decided(threads, has_threads(ceiling) ? json(threads.value) : json(nullptr))},
          {"pinnedDeviceMemoryMiB", memory(ceiling.pinned_memory_mebibytes)}};
}

Ceiling ceiling_of(const Generation& generation, const Policy& policy, const DeviceFacts& device) {
  if (policy.isolation.value == Isolation::dedicated) return policy::dedicated_ceiling(policy);
  // There is one: this policy at least is shared and names the device.
  return policy::shared_ceiling(generation, device).value();
}

// What the server does not hold, since it grants somebody else more.
void note_below_ceiling(json& notes, const Effective& limits, const Ceiling& ceiling) {
  const auto note = [&notes](const std::string& limit) {
    notes.push_back(limit +
                    " is below the ceiling: it holds only where the client's own environment "
                    "sets it");
  };
  if (limits.active_thread_percentage.value < ceiling.active_thread_percentage.value) {
    note("activeThreadPercentage");
  }
  const auto& own = limits.pinned_memory_mebibytes.value;
  const auto& most = ceiling.pinned_memory_mebibytes.value;
  if (own && (!most || *own < *most)) note("pinnedDeviceMemory");
}

void note_file(json& notes, const Generation& generation, const Policy& policy) {
  const auto file =
      std::find_if(generation.files.begin(), generation.files.end(),
                   [&policy](const policy::File& one) { return one.name == policy.file; });
  if (file == generation.files.end() || file->errors.empty()) return;
  notes.push_back("the file is bad now, and what it said last is in force: " + file->errors[0]);
}

json notes_for(const Generation& generation, const Question& question, const Effective& limits,
               const Ceiling& ceiling) {
  auto notes = json::array();
  const auto& policy = *limits.policy;
  note_below_ceiling(notes, limits, ceiling);
  const auto& quota = policy.quota;
  if (quota.clients || quota.active_thread_percentage || quota.pinned_memory_mebibytes) {
    notes.push_back("the quota counts where the instance has a gate");
  }
  if (!question.labels.empty() && !policy::is_for_pods(question.subject)) {
    notes.push_back("labels do not count here: only pods have them");
  }
  note_file(notes, generation, policy);
  return notes;
}

json text_or_null(const std::string& text) {
  return text.empty() ? json(nullptr) : json(text);
}

json refused(const DeviceFacts& device, const std::string& reason) {
  json entry{{"device", device.name}, {"uuid", text_or_null(device.uuid)},
             {"admitted", false},     {"reason", reason},
             {"byDefault", false},    {"notes", json::array()}};
  for (const char* name : {"policy", "override", "limits", "instance", "ceiling", "quota"}) {
    entry[name] = nullptr;
  }
  return entry;
}

json explain_on(const Generation& generation, const Question& question, const DeviceFacts& device) {
  const auto found = policy::effective(generation, question.subject, question.labels, device);
  if (const auto* none = std::get_if<policy::NoPolicy>(&found))
    return refused(device, none->reason);
  const auto& limits = std::get<Effective>(found);
  const auto& policy = *limits.policy;
  const bool dedicated = policy.isolation.value == Isolation::dedicated;
  const auto domain = dedicated ? policy::dedicated_domain(policy.subject) : std::string("shared");
  const auto ceiling = ceiling_of(generation, policy, device);
  return {{"device", device.name},
          {"uuid", text_or_null(device.uuid)},
          {"admitted", true},
          {"reason", nullptr},
          {"policy",
           {{"namespace", policy.subject},
            {"file", policy.file},
            {"line", policy.mark.line},
            {"isolation", policy::to_string(policy.isolation.value)}}},
          {"byDefault", limits.by_default},
          {"override", limits.override ? json(*limits.override) : json(nullptr)},
          {"limits", limits_to_json(limits)},
          {"instance", policy::instance_id(device.name, domain)},
          {"ceiling", ceiling_to_json(ceiling)},
          {"quota", to_json(policy.quota)},
          {"notes", notes_for(generation, question, limits, ceiling)}};
}

std::string in_quotes(std::string_view text) {
  return "\"" + printable(text, 64) + "\"";
}

bool is_meant(const DeviceFacts& device, const std::string& wanted) {
  if (wanted == device.name || wanted == device.uuid) return true;
  const auto index = std::to_string(device.index);
  return wanted == index ||
         (device.mig_index && wanted == index + ":" + std::to_string(*device.mig_index));
}

}  // namespace

Result<std::string> parse_subject(const std::string& text) {
  if (policy::is_subject(text)) return text;
  return Error{
      "must be a namespace, docker:NAME, unit:NAME, user:LOGIN, or \"*\" for a kind's default: " +
      in_quotes(text)};
}

Result<std::pair<std::string, std::string>> parse_label(std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return Error{"must be KEY=VALUE: " + in_quotes(text)};
  const auto key = text.substr(0, equals);
  const auto value = text.substr(equals + 1);
  if (!policy::is_label_key(key)) return Error{"is no key of a label: " + in_quotes(key)};
  if (!policy::is_label_value(value)) return Error{"is no value of a label: " + in_quotes(value)};
  return std::pair{std::string(key), std::string(value)};
}

Result<policy::Labels> parse_labels(std::string_view text) {
  policy::Labels labels;
  while (!text.empty()) {
    const auto comma = text.find(',');
    auto label = parse_label(text.substr(0, comma));
    if (!label) return label.error();
    const auto [place, added] = labels.insert(std::move(*label));
    if (!added) return Error{"has a key twice: " + in_quotes(place->first)};
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
  }
  return labels;
}

Result<std::vector<DeviceFacts>> choose_devices(const std::vector<DeviceFacts>& devices,
                                                const std::string& wanted) {
  if (wanted.empty()) return devices;
  std::vector<DeviceFacts> chosen;
  std::copy_if(devices.begin(), devices.end(), std::back_inserter(chosen),
               [&wanted](const DeviceFacts& device) { return is_meant(device, wanted); });
  if (!chosen.empty()) return chosen;
  std::vector<std::string_view> known;
  for (const auto& device : devices) {
    known.emplace_back(device.name);
    known.emplace_back(device.uuid);
  }
  auto message = "no device " + in_quotes(wanted);
  if (const auto meant = did_you_mean(wanted, known)) {
    message += "; did you mean \"" + std::string(*meant) + "\"?";
  }
  return Error{message};
}

json explain(const Generation& generation, const Question& question,
             const std::vector<DeviceFacts>& devices) {
  auto list = json::array();
  for (const auto& device : devices) list.push_back(explain_on(generation, question, device));
  return {{"namespace", question.subject},
          {"labels", question.labels},
          {"generation", generation.number},
          {"hash", generation.hash},
          {"devices", list}};
}

}  // namespace mps::api
