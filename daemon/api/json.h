// What the API shows, as JSON: camelCase fields, null for what is not there or not known. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/admission_json.h"
#include "api/agent.h"
#include "api/event_log.h"
#include "device/device.h"
#include "instance/snapshot.h"
#include "policy/policy.h"

namespace mps::api {

nlohmann::json to_json(const device::Device& device);
// An array: the devices, each with what is known of it besides where MPS can run on it, and why it
// is out of service, where it is (`faults` may be null).
nlohmann::json devices_to_json(const device::Inventory& inventory,
                               const std::vector<policy::DeviceFacts>& facts,
                               const FaultDesk* faults);
nlohmann::json to_json(const instance::Snapshot& snapshot);
nlohmann::json to_json(const AgentStatus& status);

// The clients of one instance, each with the instance's id and what its slot says.
std::vector<nlohmann::json> clients_to_json(const instance::Snapshot& snapshot,
                                            const SlotsByProcess& slots);

// GET /v1/status: the agent, and a summary of everything else.
nlohmann::json status_to_json(const Agent& agent, const EventLog& log);

// On one line. Text that is no UTF-8 (a process may have any name) is mended, not an error.
std::string dump(const nlohmann::json& json);

}  // namespace mps::api
