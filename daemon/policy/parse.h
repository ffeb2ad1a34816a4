// The text of a policy file -> policies, or everything that is wrong with it. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "policy/claims.h"
#include "policy/policy.h"

namespace mps::policy {

struct Parsed {
  std::vector<Policy> policies;     // empty where there are errors
  std::vector<std::string> errors;  // each "file:line:column: path: reason: "value""
  std::vector<Claim> claims;        // of a bad text also what it is likely for
};

Parsed parse(std::string_view text, const std::string& file);

// What fits no device that it is for: more memory than there is, a percentage of no SM. The
// policies are of one file, `file`.
std::vector<std::string> check_devices(const std::vector<Policy>& policies, const std::string& file,
                                       const std::vector<DeviceFacts>& devices);

}  // namespace mps::policy
