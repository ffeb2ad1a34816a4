// Devices out of service as JSON: as the API shows them, and changes as the book keeps them. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "fault/out_of_service.h"

namespace mps::fault {

// {"device", "needs": "reset"|"reboot", "reason", "xid", "action", "since", "incident", "message"}
nlohmann::json to_json(const OutOfService& entry);

nlohmann::json to_json(const DeviceChange& change);
bool is_device_change(const std::string& kind);
// What to_json() made; `kind` is its one key.
Result<DeviceChange> device_change_from(const std::string& kind, const nlohmann::json& value);

}  // namespace mps::fault
