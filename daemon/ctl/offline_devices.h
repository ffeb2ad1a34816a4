// Devices as a policy names them, where no supervisor and no settings say which ones there are: of
// each only what its name says is known. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "policy/effective.h"
#include "policy/generation.h"
#include "policy/policy.h"

namespace mps::ctl {

// What spec.devices may have, and a device's short name ("gpu0", "gpu0-mig3"). An Error says what
// it must be, without where it was given.
Result<policy::DeviceName> parse_device(const std::string& text);

// The device that is wanted; an index stands for the GPU and those of its MIG devices that the
// subject's policy names. None or "*": the devices that the policy names, as it names them.
std::vector<policy::DeviceFacts> offline_devices(const policy::Generation& generation,
                                                 const std::string& subject,
                                                 const std::optional<policy::DeviceName>& wanted);

// Corrects what api::explain said of these devices: what only a supervisor can know is null, or a
// note says so.
void show_unknown(nlohmann::json& explanation, const policy::Generation& generation,
                  const std::vector<policy::DeviceFacts>& devices);

}  // namespace mps::ctl
