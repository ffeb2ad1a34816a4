#include "ctl/completion.h"

#include <algorithm>

namespace mps::ctl {

namespace {

// Names of what there is, one a line. "-" is a cell without a value. No double quotes: fish has
// them around it.
constexpr std::string_view k_instances =
    "mps-ctl instances 2>/dev/null | awk 'NR>1&&$1!~/^-$/{print $1}'";
constexpr std::string_view k_shares =
    "mps-ctl shares 2>/dev/null | awk 'NR>1&&$1!~/^(-|open)$/{print $1}'";
constexpr std::string_view k_clients =
    "mps-ctl clients 2>/dev/null | awk 'NR>1&&$2!~/^-$/{print $2}'";
constexpr std::string_view k_faults =
    "mps-ctl faults 2>/dev/null | awk 'NR>1&&$1!~/^-$/{print $1}'";
constexpr std::string_view k_entries =
    "mps-ctl quarantine list 2>/dev/null | awk 'NR>1&&$1!~/^-$/{print $1}'";
constexpr std::string_view k_policies =
    "mps-ctl policy list 2>/dev/null | awk 'NR>1{if(NF==0)exit;if($1!~/^-$/)print $1}'";

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const auto& word : words) line += (line.empty() ? "" : " ") + word;
  return line;
}

bool is_inner(const CommandInfo& command) {
  return command.name.find(' ') != std::string::npos;
}

// The commands at the top, or those of one of them.
std::string names(const std::vector<CommandInfo>& commands, const std::string& parent = "") {
  const auto head = parent.empty() ? parent : parent + " ";
  std::string line;
  for (const auto& command : commands) {
    if (is_inner(command) == parent.empty() || !command.name.starts_with(head)) continue;
    line += (line.empty() ? "" : " ") + command.name.substr(head.size());
  }
  return line;
}

// "; _mps_ctl_add "$(…)"": by lines and in quotes, since "*" is a namespace and no pattern.
std::string added(std::string_view command) {
  return "; _mps_ctl_add \"$(" + std::string(command) + ")\"";
}

std::string argument_lines(const CommandInfo& command) {
  switch (command.argument) {
    case Argument::instance:
      return added(k_instances);
    case Argument::client:
      return added(k_clients);
    case Argument::policy:
      return added(k_policies);
    case Argument::share:
      return added(k_shares);
    case Argument::fault:
      return added(k_faults);
    case Argument::entry:
      return added(k_entries);
    case Argument::shell:
    case Argument::none:
    case Argument::file:
      break;
  }
  return "";
}

std::string words_of(const CommandInfo& command, const std::vector<CommandInfo>& all) {
  auto line = joined(command.options);
  if (const auto inner = names(all, command.name); !inner.empty()) line += " " + inner;
  return command.argument == Argument::shell ? line + " bash zsh fish" : line;
}

// What a line of commands becomes with one word more: "policy list", " events".
std::string bash_commands(const std::vector<CommandInfo>& commands) {
  std::string patterns;
  for (const auto& command : commands) {
    patterns += (patterns.empty() ? "'" : "|'") + std::string(is_inner(command) ? "" : " ") +
                command.name + "'";
  }
  return patterns;
}

// The lines of its argument, as words to choose from.
constexpr std::string_view k_bash_add =
    "_mps_ctl_add() {\n"
    "  local line\n"
    "  while IFS= read -r line; do [[ -z $line ]] || choices+=(\"$line\"); done <<< \"$1\"\n"
    "}\n";

// What is typed, taken from the line: COMP_WORDS is split at colons. A reply is quoted as the shell
// would need it, unless a quote is open, and goes behind the last colon, where the word is split.
constexpr std::string_view k_bash_reply =
    "  local quote= cut= quoted\n"
    "  case $current in [\\'\\\"]*) quote=1 current=${current#?} ;; esac\n"
    "  if [[ -z $quote && $COMP_WORDBREAKS == *:* && $current == *:* ]]; then\n"
    "    cut=${current%:*}:\n"
    "  fi\n"
    "  COMPREPLY=()\n"
    "  for word in \"${choices[@]}\"; do\n"
    "    printf -v quoted %q \"$word\"\n"
    "    [[ $word == \"$current\"* || $quoted == \"$current\"* ]] || continue\n"
    "    [[ -n $quote ]] || word=$quoted\n"
    "    COMPREPLY+=(\"${word#\"$cut\"}\")\n"
    "  done\n";

// Also what zsh uses, by its bashcompinit.
std::string bash_script(const std::vector<CommandInfo>& commands) {
  std::string script(k_bash_add);
  script +=
      "_mps_ctl() {\n"
      "  local line=${COMP_LINE:0:COMP_POINT} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  local current=${line##*[[:space:]]} command= word\n"
      "  local -a choices\n"
      "  choices=()\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    case \"$command $word\" in\n"
      "      " +
      bash_commands(commands) +
      ") command=\"${command:+$command }$word\" ;;\n"
      "    esac\n"
      "  done\n"
      "  case $previous in\n"
      "    -o|--output) choices=(table wide json yaml) ;;\n"
      "    --instance) choices=()" +
      added(k_instances) +
      " ;;\n"
      "    --namespace) choices=()" +
      added(k_policies) +
      " ;;\n"
      "    *) case $command in\n"
      "      '') choices=(" +
      names(commands) + " --output --socket --help) ;;\n";
  for (const auto& command : commands) {
    script += "      '" + command.name + "') choices=(" + words_of(command, commands) + ")" +
              argument_lines(command) + " ;;\n";
  }
  script += "    esac ;;\n  esac\n";
  return script.append(k_bash_reply) + "}\ncomplete -o default -F _mps_ctl mps-ctl\n";
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

// "(mps-ctl …)", with its dollars kept for awk. Fish takes each line of it as it is.
std::string fish_substitution(std::string_view command) {
  std::string text;
  for (const char character : command) {
    if (character == '$') text.push_back('\\');
    text.push_back(character);
  }
  return "\"(" + text + ")\"";
}

std::string fish_argument(const CommandInfo& command) {
  switch (command.argument) {
    case Argument::instance:
      return "-a " + fish_substitution(k_instances);
    case Argument::client:
      return "-a " + fish_substitution(k_clients);
    case Argument::policy:
      return "-a " + fish_substitution(k_policies);
    case Argument::share:
      return "-a " + fish_substitution(k_shares);
    case Argument::fault:
      return "-a " + fish_substitution(k_faults);
    case Argument::entry:
      return "-a " + fish_substitution(k_entries);
    case Argument::shell:
      return "-a 'bash zsh fish'";
    case Argument::file:
      return "-F";
    case Argument::none:
      break;
  }
  return "";
}

std::string fish_command(const CommandInfo& command, const std::vector<CommandInfo>& all) {
  const std::string complete = "complete -c mps-ctl ";
  const auto space = command.name.find(' ');
  const auto own = space == std::string::npos ? command.name : command.name.substr(space + 1);
  const auto parent = space == std::string::npos ? "" : command.name.substr(0, space);
  auto seen = "__fish_seen_subcommand_from " + own;
  auto offered = std::string("__fish_use_subcommand");
  if (!parent.empty()) {
    const auto within = "__fish_seen_subcommand_from " + parent;
    offered = "'" + within + "; and not __fish_seen_subcommand_from " + names(all, parent) + "'";
    seen = within + "; and " + seen;
  }
  auto script =
      complete + "-n " + offered + " -a " + own + " -d " + quoted(command.description) + "\n";
  seen = complete + "-n '" + seen + "' ";
  for (const auto& option : command.options) {
    if (option == "--output" || option == "--socket") continue;
    script += seen + "-l " + option.substr(2) + "\n";
  }
  if (const auto argument = fish_argument(command); !argument.empty()) {
    script += seen + argument + "\n";
  }
  return script;
}

std::string fish_script(const std::vector<CommandInfo>& commands) {
  const std::string complete = "complete -c mps-ctl ";
  std::string script = complete + "-f\n" + complete +
                       "-s o -l output -x -a 'table wide json yaml'\n" + complete +
                       "-l socket -r\n";
  for (const auto& command : commands) script += fish_command(command, commands);
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
