#include "ctl/offline_devices.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <variant>

#include "base/text.h"
#include "policy/parse.h"

namespace mps::ctl {

namespace {

using nlohmann::json;
using policy::DeviceFacts;
using policy::DeviceName;
using policy::Generation;
using policy::Policy;

// Above all that a policy can name.
constexpr unsigned k_unknown_index = std::numeric_limits<unsigned>::max();
constexpr std::string_view k_short_name = "gpu";
constexpr std::string_view k_mig = "-mig";
constexpr std::string_view k_of_mig = "MIG-";

bool is_digit(char character) {
  return character >= '0' && character <= '9';
}

// "gpu0-mig3": "0:3", as policies have it. Empty where it is no such name.
std::string without_gpu(std::string text) {
  text.erase(0, k_short_name.size());
  if (text.empty() || !is_digit(text[0]) || text.find(':') != std::string::npos) return "";
  if (const auto mig = text.find(k_mig); mig != std::string::npos) {
    text.replace(mig, k_mig.size(), ":");
  }
  return text;
}

// Nothing that would need to be escaped between quotes in YAML.
bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char character) {
    return is_digit(character) || (character >= 'a' && character <= 'z') ||
           (character >= 'A' && character <= 'Z') ||
           std::string_view("*:/-").find(character) != std::string_view::npos;
  });
}

// A policy for this one device: so that there is only one grammar.
std::string policy_for(const std::string& device) {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"*\"}\n"
         "spec: {devices: [\"" +
         device + "\"]}\n";
}

bool knows_index(const DeviceFacts& device) {
  return device.index != k_unknown_index;
}

DeviceFacts facts_of(const DeviceName& name) {
  DeviceFacts facts;
  facts.index = k_unknown_index;
  switch (name.kind) {
    case DeviceName::Kind::any:
      facts.name = "any device";
      return facts;
    case DeviceName::Kind::uuid:
      facts.name = name.uuid;
      facts.uuid = name.uuid;
      return facts;
    case DeviceName::Kind::mig_index:
      facts.mig_index = name.mig_index;
      break;
    case DeviceName::Kind::index:
      break;
  }
  facts.index = name.index;
  facts.name = std::string(k_short_name) + std::to_string(name.index);
  if (facts.mig_index) facts.name += std::string(k_mig) + std::to_string(*facts.mig_index);
  return facts;
}

const Policy* policy_of(const Generation& generation, const std::string& subject) {
  const auto found = policy::find_policy(generation, subject);
  const auto* policy = std::get_if<const Policy*>(&found);
  return policy == nullptr ? nullptr : *policy;
}

bool is_for_any(const Policy& policy) {
  return policy.devices.empty() ||
         std::any_of(policy.devices.begin(), policy.devices.end(),
                     [](const DeviceName& name) { return name.kind == DeviceName::Kind::any; });
}

// Whether the two may be the same device, though nothing here says so.
bool may_be(const DeviceName& name, const DeviceFacts& device) {
  if (!knows_index(device) && device.uuid.empty()) return true;  // stands for any
  const bool by_uuid = name.kind == DeviceName::Kind::uuid;
  if (by_uuid == !knows_index(device)) return false;  // both by UUID, or both by index: compared
  if (by_uuid) return name.uuid.starts_with(k_of_mig) == device.mig_index.has_value();
  return name.kind == DeviceName::Kind::index || device.uuid.starts_with(k_of_mig);
}

bool is_undecided(const Policy& policy, const DeviceFacts& device) {
  return !policy::names(policy, device) &&
         std::any_of(policy.devices.begin(), policy.devices.end(),
                     [&device](const DeviceName& name) { return may_be(name, device); });
}

// "devices by UUID, and which UUID this one has is not known here"
std::string what_is_unknown(const DeviceFacts& device) {
  const std::string what = knows_index(device) ? "UUID" : "index";
  return "devices by " + what + ", and which " + what + " this one has is not known here";
}

bool is_without_ceiling(const json& ceiling) {
  return ceiling["activeThreadPercentage"]["value"].is_null() &&
         ceiling["pinnedDeviceMemoryMiB"]["value"].is_null();
}

void note_ceiling(json& entry, const Generation& generation, const DeviceFacts& device) {
  if (is_without_ceiling(entry["ceiling"])) return;
  const bool partial = std::any_of(
      generation.policies.begin(), generation.policies.end(), [&device](const auto& one) {
        return one.second->isolation.value == policy::Isolation::shared &&
               is_undecided(*one.second, device);
      });
  if (!partial) return;
  const bool any = !knows_index(device) && device.uuid.empty();
  entry["notes"].push_back(
      "the ceiling leaves out policies that name " +
      (any ? "single devices: name one with --device" : what_is_unknown(device)));
}

}  // namespace

Result<DeviceName> parse_device(const std::string& text) {
  const auto plain = text.starts_with(k_short_name) ? without_gpu(text) : text;
  const auto parsed = is_plain(plain) ? policy::parse(policy_for(plain), "") : policy::Parsed{};
  if (parsed.policies.empty()) {
    return Error{
        "must be a device's UUID, its index, such as 0, or 0:3 for a MIG device, its name, such as "
        "gpu0 or gpu0-mig3, or \"*\": \"" +
        printable(text, 64) + "\""};
  }
  const auto& devices = parsed.policies[0].devices;
  auto name = devices.empty() ? DeviceName{} : devices[0];
  name.text = text;
  return name;
}

std::vector<DeviceFacts> offline_devices(const Generation& generation, const std::string& subject,
                                         const std::optional<DeviceName>& wanted) {
  const auto* policy = policy_of(generation, subject);
  std::vector<DeviceFacts> list;
  if (wanted && wanted->kind != DeviceName::Kind::any) {
    list.push_back(facts_of(*wanted));
    const bool with_mig = wanted->kind == DeviceName::Kind::index && is_digit(wanted->text[0]);
    if (policy == nullptr || !with_mig) return list;
    for (const auto& name : policy->devices) {
      const bool below = name.kind == DeviceName::Kind::mig_index && name.index == wanted->index;
      if (below) list.push_back(facts_of(name));
    }
    return list;
  }
  if (policy == nullptr || is_for_any(*policy)) return {facts_of({})};
  for (const auto& name : policy->devices) list.push_back(facts_of(name));
  return list;
}

void show_unknown(json& explanation, const Generation& generation,
                  const std::vector<DeviceFacts>& devices) {
  const auto* policy = policy_of(generation, explanation["namespace"].get<std::string>());
  for (std::size_t i = 0; policy != nullptr && i < devices.size(); ++i) {
    auto& entry = explanation["devices"][i];
    if (is_undecided(*policy, devices[i])) {
      entry["admitted"] = nullptr;
      entry["reason"] =
          entry["reason"].get<std::string>() + "; it names " + what_is_unknown(devices[i]);
    }
    if (entry["admitted"] != true) continue;
    if (!knows_index(devices[i])) entry["instance"] = nullptr;
    if (policy->isolation.value == policy::Isolation::shared) {
      note_ceiling(entry, generation, devices[i]);
    }
  }
}

}  // namespace mps::ctl
