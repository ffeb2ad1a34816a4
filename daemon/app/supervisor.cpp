#include "app/supervisor.h"

#include <grp.h>
#include <spdlog/spdlog.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <utility>

#include "app/left_daemons.h"
#include "app/notify.h"
#include "base/text.h"

namespace mps::app {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr auto k_use = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds k_devices_every{30};
constexpr std::chrono::seconds k_disks_every{10};
constexpr std::chrono::seconds k_first_policies{5};  // then we start without them
constexpr std::uint64_t k_disk_low = 1024 * 1024;    // bytes; less is as good as none

std::optional<gid_t> group_id(const std::string& name) {
  if (const auto number = parse_number<gid_t>(name)) return number;
  std::array<char, 4096> buffer{};
  group entry{};
  group* found = nullptr;
  if (getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || !found) {
    return std::nullopt;
  }
  return found->gr_gid;
}

instance::MachineSettings machine_settings(const Settings& settings) {
  instance::MachineSettings machine;
  machine.probe_interval = settings.probe.interval;
  machine.probe_timeout = settings.probe.timeout;
  machine.probe_failures = settings.probe.failures;
  machine.backoff = {settings.backoff.initial, settings.backoff.max,
                     settings.backoff.budget_failures, settings.backoff.budget_within};
  machine.end_channel_holder = settings.end_channel_holder;
  return machine;
}

}  // namespace

// ---- construction ----

Result<std::unique_ptr<Supervisor>> Supervisor::open(asio::io_context& io, Settings settings,
                                                     Programs programs, Environment environment,
                                                     UniqueFd lock,
                                                     std::shared_ptr<FdStore> store) {
  auto log = api::EventLog::open({.directory = settings.state_dir});
  if (!log) return log.error();
  auto follower = process::Follower::create(io.get_executor());
  if (!follower) return follower.error();
  auto ledger = device::ComputeModeLedger::open(settings.state_dir / "compute-modes.json");
  if (!ledger) return ledger.error();
  std::unique_ptr<Supervisor> supervisor(new Supervisor(
      io, std::move(settings), std::move(programs), std::move(environment), std::move(lock),
      std::move(store), std::move(*log), std::move(*follower), std::move(*ledger)));
  supervisor->open_faults();
  if (auto opened = supervisor->open_desk(); !opened) return opened.error();
  supervisor->auditor_ = supervisor->make_auditor();
  if (auto opened = supervisor->open_sockets(); !opened) return opened.error();
  return supervisor;
}

Supervisor::Supervisor(asio::io_context& io, Settings settings, Programs programs,
                       Environment environment, UniqueFd lock, std::shared_ptr<FdStore> store,
                       std::unique_ptr<api::EventLog> log,
                       std::unique_ptr<process::Follower> follower,
                       device::ComputeModeLedger ledger)
    : io_(io),
      settings_(std::move(settings)),
      programs_(std::move(programs)),
      environment_(std::move(environment)),
      lock_(std::move(lock)),
      store_(std::move(store)),
      log_(std::move(log)),
      recorder_(*log_),
      follower_(std::move(follower)),
      ledger_(std::move(ledger)),
      policies_(std::make_shared<PolicyKeeper>(
          io.get_executor(),
          PolicyKeeper::Settings{.directory = settings_.policy_dir,
                                 .store = settings_.state_dir / "policies.json"},
          [this](const std::string& kind, const std::string& message) { say(kind, message); })),
      fleet_(
          io, [this] { return find_left_daemons(settings_.run_dir, desk_ != nullptr); },
          [this](const WantedInstance& wanted) { return make_instance(wanted); },
          [this](const std::string& kind, const std::string& message) { say(kind, message); }),
      change_(io),
      started_at_(std::chrono::system_clock::now()) {
  if (!settings_.cdi_dir.empty()) {
    cdi_.emplace(settings_.cdi_dir.lexically_normal(), settings_.run_dir);
  }
  if (settings_.devices) {
    devices_ = device::make_declared_source(*settings_.devices);
  } else {
    devices_ = device::make_nvml_source(io.get_executor(), {.library = settings_.nvml_library});
  }
}

Supervisor::~Supervisor() {
  errors_.reset();
  policies_->close();
  fleet_.close();
  if (share_keeper_) share_keeper_->close();
  if (auditor_) auditor_->close();
  if (fault_ender_) fault_ender_->close();
  if (fault_watch_) fault_watch_->close();
  if (admission_server_) admission_server_->stop();
  if (desk_) desk_->close();
}

Result<void> Supervisor::open_sockets() {
  api::ServerSettings server;
  server.socket = settings_.run_dir / "supervisor.sock";
  server.operators = group_id(settings_.operators_group);
  if (!server.operators) {
    spdlog::info("no group {}: only root can use {}", settings_.operators_group,
                 server.socket.string());
  }
  auto opened = api::Server::open(io_.get_executor(), server, *this, *log_);
  if (!opened) return opened.error();
  server_ = std::move(*opened);
  if (settings_.metrics_listen.empty()) return {};
  auto metrics =
      api::MetricsServer::open(io_.get_executor(), settings_.metrics_listen, *this, *log_);
  if (metrics) {
    metrics_ = std::move(*metrics);
  } else {
    // GPUs are worth more than their metrics: go on, and say so.
    say("metrics_unavailable",
        metrics.error().message + "; change metricsListen, or set it to off");
  }
  return {};
}

// ---- running ----

asio::awaitable<void> Supervisor::run() {
  asio::signal_set signals(io_, SIGTERM, SIGINT);
  take_inventory(co_await devices_->list());
  co_await settle_compute_modes();
  // First the policies: a daemon that is new is not to serve a moment without its limits.
  co_await policies_->start(device_facts(), k_first_policies);
  co_await see_if_gates_can_stand();
  policies_->on_change([this] {
    settle_instances();
    if (desk_) desk_->policies_changed();
  });
  if (desk_) {
    co_spawn(io_, learn_opening(), asio::detached);
    desk_->on_share_closing([this](const share::Share& share) {
      if (cdi_) (void)cdi_->remove(share.id);  // one that stays is tried again, and said
    });
    desk_->on_share_change([this] {
      settle_instances();
      share_keeper_->look_soon();
    });
  }
  fleet_.on_change([this] { change_.cancel(); });
  settle_instances();
  if (!desk_) drop_unclaimed_sockets();
  co_spawn(io_, watch_devices(), asio::detached);
  co_spawn(io_, watch_disks(), asio::detached);
  auditor_->start();
  if (const auto interval = watchdog_interval()) {
    co_spawn(io_, keep_watchdog(*interval), asio::detached);
  }
  notify("READY=1\nSTATUS=" + std::to_string(fleet_.size()) + " instances");
  const auto [error, number] = co_await signals.async_wait(k_use);
  spdlog::info("signal {}: ending{}", number,
               settings_.stop_instances ? ", and ending the control daemons"
                                        : "; the control daemons go on");
  notify("STOPPING=1");
  // A second one is the default action again: at once.
  signals.clear();
  co_await end();
}

bool Supervisor::inventory_is_sure() const {
  return inventory_.error.empty() && !inventory_.devices.empty() &&
         std::all_of(inventory_.devices.begin(), inventory_.devices.end(),
                     [](const device::Device& device) { return device.error.empty(); });
}

void Supervisor::settle_instances() {
  if (ending_) return;
  fleet_.reconcile(wanted_instances(inventory_, *policies_->reading().generation, settings_.limits,
                                    desk_ ? desk_->shares() : admission::Shares()),
                   inventory_is_sure());
  settle_faults();
  settle_cdi();
}

std::shared_ptr<FleetMember> Supervisor::make_instance(const WantedInstance& wanted) {
  const instance::Layout layout(settings_.run_dir, wanted.id);
  instance::ActorSettings actor;
  actor.id = wanted.id;
  actor.device = wanted.device;
  actor.domain = wanted.domain;
  actor.run_dir = settings_.run_dir;
  actor.control_program = programs_.control;
  actor.environment = daemon_environment(environment_, {.programs = programs_,
                                                        .library_path = settings_.library_path,
                                                        .pipe_directory = layout.pipe,
                                                        .log_directory = layout.private_,
                                                        .device = wanted.device});
  actor.machine = machine_settings(settings_);
  actor.machine.limits = wanted.limits;
  auto gate = desk_ ? make_gate(wanted, layout) : nullptr;
  actor.entrance = gate;
  watch_faults(wanted, actor);
  if (!fault_ender_) make_fault_ender();
  actor.end_faulted = [ender = fault_ender_, id = wanted.id](
                          const std::vector<instance::Client>& clients,
                          instance::ActorSettings::Told told) {
    ender->end(id, clients, std::move(told));
  };
  auto made = std::make_shared<instance::Actor>(io_.get_executor(), std::move(actor), *follower_,
                                                recorder_);
  if (gate && settings_.hard_limits) gate->limit_newcomers(made);
  return std::make_shared<ActorMember>(std::move(made), std::move(gate));
}

void Supervisor::say_once(const std::string& about, const std::string& kind,
                          const std::string& message) {
  if (said_.insert(about).second) say(kind, message);
}

void Supervisor::say(const std::string& kind, const std::string& message) {
  api::Event event;
  event.kind = kind;
  event.message = message;
  log_->append(std::move(event));
  spdlog::warn("{}: {}", kind, message);
}

void Supervisor::say_of(const std::string& kind, const std::string& instance,
                        const std::string& message, nlohmann::json data) {
  api::Event event;
  event.kind = kind;
  event.instance = instance;
  event.data = std::move(data);
  event.message = message;
  log_->append(std::move(event));
  spdlog::warn("{}: {}: {}", instance, kind, message);
}

// ---- devices ----

void Supervisor::take_inventory(device::Inventory fresh) {
  if (fresh.error != inventory_.error && !fresh.error.empty()) {
    say("devices_unknown", fresh.error + "; without NVML, devices can be declared in the settings");
  }
  for (const auto& device : fresh.devices) {
    if (device.error.empty()) continue;
    say_once(device.uuid + ": " + device.error, "device_error",
             device.short_name() + " (" + device.uuid + "): " + device.error);
  }
  inventory_ = std::move(fresh);
  tell_gates();
}

asio::awaitable<void> Supervisor::watch_devices() {
  asio::steady_timer timer(io_);
  while (!ending_) {
    timer.expires_after(k_devices_every);
    co_await timer.async_wait(k_use);
    if (ending_) co_return;
    take_inventory(co_await devices_->list());
    if (ending_) co_return;
    co_await settle_compute_modes();
    policies_->set_devices(device_facts());
    settle_instances();
    if (inventory_is_sure()) drop_unclaimed_sockets();
  }
}

// computeMode: exclusive sets it where it is not, recorded first; leave puts back what an earlier
// supervisor (one that crashed, or had other settings) had changed.
asio::awaitable<void> Supervisor::settle_compute_modes() {
  if (!settings_.exclusive_compute_mode) {
    co_await put_back_compute_modes();
    co_return;
  }
  for (const auto& device : inventory_.devices) {
    if (!device.not_capable.empty() || device.kind == device::Kind::mig) continue;
    if (!device.compute_mode || device.compute_mode == device::ComputeMode::exclusive_process) {
      continue;
    }
    if (auto noted = ledger_.remember(device.uuid, *device.compute_mode); !noted) {
      say_once("compute modes", "compute_mode_failed",
               "compute modes are left alone: " + noted.error().message);
      co_return;
    }
    const auto uuid = device.uuid;
    auto set = co_await devices_->set_compute_mode(uuid, device::ComputeMode::exclusive_process);
    if (!set) {
      say_once("compute mode " + uuid, "compute_mode_failed", uuid + ": " + set.error().message);
    }
  }
}

asio::awaitable<void> Supervisor::put_back_compute_modes() {
  const auto changed = ledger_.original();
  for (const auto& [uuid, mode] : changed) {
    auto set = co_await devices_->set_compute_mode(uuid, mode);
    if (!set) {
      say_once("put back " + uuid, "compute_mode_failed",
               uuid + ": cannot be put back to " + to_string(mode) + ": " + set.error().message);
      continue;
    }
    spdlog::info("{}: compute mode put back to {}", uuid, to_string(mode));
    if (auto forgotten = ledger_.forget(uuid); !forgotten) {
      say("compute_mode_failed", forgotten.error().message);
    }
  }
}

// ---- what could go wrong around us ----

asio::awaitable<void> Supervisor::watch_disks() {
  asio::steady_timer timer(io_);
  while (!ending_) {
    for (const auto& folder : {settings_.run_dir, settings_.state_dir}) {
      struct statvfs space {};
      if (::statvfs(folder.c_str(), &space) != 0) continue;
      const bool full = space.f_bavail * space.f_frsize < k_disk_low ||
                        (space.f_files != 0 && space.f_favail == 0);
      const auto trouble = "disk " + folder.string();
      if (full && said_.insert(trouble).second) {
        say("disk_full", folder.string() +
                             ": no space left: events are kept in memory only and daemons' output "
                             "is lost until there is; free some");
      } else if (!full) {
        said_.erase(trouble);
      }
    }
    timer.expires_after(k_disks_every);
    co_await timer.async_wait(k_use);
  }
}

// From the reactor that it guards: a reactor that hangs sends nothing.
asio::awaitable<void> Supervisor::keep_watchdog(std::chrono::microseconds interval) {
  asio::steady_timer timer(io_);
  while (true) {
    notify("WATCHDOG=1");
    timer.expires_after(interval);
    co_await timer.async_wait(k_use);
  }
}

// ---- the end ----

asio::awaitable<void> Supervisor::end() {
  ending_ = true;
  auditor_->close();
  if (fault_ender_) fault_ender_->close();
  fleet_.freeze();
  policies_->close();
  if (settings_.stop_instances) {
    if (cdi_) (void)cdi_->settle({});
    co_await end_instances();
    co_await put_back_compute_modes();
  }
  fleet_.close();
  for (const auto& weak : gates_) {
    const auto gate = weak.lock();
    if (!gate) continue;
    if (settings_.stop_instances) {
      gate->leave_for_good();
    } else {
      gate->leave();
    }
  }
  if (share_keeper_) share_keeper_->close();
  if (admission_server_) admission_server_->stop();
  if (desk_) desk_->close();
  server_->stop();
  if (metrics_) metrics_->stop();
  spdlog::info("ended");
}

// Newcomers are refused at once; running clients get drainTimeout, then the rungs of the ladder.
asio::awaitable<void> Supervisor::end_instances() {
  fleet_.ask_all(instance::DrainWanted{});
  co_await wait_for_ends(settings_.drain_timeout);
  fleet_.ask_all(instance::ShutdownWanted{});
  const bool ended = co_await wait_for_ends(settings_.shutdown_timeout);
  if (ended) co_return;
  for (const auto& instance : fleet_.snapshots()) {
    if (!instance.control) continue;
    spdlog::error("{}: its control daemon did not end in time", instance.id);
  }
}

asio::awaitable<bool> Supervisor::wait_for_ends(milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  while (fleet_.any_daemon_runs()) {
    if (steady_clock::now() >= deadline) co_return false;
    change_.expires_at(deadline);
    co_await change_.async_wait(k_use);
  }
  co_return true;
}

// ---- api::Agent ----

api::AgentStatus Supervisor::status() const {
  api::AgentStatus status;
  status.version = MPS_VERSION;
  status.pid = ::getpid();
  status.started_at = started_at_;
  status.run_directory = settings_.run_dir.string();
  status.state_directory = settings_.state_dir.string();
  status.not_ready_because = fleet_.not_serving();
  if (fleet_.size() == 0 && status.not_ready_because.empty()) {
    status.not_ready_because =
        inventory_.error.empty() ? "no device that MPS can run on" : inventory_.error;
  }
  status.ready = status.not_ready_because.empty();
  return status;
}

api::PolicyStatus Supervisor::policies() const {
  const auto& reading = policies_->reading();
  return {reading.generation, policies_->changed_at(), settings_.policy_dir.string(),
          reading.error};
}

std::vector<policy::DeviceFacts> Supervisor::device_facts() const {
  return app::device_facts(inventory_, settings_.exclusive_compute_mode);
}

api::Agent::VerbResult Supervisor::ask(const std::string& instance, const instance::Input& verb,
                                       std::string done) {
  using api::VerbError;
  if (ending_) return VerbError{VerbError::Kind::conflict, "the supervisor is ending"};
  const auto asked = fleet_.ask(instance, verb);
  if (!asked.known) {
    return VerbError{VerbError::Kind::not_found, "no instance \"" + printable(instance) + "\""};
  }
  if (asked.refused) return VerbError{VerbError::Kind::conflict, asked.refused->message};
  return done;
}

api::Agent::VerbResult Supervisor::drain(const std::string& instance) {
  return ask(instance, instance::DrainWanted{}, instance + " is draining");
}

api::Agent::VerbResult Supervisor::undrain(const std::string& instance) {
  return ask(instance, instance::UndrainWanted{}, instance + " takes newcomers again");
}

}  // namespace mps::app
