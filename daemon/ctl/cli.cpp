#include "ctl/cli.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <string_view>

#include "base/text.h"
#include "ctl/commands.h"
#include "ctl/completion.h"

namespace mps::ctl {

namespace {

// The command line, and where its values go. `action` is what was asked for.
struct CommandLine {
  CommandLine(std::ostream& out_in, std::ostream& err_in);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  Console console() const { return {socket, format, out, err}; }
  CLI::App* command(const std::string& name, const std::string& description,
                    std::function<int(const Console&)> what);
  void add_reading();
  void add_events();
  void add_verb(const std::string& name, const std::string& description, bool takes_force);
  void add_rest();
  std::vector<CommandInfo> infos() const;
  int completion() const;

  std::ostream& out;
  std::ostream& err;
  CLI::App app{"Shows and steers the MPS supervisor of this node.", "mps-ctl"};
  std::string socket = "/run/mps/supervisor.sock";
  Format format = Format::table;
  ClientsOptions clients;
  EventsOptions events;
  DoctorPlaces places;
  std::string instance;
  std::string shell;
  bool force = false;
  std::function<int(const Console&)> action;
};

CommandLine::CommandLine(std::ostream& out_in, std::ostream& err_in) : out(out_in), err(err_in) {
  app.require_subcommand(1);
  app.add_option("--socket", socket, "The supervisor's socket")
      ->envname("MPS_SUPERVISOR_SOCKET")
      ->capture_default_str()
      ->type_name("PATH");
  app.add_option_function<std::string>(
         "-o,--output",
         [this](const std::string& name) {
           format = name == "wide"   ? Format::wide
                    : name == "json" ? Format::json
                    : name == "yaml" ? Format::yaml
                                     : Format::table;
         },
         "How to print: table, wide, json or yaml")
      ->check(CLI::IsMember(std::vector<std::string>{"table", "wide", "json", "yaml"}))
      ->type_name("FORMAT");
  app.footer(
      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 the supervisor is not reachable.\n"
      "The socket may also be given as MPS_SUPERVISOR_SOCKET.");
  add_reading();
  add_events();
  add_verb("drain", "Let no newcomers in; running clients may finish", false);
  add_verb("undrain", "Take a drain back", false);
  add_verb("restart", "End the control daemon and start another", true);
  add_rest();
}

CLI::App* CommandLine::command(const std::string& name, const std::string& description,
                               std::function<int(const Console&)> what) {
  auto* sub = app.add_subcommand(name, description);
  sub->fallthrough();  // so that -o and --socket may stand behind the command
  sub->callback([this, what = std::move(what)] { action = what; });
  return sub;
}

void CommandLine::add_reading() {
  command("status", "The supervisor, and a summary of everything else", show_status);
  command("devices", "GPUs and MIG devices, also those that MPS cannot run on", show_devices);
  command("instances", "The instances, one control daemon each", show_instances);
  auto* sub = command("clients", "The processes that are clients",
                      [this](const Console& to) { return show_clients(to, clients); });
  sub->add_option("--instance", clients.instance, "Only those of this instance")->type_name("ID");
  sub->add_flag("--watch", clients.watch, "Go on, and print when something has changed");
}

void CommandLine::add_events() {
  auto* sub = command("events", "What happened, each event once",
                      [this](const Console& to) { return show_events(to, events); });
  auto* follow = sub->add_flag("--follow,-f", events.follow, "Go on with what happens");
  sub->add_flag("--retry", events.retry, "Come back when the supervisor has gone")->needs(follow);
  sub->add_option("--since", events.since, "Only events behind this id")->type_name("ID");
  sub->add_option("--limit", events.limit, "At most so many")->type_name("N")->excludes(follow);
  sub->add_option("--kind", events.kind, "Only events of this kind")->type_name("KIND");
  sub->add_option("--instance", events.instance, "Only those of this instance")->type_name("ID");
}

void CommandLine::add_verb(const std::string& name, const std::string& description,
                           bool takes_force) {
  auto* sub = command(name, description, [this, name](const Console& to) {
    return carry_out(to, name, instance, force);
  });
  sub->add_option("instance", instance, "The instance's id, such as gpu0.shared")
      ->required()
      ->type_name("ID");
  if (takes_force) sub->add_flag("--force", force, "Also while clients run, which ends them");
}

void CommandLine::add_rest() {
  auto* sub = command("doctor", "Look at this node, and say what stands in the way of MPS",
                      [this](const Console& to) { return doctor(to, places); });
  sub->add_option("--config", places.config, "The supervisor's settings file")
      ->capture_default_str()
      ->type_name("FILE")
      ->each([this](const std::string&) { places.config_given = true; });
  sub = command("completion", "Print the completion script for a shell",
                [this](const Console&) { return completion(); });
  sub->add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember(std::vector<std::string>{"bash", "zsh", "fish"}))
      ->type_name("SHELL");
  command("version", "The versions of this program and of the supervisor", show_version);
}

std::vector<CommandInfo> CommandLine::infos() const {
  std::vector<CommandInfo> list;
  for (const auto* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    CommandInfo info{sub->get_name(), sub->get_description(), {"--output", "--socket"}, false};
    for (const auto* option : sub->get_options()) {
      for (const auto& name : option->get_lnames()) info.options.push_back("--" + name);
      if (option->get_positional() && option->get_name() == "instance") info.takes_instance = true;
    }
    list.push_back(std::move(info));
  }
  return list;
}

int CommandLine::completion() const {
  out << completion_script(shell, infos()).value_or("");
  return k_done;
}

// In our own words where CLI11 only says that a subcommand is missing.
std::string usage_error(const CommandLine& line, const CLI::ParseError& wrong) {
  const auto extras = line.app.remaining();
  if (!line.app.get_subcommands().empty() || extras.empty()) return printable(wrong.what(), 400);
  const auto commands = line.infos();
  std::vector<std::string_view> names;
  for (const auto& command : commands) names.emplace_back(command.name);
  const bool option = extras.front().starts_with('-');
  auto message = std::string("unknown ") + (option ? "option" : "command") + " \"" +
                 printable(extras.front(), 64) + "\"";
  if (const auto meant = did_you_mean(extras.front(), names)) {
    message += "; did you mean \"" + std::string(*meant) + "\"?";
  }
  return message;
}

}  // namespace

int run(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  CommandLine line(out, err);
  try {
    // CLI11 takes them from the back.
    line.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& wrong) {
    if (wrong.get_exit_code() == 0) return line.app.exit(wrong, out, err);
    err << "mps-ctl: " << usage_error(line, wrong) << "\nRun mps-ctl --help for usage.\n";
    return k_usage;
  }
  return line.action(line.console());
}

}  // namespace mps::ctl
