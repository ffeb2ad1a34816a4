// Faults: what happens to the instances is told to those who keep count of it, and they say whom to
// keep out.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "app/supervisor.h"
#include "policy/effective.h"

namespace mps::app {

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
    say("faults_damaged", path.string() + ": " + std::to_string(opened->damaged_lines) +
                              " damaged lines were left out, the first at line " +
                              std::to_string(opened->problems.front().line));
  }
  fault::KeeperSources sources;
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
  recorder_.on_event([this](const std::string& instance, const instance::Emit& event) {
    fault_watch_->happened(instance, event);
  });
}

void Supervisor::watch_faults(const WantedInstance& wanted, instance::ActorSettings& actor) {
  if (!fault_watch_) return;
  fault_watch_->watch({wanted.id, wanted.device, wanted.domain});
  watched_for_faults_.insert(wanted.id);
  actor.heard = [watch = fault_watch_, id = wanted.id](const control::LogEvent& line) {
    watch->heard(id, line);
  };
}

// The GPU that this is, or that it is a part of; empty: not known.
std::string Supervisor::gpu_of(const std::string& device) const {
  const auto& all = inventory_.devices;
  const auto known = std::find_if(all.begin(), all.end(),
                                  [&device](const auto& one) { return one.uuid == device; });
  if (known == all.end() || !known->mig_index) return known == all.end() ? "" : known->uuid;
  const auto gpu = std::find_if(all.begin(), all.end(), [known](const auto& one) {
    return !one.mig_index && one.index == known->index;
  });
  return gpu == all.end() ? "" : gpu->uuid;
}

// Of the instances on that GPU; of one on a MIG device only where it may be that device's.
void Supervisor::signal_gpu(const std::string& gpu, const std::string& mig,
                            const fault::Signal& signal) {
  for (const auto& [instance, device] : fleet_.devices()) {
    if (gpu_of(device) != gpu || (!mig.empty() && mig != device)) continue;
    fault_watch_->signal(instance, signal);
  }
}

void Supervisor::listen_to_errors() {
  if (settings_.devices) return;  // declared: there is no NVML to ask
  if (!errors_) {
    device::ErrorCallbacks told;
    told.on_error = [this](const std::string& gpu, const device::XidSeen& xid) {
      spdlog::warn("{}: {}", gpu, fault::describe_xid(xid.number));
      signal_gpu(gpu, xid.mig_uuid, fault::XidReported{xid.number});
    };
    told.on_action = [this](const std::string& gpu, unsigned action) {
      signal_gpu(gpu, "", fault::ActionReported{fault::recovery_action(action)});
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
  std::set<std::string> there;
  for (const auto& instance : fleet_.snapshots()) there.insert(instance.id);
  std::erase_if(watched_for_faults_, [this, &there](const std::string& id) {
    if (there.contains(id)) return false;
    fault_watch_->forget(id);
    return true;
  });
  if (inventory_is_sure() && !std::exchange(faults_settled_, true)) fault_watch_->settle();
}

}  // namespace mps::app
