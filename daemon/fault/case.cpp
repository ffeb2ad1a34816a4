#include "fault/case.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/text.h"

namespace mps::fault {

namespace {

using std::chrono::seconds;

constexpr std::size_t k_hit_limit = 2 * k_client_limit;
constexpr std::size_t k_text_limit = 256;
constexpr seconds k_together{5};   // signs of one fault
constexpr seconds k_just_gone{2};  // its process may end before its fault is noticed
constexpr std::chrono::milliseconds k_gone_with_it{500};  // who has ended of it, and not before
constexpr seconds k_looked_late{10};                      // a probe finds it late

// One of whom only the pid is known is the one with that pid of whom more is: within one fault a
// pid does not come again.
bool is_one(const ClientFacts& a, const ClientFacts& b) {
  return same_process(a, b) || (a.pid == b.pid && (a.start_ticks == 0 || b.start_ticks == 0));
}

// True if it was not there, or more is known of it now.
bool put(std::vector<ClientFacts>& list, const ClientFacts& one) {
  const auto known = std::find_if(list.begin(), list.end(),
                                  [&one](const auto& other) { return is_one(one, other); });
  if (known == list.end()) {
    list.push_back(one);
    return true;
  }
  if (known->start_ticks != 0 || one.start_ticks == 0) return false;
  *known = one;
  return true;
}

// Of one whom MPS names and we have not seen come.
ClientFacts only_pid(pid_t pid) {
  ClientFacts facts;
  facts.pid = pid;
  return facts;
}

bool only_the_driver_speaks_of(const Incident& incident) {
  const auto by_driver = [](const Note& note) {
    return note.kind == "xid" || note.kind == "recovery_action";
  };
  return incident.kind == Kind::app_fault && incident.attribution == Attribution::none &&
         std::all_of(incident.signals.begin(), incident.signals.end(), by_driver);
}

bool has_note(const Incident& incident, std::string_view kind) {
  return incident.signals_left_out != 0 ||
         std::any_of(incident.signals.begin(), incident.signals.end(),
                     [kind](const Note& note) { return note.kind == kind; });
}

template <typename T>
bool add_bounded(std::vector<T>& list, T one, std::size_t limit) {
  if (list.size() >= limit) return false;
  list.push_back(std::move(one));
  return true;
}

}  // namespace

Case::Case(Incident incident, const Clients& clients)
    : incident_(std::move(incident)),
      last_sign_(incident_.happened),
      now_(incident_.noticed),
      changed_(true) {
  round_.at = incident_.happened;
  look_who_is_there({incident_.happened, false, true}, clients);
}

// Who was there when its last round began is not recorded: unless more is said about that round, it
// stays attributed as it was.
Case::Case(Incident recorded)
    : incident_(std::move(recorded)),
      earlier_unattributed_(incident_.unattributed_rounds),
      hit_(incident_.victims),
      hit_left_out_(incident_.victim_count),
      last_sign_(incident_.happened),
      now_(incident_.noticed),
      recovering_(true),
      recorded_(true),
      confirmed_(!only_the_driver_speaks_of(incident_)),
      told_(true),
      told_culprits_(incident_.culprits),
      told_end_(incident_.end) {
  hit_left_out_ -= std::min(hit_left_out_, hit_.size());
  round_.at = incident_.happened;
  round_.fault = incident_.faults > 0;
  // Where its line was not seen yet, that of an Xid's fault is still to come.
  round_.line = round_.fault && has_note(incident_, "fatal_fault");
  round_.prompt = false;
  recall_round();
}

void Case::recall_round() {
  for (const auto& culprit : incident_.culprits) {
    if (culprit.round != incident_.rounds) {
      earlier_culprits_.push_back(culprit);
    } else if (culprit.by == Attribution::named) {
      round_.named.push_back(culprit.client);
    }
  }
  const auto by = incident_.attribution;
  if (by == Attribution::not_a_client) round_.strangers = incident_.strangers;
  const bool unknown = by >= Attribution::one_of;
  if (unknown && earlier_unattributed_ > 0) --earlier_unattributed_;
  auto& suspects = unknown && earlier_unattributed_ == 0 ? round_.there : earlier_suspects_;
  suspects = incident_.suspects;
  auto& left_out =
      unknown && earlier_unattributed_ == 0 ? round_.there_left_out : earlier_suspects_left_out_;
  left_out = incident_.suspect_count - std::min(incident_.suspect_count, suspects.size());
  round_.others_possible = incident_.others_possible;
  earlier_others_possible_ = incident_.others_possible;
}

Case::News Case::take_news() {
  News news;
  news.opened = !std::exchange(told_, true);
  news.attributed = !incident_.culprits.empty() && incident_.culprits != told_culprits_;
  news.closed = incident_.end != End::none && incident_.end != told_end_;
  news.changed = std::exchange(changed_, false);
  told_culprits_ = incident_.culprits;
  told_end_ = incident_.end;
  return news;
}

void Case::note(const Note& note) {
  if (!add_bounded(incident_.signals, note, k_signal_limit)) ++incident_.signals_left_out;
}

// The line may come after the driver's word for the same fault, and recovery have begun by then.
bool Case::begins_round(const Sign& sign) const {
  const bool late = sign.at - last_sign_ > k_together;
  if (!round_.fault) return recovering_ && late;
  if (!recovering_) return false;
  if (sign.line) return round_.line || late;
  // A probe sees the same fault again and again.
  return sign.prompt && late && !is_late_word(sign);
}

// Of the driver, about a fault that MPS has told of, or about another one of which MPS has yet to
// tell: a round that it began would be put down to who is there now.
bool Case::is_late_word(const Sign& sign) const {
  return sign.of_driver && confirmed_ && round_.fault && sign.at - last_sign_ > k_together;
}

void Case::begin_round(const Sign& sign, const Clients& clients) {
  earlier_culprits_ = incident_.culprits;
  earlier_suspects_ = incident_.suspects;
  earlier_suspects_left_out_ = incident_.suspect_count - incident_.suspects.size();
  earlier_others_possible_ = incident_.others_possible;
  earlier_unattributed_ = incident_.unattributed_rounds;
  ++incident_.rounds;
  recovering_ = false;
  recorded_ = false;
  round_ = {};
  round_.at = sign.at;
  look_who_is_there(sign, clients);
}

void Case::look_who_is_there(const Sign& sign, const Clients& clients) {
  round_.prompt = sign.prompt;
  round_.there = clients.at(sign.at, sign.prompt ? k_just_gone : k_looked_late);
  round_.there_left_out = clients.left_out();
  round_.others_possible = !clients.all_known();
}

void Case::fault(const Sign& sign, const Clients& clients) {
  if (begins_round(sign)) begin_round(sign, clients);
  if (!round_.fault) {
    round_.fault = true;
    // Of a death there was no telling whether anybody's fault it was. What has been open for long
    // says nothing of who is there by now.
    if (sign.at - round_.at > k_together) round_.at = sign.at;
    look_who_is_there({round_.at, sign.line, sign.prompt}, clients);
    for (const auto& one : clients.at(round_.at, sign.prompt ? k_gone_with_it : k_looked_late)) {
      add_hit(one);
    }
    ++incident_.faults;
    changed_ = true;
  } else if (sign.line && round_.line) {
    ++incident_.faults;
    changed_ = true;  // its line is not told again
  }
  round_.line = round_.line || sign.line;
  if (!is_late_word(sign)) last_sign_ = std::max(last_sign_, sign.at);
  attribute();
}

void Case::name(pid_t pid, const Clients& clients) {
  if (pid <= 0) return;
  if (const auto* client = clients.find(pid)) {
    if (round_.named.size() < k_client_limit) put(round_.named, *client);
  } else if (std::find(round_.strangers.begin(), round_.strangers.end(), pid) ==
             round_.strangers.end()) {
    add_bounded(round_.strangers, pid, k_people_limit);
  }
  attribute();
}

void Case::hit(pid_t pid, const Clients& clients) {
  if (pid <= 0) return;
  const auto* client = clients.find(pid);
  const auto facts = client != nullptr ? *client : only_pid(pid);
  add_hit(facts);
  // Somebody was there whom we did not know of: then who is known may not be the only one.
  if (client == nullptr && round_.there.size() < k_hit_limit) put(round_.there, facts);
  attribute();
}

void Case::all_hit(const Clients& clients, Time at) {
  for (const auto& one : clients.at(at, k_just_gone)) add_hit(one);
  put_victims();
}

void Case::came(const ClientFacts& facts) {
  if (facts.since > round_.at || round_.there.size() >= k_hit_limit) return;
  const auto known = bounded(facts);
  if (!put(round_.there, known)) return;
  if (round_.fault) add_hit(known);
  attribute();
}

void Case::add_hit(const ClientFacts& facts) {
  if (!put(hit_, facts)) return;
  if (hit_.size() > k_hit_limit) {
    hit_.pop_back();
    ++hit_left_out_;
  }
  changed_ = true;
}

void Case::attribute() {
  const bool settled = recorded_ && round_.named.empty() && round_.strangers.empty();
  // What MPS shows no sign of may not be a client's.
  if (round_.fault && confirmed_ && !settled) {
    const auto there = round_.there.size() + round_.there_left_out;
    auto by = Attribution::one_of;
    std::vector<ClientFacts> culprits;
    if (!round_.named.empty()) {
      by = Attribution::named;
      culprits = round_.named;
    } else if (!round_.strangers.empty()) {
      by = Attribution::not_a_client;
    } else if (there == 0) {
      by = Attribution::nobody;
    } else if (there == 1 && round_.there.size() == 1 && round_.prompt && !round_.others_possible &&
               round_.there.front().start_ticks != 0) {
      by = Attribution::only_client;
      culprits = round_.there;
    }
    if (by != incident_.attribution) changed_ = true;
    incident_.attribution = by;
    incident_.unattributed_rounds = earlier_unattributed_ + (culprits.empty() ? 1 : 0);
    put_culprits(culprits, by);
    put_suspects();
  }
  put_victims();
}

void Case::put_culprits(const std::vector<ClientFacts>& who, Attribution by) {
  const auto before = incident_.culprits;
  incident_.culprits = earlier_culprits_;
  incident_.culprits_left_out = 0;
  for (const auto& one : who) {
    const auto known = std::find_if(before.begin(), before.end(), [&](const Culprit& other) {
      return other.round == incident_.rounds && other.by == by && same_process(other.client, one);
    });
    const Culprit culprit =
        known == before.end() ? Culprit{one, incident_.rounds, by, now_} : *known;
    if (!add_bounded(incident_.culprits, culprit, k_people_limit)) ++incident_.culprits_left_out;
  }
  for (const auto pid : round_.strangers) {
    auto& list = incident_.strangers;
    if (std::find(list.begin(), list.end(), pid) == list.end()) {
      add_bounded(list, pid, k_people_limit);
    }
  }
  if (incident_.culprits.empty()) {
    incident_.attributed.reset();
  } else if (!incident_.attributed) {
    incident_.attributed = now_;
  }
  changed_ = changed_ || incident_.culprits != before;
}

void Case::put_suspects() {
  auto list = earlier_suspects_;
  auto left_out = earlier_suspects_left_out_;
  incident_.others_possible = earlier_others_possible_;
  if (incident_.attribution != Attribution::named &&
      incident_.attribution != Attribution::only_client) {
    left_out += round_.there_left_out;
    incident_.others_possible = incident_.others_possible || round_.others_possible;
    for (const auto& one : round_.there) put(list, one);
  }
  incident_.suspect_count = list.size() + left_out;
  if (list.size() > k_people_limit) list.resize(k_people_limit);
  changed_ = changed_ || list != incident_.suspects;
  incident_.suspects = std::move(list);
}

void Case::put_victims() {
  std::vector<ClientFacts> list;
  for (const auto& one : hit_) {
    const bool culprit =
        std::any_of(incident_.culprits.begin(), incident_.culprits.end(),
                    [&one](const Culprit& other) { return is_one(other.client, one); });
    if (!culprit) list.push_back(one);
  }
  incident_.victim_count = list.size() + hit_left_out_;
  if (list.size() > k_people_limit) list.resize(k_people_limit);
  incident_.victims = std::move(list);
}

void Case::becomes(Kind kind) {
  if (incident_.kind == kind) return;
  incident_.kind = kind;
  std::erase_if(incident_.consequences, [kind](const auto& one) { return one.kind <= kind; });
  changed_ = true;
}

void Case::followed_by(Kind kind, Time at, const std::string& text) {
  if (kind <= incident_.kind) return;
  const auto known = [kind](const Aftermath& one) { return one.kind == kind; };
  auto& list = incident_.consequences;
  if (!recovering_ && std::any_of(list.begin(), list.end(), known)) return;
  changed_ =
      add_bounded(list, Aftermath{kind, at, printable(text, k_text_limit)}, k_consequence_limit) ||
      changed_;
}

void Case::cause(const std::string& text) {
  auto cause = printable(text, k_text_limit);
  changed_ = changed_ || cause != incident_.cause;
  incident_.cause = std::move(cause);
}

void Case::xid(unsigned number, Time at) {
  auto& list = incident_.xids;
  const auto known = std::find_if(list.begin(), list.end(),
                                  [number](const XidSeen& one) { return one.number == number; });
  if (known != list.end()) {
    ++known->times;
    return;
  }
  if (add_bounded(list, XidSeen{number, 1, at}, k_xid_limit)) changed_ = true;
  if (blames_hardware(number)) incident_.hardware = true;
}

void Case::device_needs(Consequence consequence, std::optional<RecoveryAction> action) {
  changed_ = changed_ || incident_.needs != consequence || incident_.action != action;
  incident_.needs = consequence;
  incident_.action = action;
}

void Case::confirm(Time at) {
  last_sign_ = std::max(last_sign_, at);
  if (!std::exchange(confirmed_, true)) attribute();
}

void Case::acquit_device() {
  becomes(Kind::app_fault);
  // A client that was terminated meanwhile, say, has a line in the log, too.
  const bool of_mps = incident_.faults > 0 || !incident_.consequences.empty();
  confirmed_ = of_mps && !only_the_driver_speaks_of(incident_);
}

void Case::step(const StepTaken& step, Time at) {
  Step taken{at, printable(step.name, 64), printable(step.outcome, k_text_limit), incident_.rounds};
  if (add_bounded(incident_.steps, std::move(taken), k_step_limit)) {
    changed_ = true;
  } else {
    ++incident_.steps_left_out;
  }
  recovering_ = true;
}

void Case::served(pid_t pid, Time at) {
  if (incident_.end != End::serving || incident_.first_served) return;
  incident_.first_served = FirstServed{pid, at};
  changed_ = true;
}

void Case::close(End end, Time at) {
  incident_.end = end;
  incident_.closed = at;
  if (end == End::serving) incident_.serving = at;
  changed_ = true;
}

void Case::reopen(Time at) {
  incident_.end = End::none;
  incident_.closed.reset();
  incident_.serving.reset();
  incident_.first_served.reset();
  told_end_ = End::none;
  confirm(at);
  recovering_ = false;
  changed_ = true;
}

}  // namespace mps::fault
