#include "admission/plan.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/text.h"
#include "policy/effective.h"
#include "policy/subject.h"

namespace mps::admission {
namespace {

using policy::Effective;
using Limits = std::variant<Effective, policy::NoPolicy>;

void lower(share::Grant& grant, const Effective& effective) {
  grant.active_thread_percentage =
      std::min(grant.active_thread_percentage, effective.active_thread_percentage.value);
  if (effective.priority.value == policy::Priority::below_normal) grant.below_normal = true;
  const auto& memory = effective.pinned_memory_mebibytes.value;
  if (!memory) return;
  grant.pinned_memory_mebibytes =
      std::min(*memory, grant.pinned_memory_mebibytes.value_or(*memory));
}

// Whatever labels a pod has, the first override that matches it is one that its own labels select.
std::vector<policy::Labels> possible_labels(const policy::Policy& policy) {
  std::vector<policy::Labels> all{{}};
  for (const auto& override : policy.overrides) all.push_back(override.pod_labels);
  return all;
}

share::Grant smallest(const policy::Generation& generation, const std::string& subject,
                      const policy::Policy& policy, const policy::DeviceFacts& device) {
  share::Grant grant;
  for (const auto& labels : possible_labels(policy)) {
    const auto one = policy::effective(generation, subject, labels, device);
    if (const auto* effective = std::get_if<Effective>(&one)) lower(grant, *effective);
  }
  return grant;
}

share::Refusal own_instance(const std::string& subject, const Place& place) {
  const auto own = policy::instance_id(place.device.name, policy::dedicated_domain(subject));
  return {share::Code::wrong_domain, printable(subject) + " has an instance of its own, " + own +
                                         ", and this is the share of " + printable(place.instance)};
}

std::optional<share::Refusal> judge_domain(const policy::Policy& policy, const std::string& subject,
                                           const Place& place) {
  const bool dedicated = policy.isolation.value == policy::Isolation::dedicated;
  if (dedicated && place.domain == "shared") return own_instance(subject, place);
  if (place.domain != (dedicated ? policy::dedicated_domain(subject) : "shared")) {
    return share::wrong_domain(place.instance, place.domain, subject);
  }
  return std::nullopt;
}

}  // namespace

std::optional<share::Refusal> wrong_instance(const policy::Generation& generation,
                                             const std::string& subject, const Place& place) {
  const auto found = policy::find_policy(generation, subject);
  const auto* policy = std::get_if<const policy::Policy*>(&found);
  if (policy != nullptr && policy::names(**policy, place.device)) {
    return judge_domain(**policy, subject, place);
  }
  if (place.domain == "shared") return std::nullopt;
  return share::wrong_domain(place.instance, place.domain, subject);
}

std::variant<share::Plan, share::Refusal> plan_for(const policy::Generation& generation,
                                                   const identity::Identity& who,
                                                   const Place& place) {
  const auto found = policy::effective(generation, who.subject,
                                       who.labels.value_or(policy::Labels{}), place.device);
  if (const auto* none = std::get_if<policy::NoPolicy>(&found)) {
    return share::no_policy(none->reason);
  }
  const auto& effective = std::get<Effective>(found);
  if (auto elsewhere = judge_domain(*effective.policy, who.subject, place)) return *elsewhere;
  share::Plan plan;
  plan.quota = effective.policy->quota;
  if (who.labels || !policy::is_for_pods(who.subject)) {
    lower(plan.grant, effective);
  } else {
    plan.grant = smallest(generation, who.subject, *effective.policy, place.device);
  }
  return plan;
}

std::string describe(const identity::Identity& who) {
  if (!who.pod.empty()) {
    return "pod " + who.pod +
           (who.container_name.empty() ? "" : ", container " + who.container_name);
  }
  const auto colon = who.subject.find(':');
  if (colon == std::string::npos) return "container " + who.container_id.substr(0, 12);
  const auto kind = who.subject.substr(0, colon);
  const auto name = who.subject.substr(colon + 1);
  return (kind == "docker" ? "container" : kind) + " " + name;
}

// "0 0 4711 /kubepods/pod…": the hierarchy, levels up, the inode, the path.
std::string to_record(const identity::Cgroup& cgroup) {
  if (cgroup.inode == 0) return "";
  return std::to_string(static_cast<int>(cgroup.at.hierarchy)) + " " +
         std::to_string(cgroup.at.levels_up) + " " + std::to_string(cgroup.inode) + " " +
         cgroup.at.path;
}

identity::Cgroup cgroup_from_record(std::string_view text) {
  const auto next = [&text]() -> std::optional<std::uint64_t> {
    const auto blank = std::min(text.find(' '), text.size());
    const auto number = parse_number<std::uint64_t>(text.substr(0, blank));
    text.remove_prefix(std::min(blank + 1, text.size()));
    return number;
  };
  const auto hierarchy = next();
  const auto levels_up = next();
  const auto inode = next();
  if (!hierarchy || *hierarchy > 2 || !levels_up || !inode || !text.starts_with('/')) return {};
  identity::Cgroup cgroup;
  cgroup.at.hierarchy = static_cast<identity::Hierarchy>(*hierarchy);
  cgroup.at.levels_up = static_cast<std::size_t>(*levels_up);
  cgroup.at.path = text;
  cgroup.inode = *inode;
  return cgroup;
}

}  // namespace mps::admission
