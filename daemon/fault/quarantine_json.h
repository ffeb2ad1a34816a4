// The quarantine as JSON: entries as the API shows them, and changes as the book keeps them. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "fault/quarantine.h"

namespace mps::fault {

nlohmann::json to_json(const Entry& entry);

nlohmann::json to_json(const QuarantineChange& change);
// What to_json() made; `kind` is its one key.
Result<QuarantineChange> quarantine_change_from(const std::string& kind,
                                                const nlohmann::json& value);

// The body of POST /v1/quarantine, as far as it can be told without the rest. An Error names the
// field.
Result<Order> order_from(const std::string& body);

}  // namespace mps::fault
