// Faults: what happens to the instances is told to those who keep count of it, and they say whom to
// keep out.
#include <spdlog/spdlog.h>

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

// Instances that are gone have no incidents any more.
void Supervisor::settle_faults() {
  if (!fault_watch_) return;
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
