#include "fault/keeper.h"

#include <algorithm>
#include <span>
#include <utility>
#include <variant>

#include "base/text.h"

namespace mps::fault {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds k_beyond{1};
constexpr milliseconds k_longest_pause{std::chrono::hours{1}};
constexpr milliseconds k_sign_patience{5000};  // the trackers', and the judge's

std::string took(const Incident& incident) {
  return incident.serving
             ? "serving again after " + format_duration(*incident.serving - incident.happened)
             : std::string();
}

std::string closed_text(const Incident& incident) {
  const auto id = id_of(incident.number) + ": ";
  switch (incident.end) {
    case End::serving:
      return id + took(incident) + "; it was " + summary(incident);
    case End::given_up:
      return id + "given up: " + summary(incident);
    case End::unconfirmed:
    case End::none:
      break;
  }
  return id + summary(incident);
}

}  // namespace

Keeper::Keeper(Book book, KeeperSources sources)
    : book_(std::move(book)), sources_(std::move(sources)), device_judge_(sources_.boot_id) {
  apply(after_boot(book_.devices_out(), sources_.boot_id));
}

void Keeper::watch(const Place& place) {
  const auto [at, is_new] =
      trackers_.try_emplace(place.instance, place, [this] { return book_.next_number(); });
  if (!is_new) return;
  const auto& all = book_.incidents();
  const auto open = std::find_if(all.rbegin(), all.rend(), [&place](const Incident& one) {
    return one.end == End::none && one.instance == place.instance;
  });
  auto& tracker = at->second;
  const auto of_it = [&place](const Incident& one) { return one.instance == place.instance; };
  if (open != all.rend()) {
    tracker.restore(*open);
  } else if (const auto last = std::find_if(all.rbegin(), all.rend(), of_it); last != all.rend()) {
    tracker.restore_closed(*last);
  }
  const auto told = std::find_if(all.rbegin(), all.rend(), [&of_it](const Incident& one) {
    return of_it(one) && one.read_to.has_value();
  });
  if (told != all.rend()) tracker.recall_line(*told->read_to);
}

void Keeper::catching_up(const std::string& instance, bool on) {
  const auto found = trackers_.find(instance);
  if (found != trackers_.end()) found->second.catching_up(on);
}

void Keeper::forget(const std::string& instance, Time now) {
  if (!trackers_.contains(instance)) return;
  on(instance, GivenUp{"the instance is there no longer"}, now);
  trackers_.erase(instance);
}

void Keeper::settle(Time now) {
  std::vector<Incident> left;
  for (const auto& incident : book_.incidents()) {
    if (incident.end == End::none && open(incident.instance) == nullptr) left.push_back(incident);
  }
  for (const auto& incident : left) give_up(incident, now);
}

void Keeper::give_up(const Incident& incident, Time now) {
  Tracker tracker({incident.instance, incident.device, incident.domain}, [] { return 0; });
  tracker.restore(incident);
  take(tracker.on(GivenUp{"the instance is there no longer"}, now));
}

const Incident* Keeper::open(const std::string& instance) const {
  const auto found = trackers_.find(instance);
  return found == trackers_.end() ? nullptr : found->second.open();
}

void Keeper::on(const std::string& instance, const Signal& signal, const Heard& heard) {
  const auto found = trackers_.find(instance);
  if (found != trackers_.end()) take(found->second.on(signal, heard));
}

void Keeper::tick(Time now) {
  for (auto& [instance, tracker] : trackers_) take(tracker.tick(now));
  apply(expired(book_.quarantine(), now), "its time is over");
  apply(device_judge_.tick(book_.devices_out(), now));
}

std::optional<Time> Keeper::signs_deadline() const {
  auto first = device_judge_.deadline();
  for (const auto& [instance, tracker] : trackers_) {
    const auto due = tracker.deadline();
    if (due && (!first || *due < *first)) first = due;
  }
  return first;
}

std::optional<Time> Keeper::deadline() const {
  auto first = signs_deadline();
  if (const auto due = next_expiry(book_.quarantine()); due && (!first || *due < *first)) {
    first = due;
  }
  // A tracker's has to be over.
  return first ? std::optional(*first + k_beyond) : std::nullopt;
}

std::optional<milliseconds> Keeper::pause(Time now) const {
  const auto due = deadline();
  if (!due) return std::nullopt;
  const auto longest = signs_deadline() ? k_sign_patience + k_beyond : k_longest_pause;
  return std::clamp<milliseconds>(*due - now, milliseconds(1), longest);
}

// ---- incidents ----

// On disk before anybody hears of it: what was told is never forgotten, and never told of twice.
void Keeper::take(const std::vector<Change>& changes) {
  if (changes.empty()) return;
  const auto& incident = changes.back().incident;
  recorded(book_.record(incident));
  for (const auto& change : changes) tell(change);
  count_quarantine(incident);
}

void Keeper::tell(const Change& change) {
  const auto& say = sources_.say;
  const auto& incident = change.incident;
  const auto id = id_of(incident.number);
  switch (change.what) {
    case Change::What::opened:
      say("incident_opened", incident.instance, id + ": " + summary(incident));
      break;
    case Change::What::attributed:
      say("incident_attributed", incident.instance, id + ": " + summary(incident));
      break;
    case Change::What::closed:
      count(incident);
      say("incident_closed", incident.instance, closed_text(incident));
      break;
    case Change::What::changed:
      break;
  }
}

void Keeper::count(const Incident& incident) {
  const auto what = std::tuple(incident.device, incident.domain, incident.kind);
  ++counts_[what];
  if (incident.serving) times_[what].add(*incident.serving - incident.happened);
}

void Keeper::recorded(const Result<void>& result) {
  const bool failed = !result;
  if (failed && !said_not_recorded_) {
    sources_.say("faults_not_recorded", "",
                 "faults are kept in memory alone: " + result.error().message);
  }
  said_not_recorded_ = failed;
}

// ---- the quarantine ----

void Keeper::count_quarantine(const Incident& incident) {
  if (!incident.closed) return;
  apply(fault::count(book_.quarantine(), incident, sources_.policy_of, *incident.closed),
        "others came");
}

void Keeper::apply(const QuarantineChanges& changes, const std::string& why_ended) {
  if (changes.empty()) return;
  for (const auto& change : changes) {
    if (const auto* made = std::get_if<EntryMade>(&change)) {
      const auto& entry = made->entry;
      sources_.say("quarantined", "",
                   entry_id(entry.number) + ": " + describe(entry.key) + " is kept out for " +
                       format_duration(entry.until - entry.since) +
                       (entry.by.empty() ? "" : " by " + entry.by) + ": " + entry.reason);
    } else if (const auto* ended = std::get_if<EntryEnded>(&change)) {
      const auto found = book_.quarantine().entries.find(ended->number);
      if (found == book_.quarantine().entries.end()) continue;
      sources_.say("quarantine_lifted", "",
                   entry_id(ended->number) + ": " + describe(found->second.key) +
                       " is kept out no longer: " + why_ended);
    }
  }
  recorded(book_.record(changes));
}

std::optional<KeptOut> Keeper::kept_out(const Key& who, Time now) const {
  return fault::kept_out(book_.quarantine(), who, now);
}

Result<Entry> Keeper::keep_out(const Order& order, const std::string& by, Time now) {
  const auto made = put_in(book_.quarantine(), order, by, now);
  if (!made) return made.error();
  apply({*made}, "");
  return made->entry;
}

Result<Entry> Keeper::lift(const std::string& id, const std::string& by) {
  const auto& entries = book_.quarantine().entries;
  const auto number = entry_number(id);
  const auto found = number ? entries.find(*number) : entries.end();
  if (found == entries.end()) return Error{"no entry \"" + printable(id, 64) + "\""};
  const auto entry = found->second;
  apply({EntryEnded{entry.number}}, "lifted by " + printable(by, 64));
  return entry;
}

// ---- devices ----

// Of a device that is out the rest is known: an incident that nothing would close is not opened.
void Keeper::signal_all(const OfDevice& of, const Signal& signal, Time at) {
  const bool is_out = book_.devices_out().of(of.device, of.gpu) != nullptr;
  for (const auto& instance : of.instances) {
    if (!is_out || open(instance) != nullptr) on(instance, signal, at);
  }
}

std::uint64_t Keeper::incident_of(const OfDevice& of) const {
  for (const auto& instance : of.instances) {
    if (const auto* incident = open(instance)) return incident->number;
  }
  return 0;
}

void Keeper::on_xid(const OfDevice& of, unsigned xid, Time at) {
  signal_all(of, XidReported{xid}, at);
  apply(device_judge_.on_xid(book_.devices_out(), {of.device, of.gpu, xid, incident_of(of), at}));
}

void Keeper::on_action(const OfDevice& of, RecoveryAction action, Time at) {
  signal_all(of, ActionReported{action}, at);
  apply(device_judge_.on_action(book_.devices_out(), of.gpu, action, incident_of(of), at));
}

bool Keeper::put_back(const std::string& device, const std::string& gpu, const std::string& why) {
  const auto changes = fault::put_back(book_.devices_out(), device, gpu, why);
  apply(changes);
  return !changes.empty();
}

void Keeper::devices_are(const std::set<std::string>& devices) {
  apply(without_the_gone(book_.devices_out(), devices));
}

void Keeper::apply(const DeviceChanges& changes) {
  if (changes.empty()) return;
  for (const auto& change : changes) {
    if (const auto* taken = std::get_if<DeviceTakenOut>(&change)) {
      sources_.say("device_out", "",
                   describe(taken->entry) +
                       "; nobody new is let in, who is there may finish, and then MPS is not run "
                       "on it");
    } else if (const auto* returned = std::get_if<DeviceReturned>(&change)) {
      sources_.say("device_back", "",
                   printable(returned->device) + " is back in service: " + returned->why);
    }
  }
  recorded(book_.record(changes));
}

}  // namespace mps::fault
