#include "policy/parse.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <variant>

#include "base/text.h"
#include "policy/subject.h"
#include "yaml/reader.h"

namespace mps::policy {
namespace {

using namespace std::chrono_literals;
using yaml::Field;
using yaml::Reader;

constexpr std::size_t k_device_limit = 256;
constexpr std::size_t k_override_limit = 64;
constexpr std::size_t k_label_limit = 32;
constexpr unsigned k_index_limit = 255;
constexpr std::size_t k_uuid_limit = 96;
constexpr double k_whole_device = 100;   // percent
constexpr unsigned k_most_clients = 60;  // of one server on one device, from CUDA 13.1

// The word must be this one and no other.
void exactly(Reader& reader, const Field& field, const std::string& word) {
  const auto what = "must be " + word;
  const auto given = reader.text(field, what);
  if (given && *given != word) reader.fail(field, what);
}

// ---- devices ----

bool is_uuid(std::string_view text) {
  if (!text.starts_with("GPU-") && !text.starts_with("MIG-")) return false;
  return text.size() > 4 && text.size() <= k_uuid_limit &&
         std::all_of(text.begin(), text.end(), [](char character) {
           return (character >= 'a' && character <= 'z') ||
                  (character >= 'A' && character <= 'Z') ||
                  (character >= '0' && character <= '9') || character == '-' || character == '/';
         });
}

std::optional<unsigned> parse_index(std::string_view text) {
  const auto value = parse_number<unsigned>(text);
  const bool plain = value && *value <= k_index_limit && std::to_string(*value) == text;
  return plain ? value : std::nullopt;
}

std::optional<DeviceName> parse_device(const std::string& text) {
  DeviceName name;
  name.text = text;
  if (text == "*") return name;
  if (is_uuid(text)) {
    name.kind = DeviceName::Kind::uuid;
    name.uuid = text;
    return name;
  }
  const auto colon = text.find(':');
  const auto index = parse_index(std::string_view(text).substr(0, colon));
  if (!index) return std::nullopt;
  name.kind = DeviceName::Kind::index;
  name.index = *index;
  if (colon == std::string::npos) return name;
  const auto mig = parse_index(std::string_view(text).substr(colon + 1));
  if (!mig) return std::nullopt;
  name.kind = DeviceName::Kind::mig_index;
  name.mig_index = *mig;
  return name;
}

void read_devices(Reader& reader, const Field& field, std::vector<DeviceName>& out) {
  constexpr std::string_view what =
      "must be a device's UUID, its index, such as 0, or 0:3 for a MIG device, or \"*\"";
  const bool is_list =
      reader.read_list(field, "must be a list of devices", k_device_limit, [&](const Field& entry) {
        // 0:3 without quotes is 3 to readers of YAML 1.1, to the base of 60.
        const bool is_pair = entry.node->text.find(':') != std::string::npos;
        const auto word = is_pair ? reader.strict_text(entry, what) : reader.text(entry, what);
        if (!word) return;
        auto name = parse_device(*word);
        if (!name) return reader.fail(entry, what);
        name->mark = entry.mark;
        const auto same = [&name](const DeviceName& other) { return other.text == name->text; };
        const auto first = std::find_if(out.begin(), out.end(), same);
        if (first != out.end()) {
          return reader.fail(entry, "given twice, first as spec.devices[" +
                                        std::to_string(first - out.begin()) + "]");
        }
        out.push_back(std::move(*name));
      });
  if (is_list && field.node->entries.empty()) reader.fail(field, "must name a device");
}

// ---- limits ----

template <typename T, typename Read>
void read_given(const Field& field, std::optional<Given<T>>& out, const Read& read) {
  T value{};
  if (read(value)) out = Given<T>{value, field.mark};
}

void read_memory(Reader& reader, const Field& field, std::optional<Given<std::uint64_t>>& out) {
  read_given(field, out, [&](std::uint64_t& value) {
    const auto read = reader.mebibytes(field);
    if (read) value = *read;
    return read.has_value();
  });
}

void read_percentage(Reader& reader, const Field& field, double most,
                     std::optional<Given<double>>& out) {
  read_given(field, out, [&](double& value) { return reader.percentage(field, most, value); });
}

void read_client(Reader& reader, const Field& field, Client& out) {
  reader.read_mapping(
      field,
      {{"activeThreadPercentage",
        [&](const Field& f) { read_percentage(reader, f, 100, out.active_thread_percentage); }},
       {"pinnedDeviceMemory",
        [&](const Field& f) { read_memory(reader, f, out.pinned_memory_mebibytes); }},
       {"priority", [&](const Field& f) {
          bool below = false;
          reader.choice(f, "normal", "below-normal", below);
          out.priority = {below ? Priority::below_normal : Priority::normal, f.mark};
        }}});
}

void read_quota(Reader& reader, const Field& field, Quota& out) {
  reader.read_mapping(
      field, {{"clients",
               [&](const Field& f) {
                 read_given(f, out.clients, [&](unsigned& value) {
                   return reader.whole_number(f, 1, k_most_clients, value);
                 });
               }},
              {"activeThreadPercentage",
               [&](const Field& f) {
                 read_percentage(reader, f, 100.0 * k_most_clients, out.active_thread_percentage);
               }},
              {"pinnedDeviceMemory",
               [&](const Field& f) { read_memory(reader, f, out.pinned_memory_mebibytes); }}});
}

// ---- overrides ----

void read_labels(Reader& reader, const Field& field, Labels& out) {
  if (field.node->is_mapping() && field.node->fields.empty()) {
    return reader.fail(field, "must have at least one label");
  }
  if (field.node->fields.size() > k_label_limit) {
    return reader.fail(field, "must have at most " + std::to_string(k_label_limit) +
                                  " labels, and has " + std::to_string(field.node->fields.size()));
  }
  reader.read_pairs(field, [&](const Field& key, const Field& value) {
    constexpr std::string_view key_what = "must be a label's key, such as app or example.com/app";
    const auto name = reader.strict_text(key, key_what);
    if (name && !is_label_key(*name)) return reader.fail(key, key_what);
    constexpr std::string_view what =
        "must be a label's value (at most 63 letters, digits, \"-\", \"_\" and \".\")";
    const auto word = reader.strict_text(value, what);
    if (!word) return;
    if (!is_label_value(*word)) return reader.fail(value, what);
    if (name) out[*name] = *word;
  });
}

void read_override(Reader& reader, const Field& field, Override& out) {
  out.mark = field.mark;
  const auto read_match = [&](const Field& match) {
    reader.read_mapping(
        match,
        {{"podLabels", [&](const Field& f) { read_labels(reader, f, out.pod_labels); }, true}});
  };
  const auto read_limits = [&](const Field& client) {
    if (client.node->is_mapping() && client.node->fields.empty()) {
      return reader.fail(client, "must set a limit");
    }
    read_client(reader, client, out.client);
  };
  reader.read_mapping(field, {{"match", read_match, true}, {"client", read_limits, true}});
}

// ---- what happens to those who break the rules ----

void read_quarantine(Reader& reader, const Field& field, std::optional<Quarantine>& out) {
  constexpr auto k_longest = 30 * 24h;
  auto& quarantine = out.emplace();
  reader.read_mapping(
      field,
      {{"after", [&](const Field& f) { reader.whole_number(f, 1, 1000, quarantine.after); }, true},
       {"within", [&](const Field& f) { reader.duration(f, 1s, k_longest, quarantine.within); },
        true},
       {"for", [&](const Field& f) { reader.duration(f, 1s, k_longest, quarantine.duration); },
        true},
       {"onSuspicion", [&](const Field& f) { reader.boolean(f, quarantine.on_suspicion); }}});
}

void read_on_fault(Reader& reader, const Field& field, Policy& out) {
  reader.read_mapping(
      field,
      {{"clients",
        [&](const Field& f) { reader.choice(f, "terminate", "wait", out.wait_for_faulted); }},
       {"quarantine", [&](const Field& f) { read_quarantine(reader, f, out.quarantine); }}});
}

// ---- the document ----

// Fields that others are compared with, once all are read.
struct Seen {
  std::optional<Field> isolation, overrides, quota_threads, quota_memory;
  bool client_threads = false;  // given, rightly or not
  bool client_memory = false;
};

// What is there and wrong, or misspelt, is not missing too.
void see_client(const Field& field, Seen& seen) {
  constexpr std::array<std::string_view, 2> limits{"activeThreadPercentage", "pinnedDeviceMemory"};
  const auto& node = *field.node;
  seen.client_threads = seen.client_memory = !node.is_mapping();
  for (const auto& [key, value] : node.fields) {
    const auto meant = did_you_mean(key.text, limits);
    if (meant == limits[0]) seen.client_threads = true;
    if (meant == limits[1]) seen.client_memory = true;
  }
}

void read_isolation(Reader& reader, const Field& field, Policy& out) {
  bool dedicated = false;
  reader.choice(field, "shared", "dedicated", dedicated);
  out.isolation = {dedicated ? Isolation::dedicated : Isolation::shared, field.mark};
}

void read_overrides(Reader& reader, const Field& field, std::vector<Override>& out) {
  reader.read_list(field, "must be a list of overrides", k_override_limit,
                   [&](const Field& entry) { read_override(reader, entry, out.emplace_back()); });
}

void read_spec(Reader& reader, const Field& field, Policy& out, Seen& seen) {
  const auto read_sum = [&](const Field& quota) {
    for (const auto& [key, value] : quota.node->fields) {
      const Field sum{quota.path + "." + key.text, &value, value.mark};
      if (key.text == "activeThreadPercentage") seen.quota_threads = sum;
      if (key.text == "pinnedDeviceMemory") seen.quota_memory = sum;
    }
    read_quota(reader, quota, out.quota);
  };
  reader.read_mapping(
      field,
      {{"devices", [&](const Field& f) { read_devices(reader, f, out.devices); }},
       {"isolation", [&](const Field& f) { read_isolation(reader, *(seen.isolation = f), out); }},
       {"client",
        [&](const Field& f) {
          see_client(f, seen);
          read_client(reader, f, out.client);
        }},
       {"quota", read_sum},
       {"overrides",
        [&](const Field& f) { read_overrides(reader, *(seen.overrides = f), out.overrides); }},
       {"onViolation",
        [&](const Field& f) { reader.choice(f, "report", "terminate", out.terminate_violators); }},
       {"onFault", [&](const Field& f) { read_on_fault(reader, f, out); }}});
}

void read_namespace(Reader& reader, const Field& field, Policy& out) {
  constexpr std::string_view what =
      "must be a namespace's name (small letters, digits and \"-\", at most 63), \"*\", or "
      "docker:, unit: or user: with a name or \"*\"";
  const auto word = reader.strict_text(field, what);
  if (!word) return;
  if (!is_subject(*word)) return reader.fail(field, what);
  out.subject = *word;
  out.mark = field.mark;
}

// "spec.quota.X: must not be less than one client may have, 10Gi in line 6".
template <typename T, typename Show>
void check_sum(Reader& reader, const std::optional<Field>& field,
               const std::optional<Given<T>>& quota, const Policy& policy,
               std::optional<Given<T>> Client::*limit, const Show& show) {
  if (!field || !quota) return;
  const auto too_large = [&](const Client& client) {
    const auto& one = client.*limit;
    if (!one || one->value <= quota->value) return false;
    reader.fail(*field, "must not be less than one client may have, " + show(one->value) +
                            " in line " + std::to_string(one->mark.line));
    return true;
  };
  if (too_large(policy.client)) return;
  for (const auto& override : policy.overrides) {
    if (too_large(override.client)) return;
  }
}

std::string show_percentage(double value) {
  auto text = std::to_string(value);
  text.erase(text.find('.') + 2);
  if (text.ends_with(".0")) text.erase(text.size() - 2);
  return text + " %";
}

// What no field says alone.
void check_document(Reader& reader, const Policy& policy, const Seen& seen) {
  if (seen.isolation && policy.isolation.value == Isolation::dedicated &&
      is_kind_default(policy.subject)) {
    reader.fail(*seen.isolation, "dedicated needs a namespace of its own");
  }
  if (seen.overrides && !policy.subject.empty() && !is_for_pods(policy.subject)) {
    reader.fail(*seen.overrides, "only pods have labels, and this policy is not for pods");
  }
  if (seen.quota_memory && policy.quota.pinned_memory_mebibytes && !seen.client_memory) {
    reader.fail(*seen.quota_memory,
                "needs spec.client.pinnedDeviceMemory, else what a client takes cannot be counted");
  }
  check_sum(reader, seen.quota_memory, policy.quota.pinned_memory_mebibytes, policy,
            &Client::pinned_memory_mebibytes, format_mebibytes);
  const auto& threads = policy.quota.active_thread_percentage;
  if (seen.quota_threads && threads && threads->value < k_whole_device && !seen.client_threads) {
    return reader.fail(*seen.quota_threads,
                       "must not be less than 100, which a client without "
                       "spec.client.activeThreadPercentage counts as");
  }
  check_sum(reader, seen.quota_threads, policy.quota.active_thread_percentage, policy,
            &Client::active_thread_percentage, show_percentage);
}

void read_document(Reader& reader, const yaml::Node& node, Policy& out) {
  const Field root{"", &node, node.mark};
  Seen seen;
  const auto read_metadata = [&](const Field& metadata) {
    reader.read_mapping(
        metadata, {{"namespace", [&](const Field& f) { read_namespace(reader, f, out); }, true}});
  };
  const bool is_mapping = reader.read_mapping(
      root,
      {{"apiVersion", [&](const Field& f) { exactly(reader, f, "mps-supervisor.dev/v1"); }, true},
       {"kind", [&](const Field& f) { exactly(reader, f, "MpsPolicy"); }, true},
       {"metadata", read_metadata, true},
       {"spec", [&](const Field& f) { read_spec(reader, f, out, seen); }, true}});
  if (is_mapping) check_document(reader, out, seen);
}

void check_twice(Reader& reader, const std::vector<Policy>& policies, const std::string& file) {
  std::map<std::string_view, const Policy*> first;
  for (const auto& policy : policies) {
    if (policy.subject.empty()) continue;
    const auto [earlier, fresh] = first.try_emplace(policy.subject, &policy);
    if (fresh) continue;
    reader.fail_at(policy.mark, "metadata.namespace: has a policy already, at " +
                                    yaml::to_string(file, earlier->second->mark) + ": \"" +
                                    printable(policy.subject) + "\"");
  }
}

// ---- against the devices ----

class DeviceCheck {
 public:
  DeviceCheck(Reader& reader, const Policy& policy, const std::vector<DeviceFacts>& devices)
      : reader_(reader), policy_(policy) {
    for (const auto& device : devices) {
      if (names(policy, device)) devices_.push_back(&device);
    }
  }

  void run() {
    client(policy_.client, "spec.client.");
    for (std::size_t i = 0; i < policy_.overrides.size(); ++i) {
      client(policy_.overrides[i].client, "spec.overrides[" + std::to_string(i) + "].client.");
    }
    const auto& clients = policy_.quota.clients;
    const auto& memory_sum = policy_.quota.pinned_memory_mebibytes;
    if (memory_sum) memory(*memory_sum, "spec.quota.pinnedDeviceMemory");
    for (const auto* device : devices_) {
      if (clients && device->max_clients && clients->value > *device->max_clients) {
        complain(clients->mark, "spec.quota.clients",
                 "must not be more than MPS allows on " + device->name + ", " +
                     std::to_string(*device->max_clients),
                 std::to_string(clients->value));
        break;
      }
    }
    for (const auto* device : devices_) {
      if (policy_.isolation.value != Isolation::dedicated || !device->exclusive) continue;
      complain(policy_.isolation.mark, "spec.isolation",
               "the compute mode of " + device->name +
                   " is exclusive, which lets one MPS server onto it",
               "dedicated");
      break;
    }
  }

 private:
  void complain(const Mark& mark, const std::string& path, const std::string& reason,
                const std::string& value) {
    reader_.fail_at(mark, path + ": " + reason + ": \"" + value + "\"");
  }

  void memory(const Given<std::uint64_t>& given, const std::string& path) {
    for (const auto* device : devices_) {
      if (device->memory_mebibytes == 0 || given.value <= device->memory_mebibytes) continue;
      return complain(given.mark, path,
                      "must not be more than " + device->name + " has, " +
                          format_mebibytes(device->memory_mebibytes),
                      format_mebibytes(given.value));
    }
  }

  // MPS rounds a percentage down to SMs.
  void percentage(const Given<double>& given, const std::string& path) {
    for (const auto* device : devices_) {
      if (device->sm_count == 0 || given.value * device->sm_count >= 100.0 - 1e-9) continue;
      const double least = std::ceil(1000.0 / device->sm_count) / 10;
      auto value = show_percentage(given.value);
      value.erase(value.size() - 2);
      return complain(given.mark, path,
                      "is less than one of the " + std::to_string(device->sm_count) + " SMs of " +
                          device->name + "; the least is " + show_percentage(least),
                      value);
    }
  }

  void client(const Client& given, const std::string& path) {
    if (given.active_thread_percentage) {
      percentage(*given.active_thread_percentage, path + "activeThreadPercentage");
    }
    if (given.pinned_memory_mebibytes) {
      memory(*given.pinned_memory_mebibytes, path + "pinnedDeviceMemory");
    }
  }

  Reader& reader_;
  const Policy& policy_;
  std::vector<const DeviceFacts*> devices_;
};

// With what a bad text says where nothing could be read.
void claim_likely(std::string_view text, std::vector<Claim>& claims) {
  std::set<std::string, std::less<>> known;
  for (const auto& claim : claims) known.insert(claim.subject);
  for (auto& likely : likely_claims(text)) {
    if (claims.size() == k_claim_limit) return;
    if (!known.contains(likely.subject)) claims.push_back(std::move(likely));
  }
}

}  // namespace

Parsed parse(std::string_view text, const std::string& file) {
  Parsed parsed;
  Reader reader(file);
  const auto tree = yaml::parse(text);
  if (const auto* problem = std::get_if<yaml::Problem>(&tree)) {
    reader.fail_at(problem->mark, problem->reason);
    parsed.errors = reader.take_errors();
    claim_likely(text, parsed.claims);
    return parsed;
  }
  for (const auto& document : std::get<std::vector<yaml::Node>>(tree)) {
    if (document.is_null()) continue;  // comments between two "---"
    auto& policy = parsed.policies.emplace_back();
    policy.file = file;
    read_document(reader, document, policy);
    if (!policy.subject.empty()) parsed.claims.push_back({policy.subject, policy.mark});
  }
  if (parsed.policies.empty()) {
    reader.fail_at({}, "has no policy in it; remove the file if none is meant");
  }
  check_twice(reader, parsed.policies, file);
  parsed.errors = reader.take_errors();
  if (parsed.errors.empty()) return parsed;
  parsed.policies.clear();
  claim_likely(text, parsed.claims);
  return parsed;
}

std::vector<std::string> check_devices(const std::vector<Policy>& policies, const std::string& file,
                                       const std::vector<DeviceFacts>& devices) {
  Reader reader(file);
  for (const auto& policy : policies) DeviceCheck(reader, policy, devices).run();
  return reader.take_errors();
}

}  // namespace mps::policy
