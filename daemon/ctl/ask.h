// What the subcommands share: a question to the supervisor, and its answer printed in the format
// that was asked for.
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "ctl/commands.h"

namespace mps::ctl {

using View = std::function<std::string(const nlohmann::json&)>;

// Says why, and gives the status back.
int fail(const Console& console, int status, const std::string& message);

std::string render(Format format, const nlohmann::json& value, const View& view);

std::string error_message(const Response& response);

// The value of a good answer; else the exit status, and the reason has been said.
struct Answered {
  nlohmann::json value;
  int status = k_done;
};

Answered ask(const Console& console, const std::string& method, const std::string& target,
             const std::string& body = "",
             std::chrono::milliseconds timeout = std::chrono::seconds(5));

int show(const Console& console, const std::string& target, const View& view);

}  // namespace mps::ctl
