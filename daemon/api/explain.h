// What one namespace gets on each device, and which line of which file says so: values in, JSON
// out. The API answers with it, and mps-ctl uses it without a supervisor. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "policy/effective.h"
#include "policy/policy.h"

namespace mps::api {

struct Question {
  std::string subject;  // "team-a", "unit:cron.service", "*"
  policy::Labels labels;
};

// An Error names what must be right, without where it was given.
Result<std::string> parse_subject(const std::string& text);
Result<std::pair<std::string, std::string>> parse_label(std::string_view text);  // "k=v"
Result<policy::Labels> parse_labels(std::string_view text);                      // "k=v,k2=v2"

// Those that are meant by a name ("gpu0"), an index (with its MIG devices), "0:3" or a UUID; an
// Error where none is. Empty: all.
Result<std::vector<policy::DeviceFacts>> choose_devices(
    const std::vector<policy::DeviceFacts>& devices, const std::string& wanted);

nlohmann::json explain(const policy::Generation& generation, const Question& question,
                       const std::vector<policy::DeviceFacts>& devices);

}  // namespace mps::api
