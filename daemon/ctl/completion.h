// Completion scripts for shells, made from what the command line knows. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mps::ctl {

enum class Argument { none, instance, client, policy, share, fault, entry, file, shell };

struct CommandInfo {
  std::string name;  // "events", "policy list"
  std::string description;
  std::vector<std::string> options;  // "--follow"
  Argument argument = Argument::none;
};

// None: no such shell; bash, zsh and fish are.
std::optional<std::string> completion_script(std::string_view shell,
                                             const std::vector<CommandInfo>& commands);

}  // namespace mps::ctl
