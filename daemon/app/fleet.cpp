#include "app/fleet.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "base/text.h"
#include "process/proc.h"

namespace mps::app {

Fleet::Fleet(boost::asio::io_context& io, Find find_daemons, Make make, Say say)
    : io_(io),
      find_daemons_(std::move(find_daemons)),
      make_(std::move(make)),
      say_(std::move(say)) {}

Fleet::~Fleet() {
  close();
}

void Fleet::close() {
  changed_ = nullptr;
  for (const auto* all : {&actors_, &leaving_, &retired_}) {
    for (const auto& [id, member] : *all) member.instance->close();
  }
}

// ---- what should be, and what is ----

void Fleet::reconcile(std::vector<WantedInstance> wanted, bool inventory_is_sure) {
  if (frozen_) return;
  wanted_ = std::move(wanted);
  inventory_is_sure_ = inventory_is_sure;
  drop_unwanted();
  const bool complete =
      std::all_of(wanted_.begin(), wanted_.end(),
                  [this](const WantedInstance& instance) { return is_there(instance); });
  Found found;
  if (!complete || !leftovers_settled_) found = find_daemons_();
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
  auto member = actors_.extract(id).mapped();
  say_("leaving", id + ": " + why + "; it is ended when its clients have gone");
  (void)member.instance->ask(instance::DrainWanted{});
  put_aside(id, std::move(member));
}

bool Fleet::is_there(const WantedInstance& wanted) const {
  const auto known = actors_.find(wanted.id);
  return known != actors_.end() && known->second.device == wanted.device &&
         known->second.domain == wanted.domain;
}

void Fleet::settle(const WantedInstance& wanted, Found& found) {
  if (is_there(wanted)) {
    (void)actors_.at(wanted.id).instance->ask(instance::LimitsWanted{wanted.limits});
    return;
  }
  if (const auto other = actors_.find(wanted.id); other != actors_.end()) {
    // MIG made anew, GPUs renumbered; or a name of a namespace that is shortened to the same.
    const bool same_device = other->second.device == wanted.device;
    let_go(wanted.id,
           same_device ? "another namespace has its name now" : "another device has its name now");
  }
  if (take_back(wanted)) return;
  auto left = found.extract(wanted.id);
  if (leaving_.contains(wanted.id)) return say_waits(wanted.id);
  if (left && !left.mapped().can_serve(wanted.device)) {
    end_leftover(wanted.id, left.mapped());
    if (leaving_.contains(wanted.id)) return say_waits(wanted.id);
    left = {};  // it has ended meanwhile
  }
  waiting_.erase(wanted.id);
  const auto found_daemon = left ? std::optional(left.mapped()) : std::nullopt;
  put(actors_, wanted.id,
      begin(wanted, [&found_daemon](FleetMember& member) { member.start(found_daemon); }));
}

// Until it has ended: two daemons cannot have one directory.
void Fleet::say_waits(const std::string& id) {
  if (!waiting_.insert(id).second) return;
  say_("waiting", id + ": waits for the end of its predecessor, which ends when its clients have "
                       "gone");
}

// One that was let go and is wanted again.
bool Fleet::take_back(const WantedInstance& wanted) {
  for (auto* from : {&leaving_, &retired_}) {
    const auto place = from->find(wanted.id);
    if (place == from->end() || place->second.device != wanted.device ||
        place->second.domain != wanted.domain || (from == &leaving_ && place->second.unfit)) {
      continue;
    }
    auto& instance = *place->second.instance;
    (void)instance.ask(instance::LimitsWanted{wanted.limits});
    if (instance.ask(instance::UndrainWanted{})) return false;  // refused: its daemon is ending
    put(actors_, wanted.id, std::move(place->second));
    from->erase(place);
    waiting_.erase(wanted.id);
    return true;
  }
  return false;
}

// Nothing wants it: it is taken up once more, to be drained and ended.
void Fleet::end_leftover(const std::string& id, const instance::FoundDaemon& found) {
  if (!process::is_running(process::Proc(), found.pid, found.start_ticks)) return;
  say_("leftover", id + ": a control daemon, pid " + std::to_string(found.pid) + " for " +
                       (found.device.empty() ? "an unknown device" : printable(found.device)) +
                       ", was left running, and " +
                       (found.unfit.empty() ? "no device or policy asks for it" : found.unfit) +
                       ": it is ended when its clients have gone");
  WantedInstance gone;
  gone.id = id;
  gone.device = found.device;
  gone.domain = id.substr(id.find('.') + 1);
  auto member = begin(gone, [&found](FleetMember& made) { made.drain(found); });
  member.unfit = !found.unfit.empty();
  put_aside(id, std::move(member));
}

// One of the same name that has ended is closed first, or it would go on acting on the directory
// that both have. Its listener refuses until the new one has its own.
Fleet::Member Fleet::begin(const WantedInstance& wanted,
                           const std::function<void(FleetMember&)>& how) {
  const auto before = retired_.extract(wanted.id);
  if (before) {
    before.mapped().instance->close();
    before.mapped().instance->give_way();
  }
  Member made{make_(wanted), wanted.device, wanted.domain};
  made.instance->on_change([this] { changed(); });
  tell_of_device(made);
  how(*made.instance);
  return made;
}

// Before it starts anything, and then when it is otherwise.
void Fleet::tell_of_device(Member& member) {
  auto why = why_out(member.device);
  if (why == member.device_out) return;
  member.device_out = std::move(why);
  const auto& out = member.device_out;
  (void)member.instance->ask(out.empty() ? instance::Input(instance::DeviceBack{})
                                         : instance::Input(instance::DeviceOut{out}));
}

void Fleet::devices_changed() {
  if (frozen_) return;
  for (auto* all : {&actors_, &leaving_, &retired_}) {
    for (auto& [id, member] : *all) tell_of_device(member);
  }
}

void Fleet::put(Members& members, const std::string& id, Member member) {
  const auto before = members.extract(id);
  if (before) before.mapped().instance->close();
  members.emplace(id, std::move(member));
}

void Fleet::put_aside(const std::string& id, Member member) {
  auto& members = member.instance->daemon_runs() ? leaving_ : retired_;
  put(members, id, std::move(member));
}

const WantedInstance* Fleet::find(const std::string& id) const {
  const auto found =
      std::find_if(wanted_.begin(), wanted_.end(),
                   [&id](const WantedInstance& instance) { return instance.id == id; });
  return found == wanted_.end() ? nullptr : &*found;
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
    if (place->second.instance->daemon_runs()) {
      ++place;
      continue;
    }
    put(retired_, place->first, std::move(place->second));
    place = leaving_.erase(place);
  }
  // Its name is free again, or it was wanted again while it ended.
  if (leaving_.size() != before) reconcile(wanted_, inventory_is_sure_);
}

// ---- what is shown, and verbs ----

std::vector<instance::Snapshot> Fleet::snapshots() const {
  std::vector<instance::Snapshot> shown;
  for (const auto* all : {&actors_, &leaving_}) {
    for (const auto& [id, member] : *all) {
      auto& snapshot = shown.emplace_back(member.instance->snapshot());
      // What leaves has the limits that it had, from policies that are no more.
      const auto* wanted = all == &actors_ ? find(id) : nullptr;
      if (wanted == nullptr) continue;
      snapshot.percentage_from = wanted->percentage_from;
      snapshot.memory_from = wanted->memory_from;
    }
  }
  return shown;
}

std::map<std::string, std::string> Fleet::devices() const {
  std::map<std::string, std::string> devices;
  for (const auto& [id, member] : actors_) devices[id] = member.device;
  return devices;
}

std::string Fleet::not_serving() const {
  std::string text;
  const auto add = [&text](const std::string& sentence) {
    text += (text.empty() ? "" : "; ") + sentence;
  };
  std::size_t out = 0;
  for (const auto& [id, member] : actors_) {
    const auto state = member.instance->state();
    if (!member.device_out.empty()) ++out;
    if (!member.device_out.empty() || state == instance::State::ready ||
        state == instance::State::faulted) {
      continue;
    }
    add(id + " is " + to_string(state));
  }
  for (const auto& wanted : wanted_) {
    if (actors_.contains(wanted.id) || !why_out(wanted.device).empty()) continue;
    add(wanted.id + " waits for the end of its predecessor");
  }
  if (out != 0 && out == actors_.size()) {
    for (const auto& [id, member] : actors_) add(id + ": " + member.device_out);
  }
  return text;
}

bool Fleet::any_daemon_runs() const {
  const auto runs = [](const auto& entry) { return entry.second.instance->daemon_runs(); };
  return std::any_of(actors_.begin(), actors_.end(), runs) ||
         std::any_of(leaving_.begin(), leaving_.end(), runs);
}

Fleet::Asked Fleet::ask(const std::string& id, const instance::Input& verb) {
  const auto place = actors_.find(id);
  if (place != actors_.end()) return {true, place->second.instance->ask(verb)};
  if (!leaving_.contains(id)) return {false, std::nullopt};
  return {true, instance::VerbRefused{id + " is not wanted any more, by a policy or a device, and "
                                           "ends when its clients have gone"}};
}

bool Fleet::terminate(const std::string& id, std::vector<instance::ClientProcess> clients,
                      instance::Behalf behalf, instance::Actor::Terminated told) {
  for (const auto* all : {&actors_, &leaving_}) {
    const auto place = all->find(id);
    if (place == all->end()) continue;
    place->second.instance->terminate(std::move(clients), behalf, std::move(told));
    return true;
  }
  return false;
}

bool Fleet::waits_for(const std::string& id, pid_t client) const {
  for (const auto* all : {&actors_, &leaving_}) {
    const auto place = all->find(id);
    if (place != all->end()) return place->second.instance->waits_for(client);
  }
  return false;
}

void Fleet::ask_all(const instance::Input& verb) {
  for (const auto* all : {&actors_, &leaving_}) {
    for (const auto& [id, member] : *all) (void)member.instance->ask(verb);
  }
}

}  // namespace mps::app
