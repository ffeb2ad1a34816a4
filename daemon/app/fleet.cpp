#include "app/fleet.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "app/left_daemons.h"
#include "base/text.h"

namespace mps::app {

Fleet::Fleet(boost::asio::io_context& io, std::filesystem::path run_dir, MakeActor make_actor,
             Say say)
    : io_(io),
      run_dir_(std::move(run_dir)),
      make_actor_(std::move(make_actor)),
      say_(std::move(say)) {}

Fleet::~Fleet() {
  close();
}

void Fleet::close() {
  changed_ = nullptr;
  for (const auto* all : {&actors_, &leaving_, &retired_}) {
    for (const auto& [id, actor] : *all) actor->close();
  }
}

// ---- what should be, and what is ----

void Fleet::reconcile(std::vector<WantedInstance> wanted, bool inventory_is_sure) {
  if (frozen_) return;
  wanted_ = std::move(wanted);
  inventory_is_sure_ = inventory_is_sure;
  drop_unwanted();
  const bool complete =
      std::all_of(wanted_.begin(), wanted_.end(), [this](const WantedInstance& instance) {
        const auto known = actors_.find(instance.id);
        return known != actors_.end() && known->second->device() == instance.device;
      });
  Found found;
  if (!complete || !leftovers_settled_) found = find_left_daemons(run_dir_);
  for (const auto& instance : wanted_) settle(instance, found);
  if (!inventory_is_sure_ || leftovers_settled_) return;
  leftovers_settled_ = true;
  for (const auto& [id, daemon] : found) {
    if (!actors_.contains(id) && !leaving_.contains(id)) end_leftover(id, daemon);
  }
}

// A device that is not reported any more may come back: its shared instance stays. One of a
// namespace's own goes with the policy that asked for it.
void Fleet::drop_unwanted() {
  std::vector<std::string> unwanted;
  for (const auto& [id, actor] : actors_) {
    if (find(id) == nullptr && !id.ends_with(".shared")) unwanted.push_back(id);
  }
  for (const auto& id : unwanted) {
    let_go(id, "no policy asks for it any more");
  }
}

void Fleet::let_go(const std::string& id, const std::string& why) {
  const auto actor = actors_.extract(id).mapped();
  say_("leaving", id + ": " + why + "; it is ended when its clients have gone");
  (void)actor->ask(instance::DrainWanted{});
  (actor->daemon_runs() ? leaving_ : retired_)[id] = actor;
}

void Fleet::settle(const WantedInstance& wanted, Found& found) {
  if (const auto known = actors_.find(wanted.id); known != actors_.end()) {
    if (known->second->device() == wanted.device) {
      (void)known->second->ask(instance::LimitsWanted{wanted.limits});
      return;
    }
    // MIG made anew, GPUs renumbered.
    let_go(wanted.id, "another device has its name now");
  }
  if (take_back(wanted)) return;
  const auto left = found.extract(wanted.id);
  if (leaving_.contains(wanted.id)) return;  // until that has ended
  if (left && !left.mapped().device.empty() && left.mapped().device != wanted.device) {
    end_leftover(wanted.id, left.mapped());
    return;
  }
  auto actor = make(wanted);
  actors_[wanted.id] = actor;
  actor->start(left ? std::optional(left.mapped()) : std::nullopt);
  retired_.erase(wanted.id);  // of another device; its listener has been replaced
}

// One that was let go and is wanted again.
bool Fleet::take_back(const WantedInstance& wanted) {
  for (auto* from : {&leaving_, &retired_}) {
    const auto place = from->find(wanted.id);
    if (place == from->end() || place->second->device() != wanted.device) continue;
    const auto actor = place->second;
    (void)actor->ask(instance::LimitsWanted{wanted.limits});
    if (actor->ask(instance::UndrainWanted{})) return false;  // refused: its daemon is ending
    from->erase(wanted.id);
    actors_[wanted.id] = actor;
    return true;
  }
  return false;
}

// Nothing wants it: it is taken up once more, to be drained and ended.
void Fleet::end_leftover(const std::string& id, const instance::FoundDaemon& found) {
  if (!process::is_running(process::Proc(), found.pid, found.start_ticks)) return;
  say_("leftover", id + ": a control daemon, pid " + std::to_string(found.pid) + " for " +
                       (found.device.empty() ? "an unknown device" : printable(found.device)) +
                       ", was left running, and no device or policy asks for it: it is ended when "
                       "its clients have gone");
  WantedInstance gone;
  gone.id = id;
  gone.device = found.device;
  gone.domain = id.substr(id.find('.') + 1);
  auto actor = make(gone);
  actor->start(found);
  (void)actor->ask(instance::DrainWanted{});
  (actor->daemon_runs() ? leaving_ : retired_)[id] = actor;
}

const WantedInstance* Fleet::find(const std::string& id) const {
  const auto found =
      std::find_if(wanted_.begin(), wanted_.end(),
                   [&id](const WantedInstance& instance) { return instance.id == id; });
  return found == wanted_.end() ? nullptr : &*found;
}

Fleet::ActorPtr Fleet::make(const WantedInstance& wanted) {
  auto actor = make_actor_(wanted);
  actor->on_change([this] { changed(); });
  return actor;
}

void Fleet::changed() {
  if (changed_) changed_();
  if (leaving_.empty() || std::exchange(retiring_, true)) return;
  // Not from inside an actor's own call.
  boost::asio::post(io_, [this] { retire_the_ended(); });
}

void Fleet::retire_the_ended() {
  retiring_ = false;
  const auto before = leaving_.size();
  for (auto place = leaving_.begin(); place != leaving_.end();) {
    if (place->second->daemon_runs()) {
      ++place;
      continue;
    }
    retired_[place->first] = place->second;
    place = leaving_.erase(place);
  }
  // Its name is free again, or it was wanted again while it ended.
  if (leaving_.size() != before) reconcile(wanted_, inventory_is_sure_);
}

// ---- what is shown, and verbs ----

std::vector<instance::Snapshot> Fleet::snapshots() const {
  std::vector<instance::Snapshot> shown;
  for (const auto* all : {&actors_, &leaving_}) {
    for (const auto& [id, actor] : *all) {
      auto& snapshot = shown.emplace_back(actor->snapshot());
      const auto* wanted = find(id);
      if (wanted == nullptr) continue;
      snapshot.percentage_from = wanted->percentage_from;
      snapshot.memory_from = wanted->memory_from;
    }
  }
  return shown;
}

std::string Fleet::not_serving() const {
  std::string text;
  for (const auto& [id, actor] : actors_) {
    const auto state = actor->state();
    if (state == instance::State::ready || state == instance::State::faulted) continue;
    if (!text.empty()) text += "; ";
    text += id + " is " + to_string(state);
  }
  return text;
}

bool Fleet::any_daemon_runs() const {
  const auto runs = [](const auto& entry) { return entry.second->daemon_runs(); };
  return std::any_of(actors_.begin(), actors_.end(), runs) ||
         std::any_of(leaving_.begin(), leaving_.end(), runs);
}

Fleet::Asked Fleet::ask(const std::string& id, const instance::Input& verb) {
  const auto place = actors_.find(id);
  if (place != actors_.end()) return {true, place->second->ask(verb)};
  if (!leaving_.contains(id)) return {false, std::nullopt};
  return {true, instance::VerbRefused{id + " is not wanted any more, by a policy or a device, and "
                                           "ends when its clients have gone"}};
}

void Fleet::ask_all(const instance::Input& verb) {
  for (const auto& [id, actor] : actors_) (void)actor->ask(verb);
}

}  // namespace mps::app
