// The supervisor's gates: who decides who may come in, and what they have to know.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "app/bypass.h"
#include "app/supervisor.h"
#include "process/pid_space.h"

namespace mps::app {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::seconds k_learn_again{1};
constexpr std::chrono::seconds k_learn_rarely{60};

identity::ResolverSettings resolver_settings(const Settings& settings) {
  identity::ResolverSettings resolver;
  resolver.overrides = settings.state_dir / "identities.json";
  return resolver;
}

}  // namespace

Result<void> Supervisor::open_desk() {
  if (settings_.gate == Settings::Gate::off) {
    if (settings_.hard_limits) spdlog::warn("hardLimits: on does nothing with gate: off");
    return {};
  }
  auto gate = find_own_program("mps-gate");
  if (!gate) return gate.error();
  auto client = find_own_program("mps-cuinit");
  if (!client) return client.error();
  gate_program_ = std::move(*gate);
  client_program_ = std::move(*client);
  admission::ControllerSettings desk;
  desk.checkpoint = settings_.state_dir / "admissions.log";
  desk.ledger.overcommit_threads = settings_.overcommit_threads;
  desk.ledger.overcommit_memory = settings_.overcommit_memory;
  desk.ledger.uid_conflict_waits = settings_.uid_conflict_waits;
  desk.wait = settings_.admission_wait;
  admission::ControllerSources sources;
  sources.resolver = std::make_shared<identity::Resolver>(resolver_settings(settings_));
  sources.policies = [keeper = policies_] { return keeper->reading().generation; };
  sources.say = [this](const std::string& kind, const std::string& instance,
                       const std::string& message) { say_of(kind, instance, message); };
  sources.terminate = [this](const std::string& instance,
                             const std::vector<share::Process>& processes,
                             std::function<void(const std::vector<admission::Ended>&)> told) {
    terminate_for_desk(instance, processes, std::move(told));
  };
  if (fault_watch_) {
    sources.kept_out = [watch = fault_watch_](const identity::Identity& who,
                                              const std::string& command) {
      return watch->kept_out(who, command);
    };
    sources.let_in = [watch = fault_watch_](const admission::LetIn& in) { watch->let_in(in); };
    sources.left = [watch = fault_watch_](const std::string& instance,
                                          const share::Process& process) {
      watch->left(instance, process);
    };
  }
  auto opened = admission::Controller::open(io_.get_executor(), desk, std::move(sources));
  if (!opened) return opened.error();
  desk_ = std::move(*opened);
  recalled_ = desk_->take_recalled();
  admission_server_ = std::make_shared<admission::AdmissionServer>(io_.get_executor(), *desk_);
  ShareKeeper::Settings keeper;
  keeper.mounted = [base = settings_.run_dir](const std::vector<std::filesystem::path>& folders) {
    return process::who_is_mounted(base, folders);
  };
  share_keeper_ = std::make_shared<ShareKeeper>(
      io_.get_executor(), std::move(keeper), desk_,
      [this](const std::string& kind, const std::string& instance, const std::string& message) {
        say_of(kind, instance, message);
      });
  share_programs_ = find_share_programs();
  return admission_server_->start();
}

// Shares are of use without them, too.
std::shared_ptr<SharePrograms> Supervisor::find_share_programs() {
  std::vector<SharePrograms::Program> programs;
  std::vector<Error> missing;
  if (auto launcher = find_own_program("mps-run")) {
    programs.push_back({"bin", "mps-run", std::move(*launcher)});
  } else {
    missing.push_back(launcher.error());
  }
  if (auto shim = find_own_library("libmps-shim.so")) {
    programs.push_back({"lib", "libmps-shim.so", std::move(*shim)});
  } else {
    missing.push_back(shim.error());
  }
  auto found = std::make_shared<SharePrograms>(std::move(programs), missing);
  std::string what;
  for (const auto& error : missing) what += (what.empty() ? "" : "; ") + error.message;
  if (!missing.empty()) say("share_program_missing", what + "; shares go without");
  return found;
}

std::shared_ptr<GatedEntrance> Supervisor::make_gate(const WantedInstance& wanted,
                                                     const instance::Layout& layout) {
  const auto devices = device_facts();
  const auto device = std::find_if(devices.begin(), devices.end(), [&wanted](const auto& facts) {
    return facts.uuid == wanted.device;
  });
  policy::DeviceFacts facts;
  facts.uuid = wanted.device;
  if (device != devices.end()) facts = *device;
  const auto visible = visible_devices(facts, inventory_.devices.size());
  GatedEntranceSettings settings{{wanted.id, wanted.domain, std::move(facts)},
                                 layout,
                                 gate_program_,
                                 {"LANG=C", "LC_ALL=C"},
                                 settings_.admission_wait,
                                 store_,
                                 share_programs_,
                                 visible};
  auto gate = std::make_shared<GatedEntrance>(
      io_.get_executor(), std::move(settings), desk_, admission_server_,
      [this](const std::string& kind, const std::string& instance, const std::string& message) {
        say_of(kind, instance, message);
      });
  if (opening_) gate->set_opening(*opening_);
  share_keeper_->attach(gate);
  std::erase_if(gates_, [](const auto& weak) { return weak.expired(); });
  gates_.push_back(gate);
  return gate;
}

// From the manager's store, of instances that nobody wants any more.
void Supervisor::drop_unclaimed_sockets() {
  std::set<std::string> ours;
  for (const auto& weak : gates_) {
    if (const auto gate = weak.lock()) ours.insert(gate->instance());
  }
  store_->drop_unclaimed_unless(
      [&ours](const std::string& instance, const std::string&) { return ours.contains(instance); });
}

// ---- what no gate can see ----

std::shared_ptr<Auditor> Supervisor::make_auditor() {
  AuditorSources sources;
  sources.instances = [this] { return fleet_.snapshots(); };
  sources.ledger = [this] { return desk_ ? &desk_->ledger() : nullptr; };
  if (!settings_.devices) {
    sources.processes = [this](std::vector<std::string> uuids) {
      return devices_->processes(std::move(uuids));
    };
  }
  sources.policies = [keeper = policies_] { return keeper->reading().generation; };
  sources.resolver = std::make_shared<identity::Resolver>(resolver_settings(settings_));
  sources.say = [this](const std::string& kind, const std::string& instance,
                       const std::string& message) { say_of(kind, instance, message); };
  sources.terminate = [this](const std::string& instance, share::Process process,
                             const std::string& why) {
    terminate_violator(instance, process, why);
  };
  return std::make_shared<Auditor>(io_.get_executor(),
                                   AuditorSettings{.interval = settings_.audit_interval,
                                                   .node_pids = process::in_node_pid_namespace()},
                                   std::move(sources));
}

std::vector<instance::Snapshot> Supervisor::instances() const {
  auto all = fleet_.snapshots();
  for (auto& instance : all) {
    const auto device =
        std::find_if(inventory_.devices.begin(), inventory_.devices.end(),
                     [&instance](const auto& one) { return one.uuid == instance.device; });
    instance.bypass = bypass_of(instance, device == inventory_.devices.end() ? nullptr : &*device,
                                auditor_->knows(instance.device));
  }
  return all;
}

// ---- what gates have to know ----

void Supervisor::tell_gates() {
  const auto devices = device_facts();
  for (const auto& weak : gates_) {
    const auto gate = weak.lock();
    if (!gate) continue;
    for (const auto& device : devices) {
      gate->device_is(device, visible_devices(device, inventory_.devices.size()));
    }
  }
}

gate::LearnSettings Supervisor::lesson_settings() const {
  gate::LearnSettings lesson;
  lesson.control_program = programs_.control;
  lesson.client_program = client_program_;
  lesson.environment = daemon_environment(environment_, {.programs = programs_,
                                                         .library_path = settings_.library_path,
                                                         .pipe_directory = "/nonexistent",
                                                         .log_directory = "/nonexistent",
                                                         .device = ""});
  lesson.scratch = settings_.run_dir;
  return lesson;
}

// With gate: auto, before there are instances: only a no makes them direct. Who is told neither yes
// nor no, on a busy machine, asks once more, since instances are made only once.
asio::awaitable<void> Supervisor::see_if_gates_can_stand() {
  if (!desk_ || settings_.gate != Settings::Gate::automatic) co_return;
  const auto remembered = settings_.state_dir / "opening.json";
  auto lesson = co_await learn_or_recall(lesson_settings(), remembered);
  if (!lesson.opening && !lesson.impossible) {
    spdlog::info("what CUDA programs say first was not learnt: {}; once more", lesson.why);
    lesson = co_await learn_or_recall(lesson_settings(), remembered);
  }
  opening_ = std::move(lesson.opening);
  if (!lesson.impossible) co_return;
  share_keeper_->close();
  admission_server_->stop();
  desk_->close();
  share_keeper_.reset();
  admission_server_.reset();
  desk_.reset();
  say("gate_not_possible",
      "no gate can stand on this node: " + lesson.why +
          "; instances are direct: nobody is asked who comes in, and programs that start while a "
          "control daemon is down run without MPS (gate: off says that this is meant)");
}

// Until it is known the gates hold everybody; that it takes long is never taken for a no.
asio::awaitable<void> Supervisor::learn_opening() {
  auto pause = k_learn_again;
  while (!ending_ && !opening_) {
    auto lesson = co_await learn_or_recall(lesson_settings(), settings_.state_dir / "opening.json");
    if (ending_) co_return;
    if (lesson.opening) {
      opening_ = std::move(lesson.opening);
      for (const auto& weak : gates_) {
        if (const auto gate = weak.lock()) gate->set_opening(*opening_);
      }
      co_return;
    }
    say_once("opening: " + lesson.why, "gate_not_ready",
             "what CUDA programs of this node say first cannot be learnt: " + lesson.why +
                 (lesson.impossible ? "; nobody gets in, gate: off lets all in"
                                    : "; nobody gets in until it is"));
    asio::steady_timer timer(io_, pause);
    co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
    pause = std::min(pause * 2, k_learn_rarely);
  }
}

api::AdmissionStatus Supervisor::admissions() const {
  if (!desk_) return {};
  const auto devices = device_facts();
  const auto instances = fleet_.snapshots();
  return api::admission_status({desk_->ledger(), *policies_->reading().generation, devices,
                                instances, desk_->refused(), settings_.overcommit_threads,
                                settings_.overcommit_memory, std::chrono::steady_clock::now(),
                                std::chrono::system_clock::now()});
}

}  // namespace mps::app
