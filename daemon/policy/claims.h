// Whom a policy file is for that is not right: a guess from its text, of any bytes. Who is named by
// a bad file is refused, and not given the default policy, so a guess too many is better than one
// too few. Pure; takes time in proportion to the text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "policy/policy.h"

namespace mps::policy {

inline constexpr std::size_t k_claim_limit = 4096;  // of a file; what is beyond it is not looked at

// A namespace that a file speaks of, whether the rest of it is right or not.
struct Claim {
  std::string subject;
  Mark mark{};
};

// What stands behind `namespace`, or a word near it, wherever that is: on a line that is no
// comment, with a colon or without one, in JSON, behind an anchor, on the line below. Behind `name`
// too, as other Kubernetes objects have theirs there. Each subject once, with its first place.
std::vector<Claim> likely_claims(std::string_view text);

}  // namespace mps::policy
