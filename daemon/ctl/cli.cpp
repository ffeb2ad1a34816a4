#include "ctl/cli.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <string_view>

#include "api/explain.h"
#include "base/text.h"
#include "ctl/commands.h"
#include "ctl/completion.h"
#include "ctl/fault_commands.h"
#include "ctl/policy_commands.h"
#include "ctl/share_commands.h"

namespace mps::ctl {

namespace {

// The command line, and where its values go. `action` is what was asked for.
struct CommandLine {
  CommandLine(std::ostream& out_in, std::ostream& err_in);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  Console console() const { return {socket, format, out, err}; }
  CLI::App* command(const std::string& name, const std::string& description,
                    std::function<int(const Console&)> what, CLI::App* of = nullptr);
  void add_reading();
  void add_admissions();
  void add_shares();
  void add_events();
  void add_faults();
  void add_quarantine();
  void add_verb(const std::string& name, const std::string& description, bool takes_force);
  void add_terminate();
  void add_policy();
  void add_rest();
  std::vector<CommandInfo> infos() const;
  int completion() const;

  std::ostream& out;
  std::ostream& err;
  CLI::App app{"Shows and steers the MPS supervisor of this node.", "mps-ctl"};
  std::string socket = "/run/mps/supervisor.sock";
  Format format = Format::table;
  ClientsOptions clients;
  AdmissionsOptions admissions;
  ShareOptions shares;
  EventsOptions events;
  FaultsOptions faults;
  QuarantineOptions quarantine;
  CheckOptions check;
  ExplainOptions explain;
  std::string policy;
  DoctorPlaces places;
  std::string instance;
  std::string client;
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
  add_admissions();
  add_shares();
  add_events();
  add_faults();
  add_quarantine();
  add_verb("drain", "Let no newcomers in; running clients may finish", false);
  add_verb("undrain", "Take a drain back", false);
  add_verb("restart", "End the control daemon and start another", true);
  add_terminate();
  add_policy();
  add_rest();
}

CLI::App* CommandLine::command(const std::string& name, const std::string& description,
                               std::function<int(const Console&)> what, CLI::App* of) {
  auto* sub = (of != nullptr ? of : &app)->add_subcommand(name, description);
  sub->fallthrough();  // so that -o and --socket may stand behind the command
  if (what) sub->callback([this, what = std::move(what)] { action = what; });
  return sub;
}

// Says what is wrong with a value, in the words of its parser.
template <typename Parse>
CLI::Validator checked_by(Parse parse) {
  return CLI::Validator(
      [parse](std::string& text) {
        const auto parsed = parse(text);
        return parsed ? std::string() : parsed.error().message;
      },
      "");
}

void CommandLine::add_policy() {
  auto* group =
      command("policy", "The policies: in force, in files, and what follows from them", {});
  group->require_subcommand(1);
  command("list", "The policies in force, and the errors of bad files", list_policies, group);
  auto* sub = command(
      "show", "The policy of one namespace",
      [this](const Console& to) { return show_policy(to, policy); }, group);
  sub->add_option("namespace", policy, "Such as team-a, unit:cron.service or \"*\"")
      ->required()
      ->type_name("NAMESPACE");
  sub = command(
      "check", "Find the errors of policy files, without a supervisor",
      [this](const Console& to) { return check_policies(to, check); }, group);
  sub->add_option("path", check.paths, "Directories and files")->required()->type_name("DIR|FILE");
  auto* config = sub->add_option("--config", check.config, "Settings with the devices to check for")
                     ->type_name("FILE");
  sub->add_flag("--node", check.node, "Check for the devices of the supervisor that runs here")
      ->excludes(config);
  sub = command(
      "explain", "What a namespace gets, and which line of which file says so",
      [this](const Console& to) { return explain_policy(to, explain); }, group);
  sub->add_option("--namespace", explain.subject, "Whose limits")
      ->required()
      ->check(checked_by(api::parse_subject))
      ->type_name("NAMESPACE");
  sub->add_option("--label", explain.labels, "A label of the pod; may be given several times")
      ->check(checked_by(api::parse_label))
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  sub->add_option("--device", explain.device,
                  "Only this one: its UUID, index or name, such as gpu0")
      ->type_name("DEVICE");
  auto* directory =
      sub->add_option("--policies", explain.policies, "By these files, without a supervisor")
          ->type_name("DIR");
  sub->add_option("--config", explain.config, "With --policies: settings with the devices")
      ->needs(directory)
      ->type_name("FILE");
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

void CommandLine::add_admissions() {
  auto* sub = command("admissions", "Who has been let in at the gates, and who waits",
                      [this](const Console& to) { return show_admissions(to, admissions); });
  auto* subject = sub->add_option("--namespace", admissions.subject, "Only those of this namespace")
                      ->check(checked_by(api::parse_subject))
                      ->type_name("NAMESPACE");
  auto* waiting = sub->add_flag("--waiting", admissions.waiting, "Who waits, and why");
  sub->add_flag("--use", admissions.use, "What it all comes to, of quotas and devices")
      ->excludes(waiting)
      ->excludes(subject);
}

void CommandLine::add_shares() {
  auto* group = command("shares", "What containers may mount, each with its limits", {});
  group->require_subcommand(0, 1);
  group->add_option("--instance", shares.instance, "Only those of this instance")->type_name("ID");
  // Called behind that of a subcommand too.
  group->callback([this, group] {
    if (!group->get_subcommands().empty()) return;
    action = [this](const Console& to) { return list_shares(to, shares); };
  });
  auto* sub = command(
      "create", "Make a share with limits of its own",
      [this](const Console& to) { return create_share(to, shares); }, group);
  sub->add_option("--device", shares.device, "Its UUID, index or name, such as gpu0")
      ->required()
      ->type_name("DEVICE");
  sub->add_option("--threads", shares.threads, "Of the SMs, for each client; 100 without it")
      ->type_name("PERCENT");
  sub->add_option("--memory", shares.memory, "Of the device, for each client; no limit without it")
      ->type_name("QUANTITY");
  sub->add_option("--namespace", shares.subject, "Whose it is; else whoever has it mounted")
      ->check(checked_by(api::parse_subject))
      ->type_name("NAMESPACE");
  sub->add_option("--ttl", shares.ttl, "How long newcomers may come in, such as 8h")
      ->type_name("DURATION");
  sub = command(
      "delete", "End a share; refused while it has clients",
      [this](const Console& to) { return delete_share(to, shares); }, group);
  sub->add_option("share", shares.id, "Its id, such as s1")->required()->type_name("SHARE");
  sub->add_flag("--drain", shares.drain, "Let its clients finish, and no newcomers in");
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

void CommandLine::add_faults() {
  auto* sub = command("faults", "Faults: what happened, whose doing it was, and what was done",
                      [this](const Console& to) { return show_faults(to, faults); });
  auto* id = sub->add_option("fault", faults.id, "The whole story of this one, such as f12")
                 ->type_name("FAULT");
  sub->add_option("--instance", faults.instance, "Only those of this instance")
      ->type_name("ID")
      ->excludes(id);
  sub->add_option("--since", faults.since, "Only those behind this one, or since this time")
      ->type_name("FAULT|TIME")
      ->excludes(id);
  sub->add_option("--limit", faults.limit, "At most so many, the newest")
      ->type_name("N")
      ->excludes(id);
}

void CommandLine::add_quarantine() {
  auto* group = command("quarantine", "Who is kept out, by policy or by hand", {});
  group->require_subcommand(1);
  command("list", "Who is kept out, why, and for how much longer", list_quarantine, group);
  auto* sub = command(
      "add", "Keep a namespace out, or a workload of it; running clients go on",
      [this](const Console& to) { return mps::ctl::add_quarantine(to, quarantine); }, group);
  sub->add_option("--namespace", quarantine.subject, "Such as team-a or unit:cron.service")
      ->required()
      ->check(checked_by(api::parse_subject))
      ->type_name("NAMESPACE");
  sub->add_option("--owner", quarantine.owner, "Only pods of this one, such as Deployment/web")
      ->type_name("OWNER");
  sub->add_option("--command", quarantine.command, "Only processes with this command line")
      ->type_name("COMMAND");
  sub->add_option("--for", quarantine.duration, "How long, such as 15m or 8h")
      ->required()
      ->type_name("DURATION");
  sub->add_option("--reason", quarantine.reason, "Why, in the words that they get to read")
      ->required()
      ->type_name("TEXT");
  sub = command(
      "remove", "Let them in again",
      [this](const Console& to) { return remove_quarantine(to, quarantine); }, group);
  sub->add_option("entry", quarantine.id, "Its id, such as q3")->required()->type_name("ENTRY");
}

void CommandLine::add_verb(const std::string& name, const std::string& description,
                           bool takes_force) {
  auto* sub = command(name, description, [this, name](const Console& to) {
    return carry_out(to, name, instance, force);
  });
  sub->add_option("instance", instance, "The instance's id, such as gpu0.shared")
      ->required()
      ->type_name("ID");
  if (takes_force)
    sub->add_flag("--force", force,
                  "Also while clients run, which ends them; puts its device back in service");
}

void CommandLine::add_terminate() {
  auto* sub = command("terminate", "End a client's work through MPS, and no other's",
                      [this](const Console& to) { return terminate(to, client); });
  sub->add_option("client", client, "The client's pid, as `mps-ctl clients` shows it")
      ->required()
      ->check(CLI::PositiveNumber)
      ->type_name("PID");
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

CommandInfo info_of(const CLI::App& sub, const std::string& parent) {
  CommandInfo info{parent + sub.get_name(), sub.get_description(), {"--output", "--socket"}, {}};
  for (const auto* option : sub.get_options()) {
    for (const auto& name : option->get_lnames()) info.options.push_back("--" + name);
    if (!option->get_positional()) continue;
    if (option->get_name() == "instance") info.argument = Argument::instance;
    if (option->get_name() == "client") info.argument = Argument::client;
    if (option->get_name() == "namespace") info.argument = Argument::policy;
    if (option->get_name() == "share") info.argument = Argument::share;
    if (option->get_name() == "fault") info.argument = Argument::fault;
    if (option->get_name() == "entry") info.argument = Argument::entry;
    if (option->get_name() == "path") info.argument = Argument::file;
    if (option->get_name() == "shell") info.argument = Argument::shell;
  }
  return info;
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<CommandInfo> CommandLine::infos() const {
  std::vector<CommandInfo> list;
  for (const auto* sub : commands_of(app)) {
    list.push_back(info_of(*sub, ""));
    for (const auto* inner : commands_of(*sub)) {
      list.push_back(info_of(*inner, sub->get_name() + " "));
    }
  }
  return list;
}

int CommandLine::completion() const {
  out << completion_script(shell, infos()).value_or("");
  return k_done;
}

// In our own words where CLI11 only says that a subcommand is missing.
std::string usage_error(const CommandLine& line, const CLI::ParseError& wrong) {
  const auto* at = &line.app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  const auto extras = line.app.remaining(true);
  const auto known = commands_of(*at);
  if (known.empty() || extras.empty()) return printable(wrong.what(), 400);
  std::vector<std::string> names;
  for (const auto* command : known) names.push_back(command->get_name());
  const bool option = extras.front().starts_with('-');
  auto message = std::string("unknown ") + (option ? "option" : "command") + " \"" +
                 printable(extras.front(), 64) + "\"";
  const std::vector<std::string_view> candidates(names.begin(), names.end());
  if (const auto meant = did_you_mean(extras.front(), candidates)) {
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
