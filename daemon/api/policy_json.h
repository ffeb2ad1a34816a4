// Policies as the API shows them: camelCase fields, null for what is not given. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "api/agent.h"
#include "policy/generation.h"

namespace mps::api {

nlohmann::json to_json(const policy::Quota& quota);

// An array: the policies in force by namespace, then the namespaces that are refused, then the bad
// files of which neither is there.
nlohmann::json policies_to_json(const policy::Generation& generation);

// "policies" in the status.
nlohmann::json to_json(const PolicyStatus& status);

// "generation 3, hash 0123456789ab, 12 files, 1 bad"
std::string summary(const PolicyStatus& status);

}  // namespace mps::api
