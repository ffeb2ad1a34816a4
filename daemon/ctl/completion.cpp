#include "ctl/completion.h"

#include <algorithm>

namespace mps::ctl {

namespace {

constexpr std::string_view k_instances = "$(mps-ctl instances 2>/dev/null | awk 'NR>1{print $1}')";

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const auto& word : words) line += (line.empty() ? "" : " ") + word;
  return line;
}

std::string names(const std::vector<CommandInfo>& commands, char separator) {
  std::string line;
  for (const auto& command : commands) {
    if (!line.empty()) line.push_back(separator);
    line += command.name;
  }
  return line;
}

// Also what zsh uses, by its bashcompinit.
std::string bash_script(const std::vector<CommandInfo>& commands) {
  std::string script =
      "_mps_ctl() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  local command= word words=\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    case $word in\n"
      "      " +
      names(commands, '|') +
      ") command=$word; break ;;\n"
      "    esac\n"
      "  done\n"
      "  case $previous in\n"
      "    -o|--output) words='table wide json yaml' ;;\n"
      "    --instance) words=\"" +
      std::string(k_instances) +
      "\" ;;\n"
      "    *) case $command in\n"
      "      '') words='" +
      names(commands, ' ') + " --output --socket --help' ;;\n";
  for (const auto& command : commands) {
    script += "      " + command.name + ") words=\"" + joined(command.options);
    if (command.takes_instance) script += " " + std::string(k_instances);
    script += command.name == "completion" ? " bash zsh fish\" ;;\n" : "\" ;;\n";
  }
  return script +
         "    esac ;;\n"
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "}\n"
         "complete -F _mps_ctl mps-ctl\n";
}

std::string zsh_script(const std::vector<CommandInfo>& commands) {
  return "#compdef mps-ctl\nautoload -U +X bashcompinit && bashcompinit\n" + bash_script(commands);
}

std::string quoted(std::string text) {
  for (std::size_t at = 0; (at = text.find('\'', at)) != std::string::npos; at += 2) {
    text.insert(at, 1, '\\');
  }
  return "'" + text + "'";
}

std::string fish_script(const std::vector<CommandInfo>& commands) {
  const std::string complete = "complete -c mps-ctl ";
  std::string script = complete + "-f\n" + complete +
                       "-s o -l output -x -a 'table wide json yaml'\n" + complete +
                       "-l socket -r\n";
  for (const auto& command : commands) {
    script += complete + "-n __fish_use_subcommand -a " + command.name + " -d " +
              quoted(command.description) + "\n";
    const auto seen = complete + "-n '__fish_seen_subcommand_from " + command.name + "' ";
    for (const auto& option : command.options) {
      if (option == "--output" || option == "--socket") continue;
      script += seen + "-l " + option.substr(2) + "\n";
    }
    if (command.takes_instance) {
      script += seen + "-a \"(mps-ctl instances 2>/dev/null | awk 'NR>1{print \\$1}')\"\n";
    }
    if (command.name == "completion") script += seen + "-a 'bash zsh fish'\n";
  }
  return script;
}

}  // namespace

std::optional<std::string> completion_script(std::string_view shell,
                                             const std::vector<CommandInfo>& commands) {
  if (shell == "bash") return bash_script(commands);
  if (shell == "zsh") return zsh_script(commands);
  if (shell == "fish") return fish_script(commands);
  return std::nullopt;
}

}  // namespace mps::ctl
