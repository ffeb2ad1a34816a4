#include "admission/controller.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/text.h"
#include "identity/life.h"
#include "process/proc.h"

namespace mps::admission {

namespace asio = boost::asio;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t k_cgroups_at_a_time = 256;
constexpr std::chrono::milliseconds k_look_at_cgroups_again{1000};
constexpr std::chrono::milliseconds k_watch_again{1000};
constexpr std::chrono::minutes k_longest_wait{60};
constexpr std::size_t k_name_limit = 253;  // the longest name that Kubernetes knows

std::int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// For sure: without a descriptor /proc cannot be read either.
bool is_over(const share::Process& process) {
  if (::kill(process.pid, 0) != 0 && errno == ESRCH) return true;
  const auto stat = process::Proc().stat(process.pid);
  return stat && (stat->start_time != process.start_ticks || stat->state == 'Z');
}

// The ledger has no clock.
void stamp(std::vector<share::Change>& changes) {
  for (auto& change : changes) {
    if (auto* made = std::get_if<share::SlotMade>(&change)) made->slot.since = unix_now();
    if (auto* ended = std::get_if<share::SlotEnded>(&change)) ended->at = unix_now();
  }
}

LetIn as_recorded(const share::Slot& slot, const share::Admission* admission) {
  LetIn in;
  in.instance = slot.instance;
  in.process = slot.process;
  in.who.uid = slot.uid;
  in.grant = slot.grant;
  in.command = slot.command;
  in.since = slot.since;
  in.explained = admission != nullptr;
  if (admission == nullptr) return in;
  in.share = admission->share.substr(admission->share.rfind('/') + 1);
  in.who.subject = admission->subject;
  in.who.container = admission->container;
  in.who.container_name = admission->container_name;
  in.who.pod = admission->pod;
  if (!admission->owner.empty()) in.who.owner = admission->owner;
  return in;
}

std::vector<LetIn> recalled(const share::Replay& replay) {
  std::vector<LetIn> list;
  for (const auto& gone : replay.gone) {
    list.push_back(as_recorded(gone.slot, gone.admission ? &*gone.admission : nullptr));
    list.back().until = gone.at;
  }
  for (const auto& [id, slot] : replay.state.slots) {
    const auto admission = replay.state.admissions.find(slot.admission);
    list.push_back(as_recorded(
        slot, admission == replay.state.admissions.end() ? nullptr : &admission->second));
  }
  return list;
}

}  // namespace

Result<std::shared_ptr<Controller>> Controller::open(const asio::any_io_executor& executor,
                                                     ControllerSettings settings,
                                                     ControllerSources sources) {
  auto opened = share::CheckpointFile::open(settings.checkpoint);
  if (!opened) return opened.error();
  std::shared_ptr<Controller> made(
      new Controller(executor, std::move(settings), std::move(sources), std::move(opened->file)));
  made->go_on_from(opened->replay);
  return made;
}

Controller::Controller(const asio::any_io_executor& executor, ControllerSettings settings,
                       ControllerSources sources, share::CheckpointFile checkpoint)
    : executor_(executor),
      settings_(std::move(settings)),
      sources_(std::move(sources)),
      checkpoint_(std::move(checkpoint)),
      ledger_(settings_.ledger),
      looking_up_(executor),
      looking_at_cgroups_(executor),
      alarm_(executor),
      cgroup_alarm_(executor),
      share_alarm_(executor) {}

Controller::~Controller() {
  close();
}

void Controller::close() {
  if (std::exchange(closed_, true)) return;
  alarm_.cancel();
  cgroup_alarm_.cancel();
  share_alarm_.cancel();
  shares_changed_ = nullptr;
  share_closes_ = nullptr;
  looking_up_.close();
  looking_at_cgroups_.close();
  asking_.clear();
}

// ---- after a restart ----

void Controller::go_on_from(const share::Replay& replay) {
  if (!replay.problems.empty()) {
    sources_.say("admissions_damaged", "",
                 settings_.checkpoint.string() + ": " + std::to_string(replay.damaged_lines) +
                     (replay.damaged_lines == 1 ? " damaged line" : " damaged lines") +
                     ", the first in line " + std::to_string(replay.problems.front().line) + " (" +
                     replay.problems.front().reason +
                     "); clients that they spoke of go on, and count as adopted");
  }
  records_whole_ = replay.damaged_lines == 0;
  recalled_ = recalled(replay);
  ledger_.restore(replay.state);
  for (const auto& [id, admission] : replay.state.admissions) note(share::AdmissionMade{admission});
  for (const auto& [id, slot] : replay.state.slots) note(share::SlotMade{slot});
  set_cgroup_alarm();
  end_closed_shares();
  set_share_alarm();
}

std::optional<share::Process> Controller::process_of(pid_t pid) const {
  const auto stat = process::Proc().stat(pid);
  if (!stat || stat->state == 'Z' || stat->state == 'X') return std::nullopt;
  return share::Process{pid, stat->start_time};
}

std::optional<share::SlotId> Controller::found_inside(const std::string& instance, pid_t pid,
                                                      uid_t uid) {
  const auto process = process_of(pid);
  if (!process) return std::nullopt;
  if (!ledger_.slot_of(instance, *process)) apply(ledger_.adopt(instance, *process, uid));
  const auto slot = ledger_.slot_of(instance, *process);
  if (slot) ledger_.connection_found(*slot);
  return slot;
}

// ---- who that is ----

// As a person would type it, so far as it fits.
std::string Controller::command_of(pid_t pid) {
  std::string command;
  for (const auto& word : process::Proc().command_line(pid)) {
    if (command.size() >= k_command_limit) break;
    command += (command.empty() ? "" : " ") + word;
  }
  return printable(command, k_command_limit);
}

Controller::FoundOut Controller::look_up(const identity::Resolver& resolver, const Peer& peer) {
  FoundOut found;
  const auto stat = process::Proc().stat(peer.pid);
  if (!stat) {
    found.who = identity::Unidentified{"the process has ended"};
    return found;
  }
  found.start_ticks = stat->start_time;
  found.command = command_of(peer.pid);
  // It looks again whether this is still the process that connected: so the line above was its.
  found.who = resolver.identify({peer.pid, peer.uid, peer.gid, peer.pidfd.get()});
  return found;
}

void Controller::find_out(std::shared_ptr<const Peer> peer, Found then) {
  ++being_looked_up_;
  looking_up_.run([resolver = sources_.resolver, peer = std::move(peer), weak = weak_from_this(),
                   then = std::move(then)]() -> process::SlowWork::Then {
    return [weak, then, found = look_up(*resolver, *peer)] {
      const auto self = weak.lock();
      if (!self || self->closed_) return;
      --self->being_looked_up_;
      then(*self, found);
    };
  });
}

RequestId Controller::ask(Peer peer, const Wish& wish, Told told) {
  const auto id = next_request_++;
  const auto place = places_.find(peer.instance);
  asking_.emplace(id,
                  Asking{std::move(told), wish, place == places_.end() ? Place{} : place->second,
                         peer.share, peer.pid, peer.uid});
  if (place == places_.end()) {
    refuse(id, share::not_ready(peer.instance, "starting"));
  } else if (being_looked_up_ >= k_being_looked_up) {
    refuse(id, share::too_many_waiting("this node", being_looked_up_, k_being_looked_up));
  } else {
    const auto kept = std::make_shared<const Peer>(std::move(peer));
    find_out(kept, [id, kept](Controller& self, const FoundOut& found) {
      self.decide(id, *kept, found);
    });
  }
  return id;
}

void Controller::decide(RequestId id, const Peer& peer, const FoundOut& found) {
  const auto place = asking_.find(id);
  if (place == asking_.end()) return;  // it left meanwhile
  auto& asking = place->second;
  if (const auto* unknown = std::get_if<identity::Unidentified>(&found.who)) {
    return refuse(id, share::unidentified(unknown->reason));
  }
  asking.who = std::get<identity::Identity>(found.who);
  asking.start_ticks = found.start_ticks;
  asking.command = found.command;
  if (is_closed_to(asking.place, peer.share, {peer.pid, found.start_ticks})) {
    return refuse(id, share::share_deleted(peer.share));
  }
  const auto plan = plan_of(*asking.who, asking.command, asking.place, peer.share);
  if (const auto* refusal = std::get_if<share::Refusal>(&plan)) return refuse(id, *refusal);
  auto request =
      request_of(peer, *asking.who, found.start_ticks, std::get<share::Plan>(plan), asking.wish);
  request.command = asking.command;
  request.id = id;
  apply(ledger_.request(request, steady_clock::now()));
}

share::Request Controller::request_of(const Peer& peer, const identity::Identity& who,
                                      std::uint64_t start_ticks, const share::Plan& plan,
                                      const Wish& wish) const {
  share::Request request;
  request.share = ledger_name(peer.instance, peer.share);
  request.instance = peer.instance;
  request.container = who.container;
  request.subject = who.subject;
  request.cgroup = to_record(who.cgroup);
  request.description = describe(who);
  request.pod = printable(who.pod, k_name_limit);
  request.container_name = printable(who.container_name, k_name_limit);
  request.owner = printable(who.owner.value_or(""), k_name_limit);
  request.process = {peer.pid, start_ticks};
  request.uid = peer.uid;
  request.grant = plan.grant;
  request.quota = plan.quota;
  request.may_wait = wish.may_wait;
  request.deadline = steady_clock::now() + std::min<steady_clock::duration>(
                                               wish.wait.value_or(settings_.wait), k_longest_wait);
  return request;
}

void Controller::refuse(RequestId id, share::Refusal why) {
  deliver({id, share::Refused{std::move(why)}});
}

void Controller::withdraw(RequestId request) {
  const auto place = asking_.find(request);
  if (place == asking_.end()) return;
  const auto let_in = place->second.let_in;
  const bool in_line = place->second.who.has_value() && !let_in;
  asking_.erase(place);
  if (let_in) ledger_.connection_closed(*let_in);
  if (in_line) apply(ledger_.peer_gone(request, steady_clock::now()));
}

void Controller::connection_closed(share::SlotId slot) {
  ledger_.connection_closed(slot);
}

// ---- what follows from a decision ----

void Controller::apply(share::Effects effects) {
  stamp(effects.changes);
  const auto recorded = checkpoint_.record(effects.changes);
  if (!recorded && !std::exchange(behind_said_, true)) {
    sources_.say("admissions_not_recorded", "",
                 recorded.error().message +
                     "; should the supervisor end before that is mended, clients that came "
                     "meanwhile count as adopted");
  } else if (recorded) {
    behind_said_ = false;
  }
  for (const auto& change : effects.changes) note(change);
  for (const auto& decision : effects.decisions) deliver(decision);
  set_alarm();
}

void Controller::note(const share::Change& change) {
  if (const auto* made = std::get_if<share::AdmissionMade>(&change)) {
    const auto [place, fresh] = admitted_.try_emplace(made->admission.id);
    place->second.cgroup = cgroup_from_record(made->admission.cgroup);
    if (fresh) without_slots_.insert(made->admission.id);
  } else if (const auto* over = std::get_if<share::AdmissionEnded>(&change)) {
    admitted_.erase(over->id);
    without_slots_.erase(over->id);
  } else if (const auto* slot = std::get_if<share::SlotMade>(&change)) {
    slots_[slot->slot.id] = slot->slot.admission;
    const auto admission = admitted_.find(slot->slot.admission);
    if (admission != admitted_.end()) {
      ++admission->second.slots;
      without_slots_.erase(admission->first);
    }
    watch(slot->slot);
  } else if (const auto* ended = std::get_if<share::SlotEnded>(&change)) {
    const auto known = slots_.extract(ended->id);
    const auto admission = known ? admitted_.find(known.mapped()) : admitted_.end();
    if (admission == admitted_.end() || --admission->second.slots > 0) return;
    without_slots_.insert(admission->first);
    set_cgroup_alarm();
  }
}

void Controller::deliver(const share::Decision& decision) {
  const auto place = asking_.find(decision.request);
  if (place == asking_.end()) return;
  if (const auto* in = std::get_if<share::LetIn>(&decision.verdict)) {
    place->second.let_in = in->slot;
    const auto& asking = place->second;
    if (sources_.let_in && asking.who) {
      sources_.let_in({asking.place.instance,
                       asking.share,
                       {asking.pid, asking.start_ticks},
                       *asking.who,
                       in->grant,
                       asking.command});
    }
  }
  asio::post(executor_, [weak = weak_from_this(), decision] {
    const auto self = weak.lock();
    if (self && !self->closed_) self->tell(decision.request, decision.verdict);
  });
}

void Controller::tell(RequestId id, const Verdict& verdict) {
  const auto place = asking_.find(id);
  if (place == asking_.end()) return;
  say_verdict(place->second, verdict);
  if (std::holds_alternative<share::Waits>(verdict)) {
    const auto told = place->second.told;
    return told(verdict);
  }
  const auto told = std::move(place->second.told);
  asking_.erase(place);
  told(verdict);
}

void Controller::say_verdict(const Asking& asking, const Verdict& verdict) {
  const auto* refused = std::get_if<share::Refused>(&verdict);
  if (refused == nullptr) return;
  ++refused_[refused->code];
  auto who = asking.who ? asking.who->subject
                        : "process " + std::to_string(asking.pid) + " of uid " +
                              std::to_string(asking.uid);
  if (asking.who && !asking.who->pod.empty()) who += ", " + describe(*asking.who) + ",";
  const auto whose = asking.who ? asking.who->container : "uid " + std::to_string(asking.uid);
  const auto unsaid = refusals_.count(
      asking.place.instance + " " + whose + " " + to_string(refused->code), steady_clock::now());
  if (!unsaid) return;
  auto message = who + " was refused, " + to_string(refused->code) + ": " + refused->sentence;
  if (*unsaid > 0) message += "; and " + std::to_string(*unsaid) + " times since this was said";
  sources_.say("refused", asking.place.instance, message);
}

// ---- processes and cgroups ----

void Controller::watch(const share::Slot& slot) {
  co_spawn(executor_, watch_process(weak_from_this(), executor_, slot.id, slot.process),
           asio::detached);
}

// That it cannot be watched (no descriptors) is no reason to take it for ended: then somebody could
// have more than its quota by taking ours away. It is tried again.
asio::awaitable<void> Controller::watch_process(std::weak_ptr<Controller> weak,
                                                asio::any_io_executor executor, share::SlotId slot,
                                                share::Process process) {
  for (;;) {
    auto child = process::Child::adopt(executor, process.pid, process.start_ticks);
    if (child) {
      co_await child->wait();
      break;
    }
    if (is_over(process)) break;
    asio::steady_timer pause(executor, k_watch_again);
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    const auto self = weak.lock();
    if (!self || self->closed_) co_return;
  }
  if (const auto self = weak.lock()) self->slot_over(slot);
}

void Controller::slot_over(share::SlotId slot) {
  if (closed_ || !slots_.contains(slot)) return;
  const auto known = checkpoint_.state().slots.find(slot);
  if (sources_.left && known != checkpoint_.state().slots.end()) {
    sources_.left(known->second.instance, known->second.process);
  }
  apply(ledger_.slot_ended(slot, steady_clock::now()));
  end_closed_shares();
}

void Controller::set_cgroup_alarm() {
  if (closed_ || without_slots_.empty() || std::exchange(cgroup_alarm_set_, true)) return;
  cgroup_alarm_.expires_after(k_look_at_cgroups_again);
  cgroup_alarm_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (!error && self) self->look_at_cgroups();
  });
}

// Only those that nobody has a slot of: an admission with slots is not over, wherever its
// processes have moved to.
void Controller::look_at_cgroups() {
  std::vector<std::pair<share::AdmissionId, identity::Cgroup>> some;
  // In turn: those that are idle for long must not keep the others from being looked at.
  auto next = without_slots_.upper_bound(looked_at_);
  const auto count = std::min(without_slots_.size(), k_cgroups_at_a_time);
  while (some.size() < count) {
    if (next == without_slots_.end()) next = without_slots_.begin();
    looked_at_ = *next++;
    some.emplace_back(looked_at_, admitted_.at(looked_at_).cgroup);
  }
  looking_at_cgroups_.run([resolver = sources_.resolver, some = std::move(some),
                           weak = weak_from_this()]() -> process::SlowWork::Then {
    std::vector<share::AdmissionId> empty;
    for (const auto& [id, cgroup] : some) {
      if (!resolver->populated(cgroup)) empty.push_back(id);
    }
    resolver->forget_dead();
    return [weak, empty = std::move(empty)] {
      const auto self = weak.lock();
      if (!self || self->closed_) return;
      for (const auto id : empty) {
        // Somebody of it may have been let in since.
        if (self->without_slots_.contains(id)) self->apply(self->ledger_.cgroup_empty(id));
      }
      self->cgroup_alarm_set_ = false;
      self->set_cgroup_alarm();
    };
  });
}

void Controller::set_alarm() {
  const auto due = ledger_.next_due();
  if (closed_ || !due || due == alarm_at_) return;
  alarm_at_ = due;
  alarm_.expires_at(*due);
  alarm_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (!error && self && !self->closed_) {
      self->alarm_at_.reset();
      self->apply(self->ledger_.time_passed(steady_clock::now()));
    }
  });
}

// ---- instances and policies ----

void Controller::instance_changed(const Place& place, const share::InstanceFacts& facts) {
  places_[place.instance] = place;
  apply(ledger_.instance_changed(facts, steady_clock::now()));
}

void Controller::instance_removed(const std::string& instance) {
  places_.erase(instance);
  apply(ledger_.instance_removed(instance, steady_clock::now()));
}

void Controller::policies_changed() {
  std::vector<share::Revision> revisions;
  for (const auto& [id, asking] : asking_) {
    if (!asking.who || asking.let_in) continue;
    const auto plan = plan_of(*asking.who, asking.command, asking.place, asking.share);
    std::visit([&revisions, id = id](const auto& now) { revisions.push_back({id, now}); }, plan);
  }
  if (!revisions.empty()) apply(ledger_.revise(revisions, steady_clock::now()));
}

}  // namespace mps::admission
