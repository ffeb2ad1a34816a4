#include "policy/effective.h"

#include <algorithm>

#include "base/text.h"
#include "policy/subject.h"

namespace mps::policy {
namespace {

bool matches(const Override& override, const Labels& labels) {
  return std::all_of(override.pod_labels.begin(), override.pod_labels.end(),
                     [&labels](const auto& wanted) {
                       const auto found = labels.find(wanted.first);
                       return found != labels.end() && found->second == wanted.second;
                     });
}

// A field of spec.client, or of the override where that gives it.
template <typename Value, typename T>
Decided<Value> decide(const Policy& policy, std::optional<std::size_t> override,
                      std::optional<Given<T>> Client::*field, Value otherwise) {
  if (override) {
    const auto& given = policy.overrides[*override].client.*field;
    if (given) return {given->value, {&policy, override, given->mark}};
  }
  const auto& given = policy.client.*field;
  if (given) return {given->value, {&policy, std::nullopt, given->mark}};
  return {std::move(otherwise), {&policy, std::nullopt, std::nullopt}};
}

Effective decide_all(const Policy& policy, std::optional<std::size_t> override) {
  Effective limits;
  limits.policy = &policy;
  limits.override = override;
  limits.active_thread_percentage =
      decide<double>(policy, override, &Client::active_thread_percentage, 100.0);
  limits.pinned_memory_mebibytes = decide<std::optional<std::uint64_t>>(
      policy, override, &Client::pinned_memory_mebibytes, std::nullopt);
  limits.priority = decide<Priority>(policy, override, &Client::priority, Priority::normal);
  return limits;
}

void raise(Ceiling& ceiling, const Effective& limits) {
  if (limits.active_thread_percentage.value > ceiling.active_thread_percentage.value) {
    ceiling.active_thread_percentage = limits.active_thread_percentage;
  }
  const auto& now = ceiling.pinned_memory_mebibytes.value;
  const auto& more = limits.pinned_memory_mebibytes.value;
  if (now && (!more || *more > *now)) {
    ceiling.pinned_memory_mebibytes = limits.pinned_memory_mebibytes;
  }
  if (ceiling.priority.value == Priority::below_normal &&
      limits.priority.value == Priority::normal) {
    ceiling.priority = limits.priority;
  }
}

void raise(std::optional<Ceiling>& ceiling, const Policy& policy) {
  const auto own = decide_all(policy, std::nullopt);
  if (!ceiling) {
    ceiling = Ceiling{own.active_thread_percentage, own.pinned_memory_mebibytes, own.priority};
  } else {
    raise(*ceiling, own);
  }
  for (std::size_t i = 0; i < policy.overrides.size(); ++i) raise(*ceiling, decide_all(policy, i));
}

}  // namespace

std::variant<const Policy*, NoPolicy> find_policy(const Generation& generation,
                                                  std::string_view subject) {
  const auto look =
      [&](const std::string& name) -> std::optional<std::variant<const Policy*, NoPolicy>> {
    const auto found = generation.policies.find(name);
    if (found != generation.policies.end()) return found->second;
    const auto refused = generation.refused.find(name);
    if (refused == generation.refused.end()) return std::nullopt;
    return NoPolicy{"the policy for \"" + printable(name) +
                    "\" is not in force, as its file is bad: " + refused->second.error};
  };
  if (auto own = look(std::string(subject))) return *own;
  const auto fallback = kind_default(subject);
  if (auto standing_in = look(fallback)) return *standing_in;
  return NoPolicy{"no policy is for namespace \"" + printable(subject) + "\", nor for \"" +
                  fallback + "\""};
}

std::variant<Effective, NoPolicy> effective(const Generation& generation, std::string_view subject,
                                            const Labels& labels, const DeviceFacts& device) {
  const auto found = find_policy(generation, subject);
  if (const auto* none = std::get_if<NoPolicy>(&found)) return *none;
  const auto& policy = *std::get<const Policy*>(found);
  if (!names(policy, device)) {
    return NoPolicy{"the policy for \"" + printable(policy.subject) + "\", " +
                    place(policy, policy.mark) + ", does not name " + device.name};
  }
  std::optional<std::size_t> override;
  const auto first =
      std::find_if(policy.overrides.begin(), policy.overrides.end(),
                   [&labels](const Override& candidate) { return matches(candidate, labels); });
  if (first != policy.overrides.end()) {
    override = static_cast<std::size_t>(first - policy.overrides.begin());
  }
  auto limits = decide_all(policy, override);
  limits.by_default = policy.subject != subject;
  return limits;
}

std::optional<Ceiling> shared_ceiling(const Generation& generation, const DeviceFacts& device) {
  std::optional<Ceiling> ceiling;
  for (const auto& file : generation.files) {
    if (!file.accepted) continue;
    for (const auto& policy : file.accepted->policies) {
      const bool shared = policy.isolation.value == Isolation::shared;
      if (shared && names(policy, device)) raise(ceiling, policy);
    }
  }
  return ceiling;
}

Ceiling dedicated_ceiling(const Policy& policy) {
  std::optional<Ceiling> ceiling;
  raise(ceiling, policy);
  return *ceiling;
}

std::vector<const Policy*> dedicated_on(const Generation& generation, const DeviceFacts& device) {
  std::vector<const Policy*> list;
  for (const auto& [subject, policy] : generation.policies) {
    if (policy->isolation.value == Isolation::dedicated && names(*policy, device)) {
      list.push_back(policy);
    }
  }
  return list;
}

std::string describe(const Origin& origin) {
  if (origin.policy == nullptr) return "the default";
  if (!origin.mark) return place(*origin.policy, origin.policy->mark) + " (gives none)";
  const auto where = origin.override
                         ? "spec.overrides[" + std::to_string(*origin.override) + "].client"
                         : std::string("spec.client");
  return place(*origin.policy, *origin.mark) + " (" + where + ")";
}

}  // namespace mps::policy
