// What the policies that are in force grant to one process on one instance, or why nothing. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "identity/identity.h"
#include "policy/generation.h"
#include "share/ledger.h"

namespace mps::admission {

// An instance, as far as it matters who may come in.
struct Place {
  std::string instance;  // "gpu0.shared"
  std::string domain;    // "shared", "ns-team-a"
  policy::DeviceFacts device;
};

// Where a pod's labels are not known, the smallest limits that any labels could get: an override
// may be what keeps somebody small.
std::variant<share::Plan, share::Refusal> plan_for(const policy::Generation& generation,
                                                   const identity::Identity& who,
                                                   const Place& place);

// Where the namespace has an instance of its own on that device, or this one is another's; without
// a policy it is the shared one's.
std::optional<share::Refusal> wrong_instance(const policy::Generation& generation,
                                             const std::string& subject, const Place& place);

// "pod web-0, container cuda", "container web", "unit cron.service", "user 1000".
std::string describe(const identity::Identity& who);

// A cgroup as an admission's record has it, and back; what is damaged is no cgroup.
std::string to_record(const identity::Cgroup& cgroup);
identity::Cgroup cgroup_from_record(std::string_view text);

}  // namespace mps::admission
