// Policies and explanations, as the API gives them, as text for a person. Pure, and tolerant as
// views.h is.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace mps::ctl {

std::string policies_text(const nlohmann::json& policies);
std::string policy_text(const nlohmann::json& policy);
std::string explanation_text(const nlohmann::json& explanation);

}  // namespace mps::ctl
