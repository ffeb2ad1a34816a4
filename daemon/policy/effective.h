// From policies to limits: what one client may have, why, and what an instance's ceilings are.
// Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "policy/generation.h"

namespace mps::policy {

// Where a value comes from.
struct Origin {
  const Policy* policy = nullptr;       // none: the built-in default
  std::optional<std::size_t> override;  // of spec.overrides; none: spec.client
  std::optional<Mark> mark;             // of the value; none: the policy does not give it
};

template <typename T>
struct Decided {
  T value{};
  Origin origin{};
};

struct Effective {
  const Policy* policy = nullptr;
  bool by_default = false;              // "*" or the like: it has no policy of its own
  std::optional<std::size_t> override;  // that matched
  Decided<double> active_thread_percentage{100.0, {}};
  Decided<std::optional<std::uint64_t>> pinned_memory_mebibytes{};
  Decided<Priority> priority{};
};

// Why nobody of that namespace may come in.
struct NoPolicy {
  std::string reason;
};

// The policy that counts for a namespace; an Error-like sentence where there is none.
std::variant<const Policy*, NoPolicy> find_policy(const Generation& generation,
                                                  std::string_view subject);

std::variant<Effective, NoPolicy> effective(const Generation& generation, std::string_view subject,
                                            const Labels& labels, const DeviceFacts& device);

// The largest limits that anybody on an instance gets, and from whom: what the server's own limits
// are set to. 100 % or no memory: there is no ceiling, and the origin says because of whom.
struct Ceiling {
  Decided<double> active_thread_percentage{};
  Decided<std::optional<std::uint64_t>> pinned_memory_mebibytes{};
  Decided<Priority> priority{};
};

// Of the device's shared instance; none where no policy is for it.
std::optional<Ceiling> shared_ceiling(const Generation& generation, const DeviceFacts& device);
Ceiling dedicated_ceiling(const Policy& policy);

// Policies with an instance of their own on the device, by subject.
std::vector<const Policy*> dedicated_on(const Generation& generation, const DeviceFacts& device);

// "team-a.yaml:9:29 (spec.overrides[0].client)", "team-a.yaml:4:14 (gives none)".
std::string describe(const Origin& origin);

}  // namespace mps::policy
