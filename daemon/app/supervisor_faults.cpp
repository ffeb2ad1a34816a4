// Faults: what happens to the instances is told to those who keep count of it, and they say whom to
// keep out.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "app/supervisor.h"
#include "base/file.h"
#include "base/text.h"
#include "policy/effective.h"

namespace mps::app {

namespace {

constexpr std::size_t k_boot_id_limit = 4096;

// Of this boot of the kernel; empty where it cannot be read.
std::string read_boot_id() {
  const auto text = read_file("/proc/sys/kernel/random/boot_id", k_boot_id_limit);
  return text ? std::string(trim(*text)) : std::string();
}

}  // namespace

// Without its file nothing is known of the time before, and nobody is kept out; the instances do
// not need it.
void Supervisor::open_faults() {
  const auto path = settings_.state_dir / "faults.log";
  auto opened = fault::Book::open(path);
  if (!opened) {
    return say("faults_not_recorded",
               opened.error().message + "; incidents are not told of, and nobody is quarantined");
  }
  for (const auto& problem : opened->problems) {
    spdlog::warn("{}:{}: {}", path.string(), problem.line, problem.reason);
  }
  if (opened->damaged_lines != 0) {
    say("faults_damaged",
        path.string() + ": " + std::to_string(opened->damaged_lines) +
            " damaged lines were left out, the first at line " +
            std::to_string(opened->problems.front().line) +
            (opened->not_kept.empty() ? "; the file as it was is kept as " + opened->kept.string()
                                      : "; it could not be kept: " + opened->not_kept));
  }
  fault::KeeperSources sources;
  sources.boot_id = read_boot_id();
  sources.policy_of = [this](std::string_view subject) -> std::optional<policy::Quarantine> {
    const auto generation = policies_->reading().generation;
    const auto policy = policy::find_policy(*generation, std::string(subject));
    const auto* found = std::get_if<const policy::Policy*>(&policy);
    return found == nullptr ? std::nullopt : (*found)->quarantine;
  };
  sources.say = [this](const std::string& kind, const std::string& instance,
                       const std::string& message) { say_of(kind, instance, message); };
  fault_watch_ =
      std::make_shared<FaultWatch>(io_.get_executor(), std::move(opened->book), std::move(sources));
  fault_watch_->on_quarantine([this] {
    if (desk_) desk_->policies_changed();
  });
  fleet_.ask_of_devices([this](const std::string& device) { return why_out(device); });
  fault_watch_->on_devices_out([this] { fleet_.devices_changed(); });
  recorder_.on_event([this](const std::string& instance, const instance::Emit& event) {
    fault_watch_->happened(instance, event);
  });
}

void Supervisor::watch_faults(const WantedInstance& wanted, instance::ActorSettings& actor) {
  if (!fault_watch_) return;
  const bool desk_is_whole = desk_ && desk_->records_whole();
  fault_watch_->watch({wanted.id, wanted.device, wanted.domain},
                      recall_clients(recalled_, desk_is_whole, log_->ring(), wanted.id));
  watched_for_faults_.insert(wanted.id);
  actor.heard = [watch = fault_watch_, id = wanted.id](const instance::LogLine& line,
                                                       const instance::ReadPosition& end) {
    watch->heard(id, line, end);
  };
  actor.reading_on = [watch = fault_watch_, id = wanted.id](bool on) { watch->reading_on(id, on); };
}

// The instances on that GPU; of those on MIG devices only that one's, where it is known.
fault::Keeper::OfDevice Supervisor::on_gpu(const std::string& gpu, const std::string& mig) const {
  fault::Keeper::OfDevice of{gpu, mig.empty() ? gpu : mig, {}};
  for (const auto& [instance, device] : fleet_.devices()) {
    if (gpu_of(device) == gpu && (mig.empty() || mig == device)) of.instances.push_back(instance);
  }
  return of;
}

std::string Supervisor::why_out(const std::string& device) const {
  const auto* entry = fault_watch_->devices_out().of(device, gpu_of(device));
  return entry == nullptr ? std::string() : fault::describe(*entry);
}

// The log may have lost what it says of it.
void Supervisor::suspect_fault(const std::vector<std::string>& instances) {
  for (const auto& instance : instances) (void)fleet_.ask(instance, instance::FaultSuspected{});
}

void Supervisor::listen_to_errors() {
  if (settings_.devices) return;  // declared: there is no NVML to ask
  if (!errors_) {
    device::ErrorCallbacks told;
    told.on_error = [this](const std::string& gpu, const device::XidSeen& xid) {
      spdlog::warn("{}: {}", gpu, fault::describe_xid(xid.number));
      const auto of = on_gpu(gpu, xid.mig_uuid);
      fault_watch_->xid(of, xid.number);
      if (fault::judge(xid.number, std::nullopt) == fault::Consequence::client_fault) {
        suspect_fault(of.instances);
      }
    };
    told.on_action = [this](const std::string& gpu, unsigned action) {
      fault_watch_->action(on_gpu(gpu, ""), fault::recovery_action(action));
    };
    told.on_listening = [](const std::string& gpu, const std::string& why_not) {
      if (!why_not.empty()) spdlog::info("Xid errors of {} are not told: {}", gpu, why_not);
    };
    told.on_lost = [](std::uint64_t count) {
      spdlog::warn("{} errors of GPUs came too fast to be taken", count);
    };
    errors_ = device::make_nvml_error_source(io_.get_executor(),
                                             {.library = settings_.nvml_library}, std::move(told));
  }
  std::set<std::string> gpus;
  for (const auto& [instance, device] : fleet_.devices()) {
    if (auto gpu = gpu_of(device); !gpu.empty()) gpus.insert(std::move(gpu));
  }
  errors_->watch(std::move(gpus));
}

// Instances that are gone have no incidents any more.
void Supervisor::settle_faults() {
  if (!fault_watch_) return;
  listen_to_errors();
  fleet_.devices_changed();  // which GPU a MIG device is of may be known now
  std::set<std::string> there;
  for (const auto& instance : fleet_.snapshots()) there.insert(instance.id);
  std::erase_if(watched_for_faults_, [this, &there](const std::string& id) {
    if (there.contains(id)) return false;
    fault_watch_->forget(id);
    return true;
  });
  if (!inventory_is_sure()) return;
  if (!std::exchange(faults_settled_, true)) {
    fault_watch_->settle();
    // Who is recalled was there before all that comes now.
    if (recalled_) recalled_->clear();
  }
  std::set<std::string> devices;
  for (const auto& device : inventory_.devices) devices.insert(device.uuid);
  fault_watch_->devices_are(devices);
}

// By force also where its device is out of service: its operator knows better. It starts once; what
// else there is on the device follows.
api::Agent::VerbResult Supervisor::restart(const std::string& instance, bool force) {
  const auto devices = fleet_.devices();
  const auto found = devices.find(instance);
  const auto device = found == devices.end() ? std::string() : found->second;
  const bool was_out = fault_watch_ && !why_out(device).empty();
  auto asked = ask(instance, instance::RestartWanted{force}, instance + " is being restarted");
  if (!asked || !was_out) return asked;
  fault_watch_->put_back(device, gpu_of(device),
                         "put back by `mps-ctl restart " + instance + " --force`");
  return *asked + ", and its device " + device + " is back in service";
}

}  // namespace mps::app
