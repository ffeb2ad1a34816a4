// Incidents as JSON: as the API shows them and as the book keeps them. camelCase, times in RFC 3339
// with milliseconds, null for what is not there. Pure.
#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "fault/incident.h"

namespace mps::fault {

nlohmann::json to_json(const ClientFacts& client);
ClientFacts client_from(const nlohmann::json& json);  // throws as nlohmann does

// The whole story. `summary` and `durations` are made of the rest.
nlohmann::json to_json(const Incident& incident);
// A line of a list: without clients, signals and steps, but with their counts.
nlohmann::json brief_json(const Incident& incident);

// As the book keeps it: also how far the log counts already, which is nobody's business else.
nlohmann::json record_json(const Incident& incident);
// What one of these made, of earlier versions too.
Result<Incident> incident_from(const nlohmann::json& json);

nlohmann::json time_json(const std::optional<Time>& time);
std::optional<Time> time_from(const nlohmann::json& json);  // none: null, or no time

}  // namespace mps::fault
