#include "fault/tracker.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace mps::fault {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds k_dies_of_it{2};
constexpr seconds k_together{5};
constexpr std::size_t k_loose_xid_limit = 16;

bool within(Time a, Time b, milliseconds window) {
  return (a < b ? b - a : a - b) <= window;
}

bool is_death(Kind kind) {
  return kind == Kind::server_died || kind == Kind::daemon_died;
}

}  // namespace

Tracker::Tracker(Place place, std::function<std::uint64_t()> next)
    : place_(std::move(place)), next_(std::move(next)) {}

void Tracker::restore(const Incident& open) {
  open_.emplace(open);
}

const Incident* Tracker::open() const {
  return open_ ? &open_->incident() : nullptr;
}

void Tracker::restore_closed(const Incident& last) {
  last_.emplace(last);
}

void Tracker::recall_line(const LogPlace& line) {
  told_to_ = line;
}

void Tracker::catching_up(bool on) {
  catching_up_ = on;
  if (!on) told_to_.reset();
}

bool Tracker::was_told(const std::optional<LogPlace>& line) const {
  return line && told_to_ && line->log == told_to_->log && line->end_offset <= told_to_->end_offset;
}

std::vector<Change> Tracker::on(const Signal& signal, const Heard& heard) {
  if (was_told(heard.line)) return {};
  now_ = heard.now;
  for (auto* of : {&open_, &last_}) {
    if (*of) (*of)->hear(now_);
  }
  auto* touched = take(signal, heard.at);
  if (touched != nullptr && heard.line) touched->read_to(*heard.line);
  return changes();
}

// What it is about; nothing: no incident.
Case* Tracker::take(const Signal& signal, Time at) {
  if (!catching_up_) clients_.forget(at);
  std::erase_if(loose_xids_, [at](const auto& xid) { return !within(xid.at, at, k_together); });
  const auto note = note_of(signal, at);
  if (open_) {
    // Before anything, since it may be what closes it.
    if (!note.kind.empty()) open_->note(note);
    std::visit([this, at](const auto& one) { handle(one, at); }, signal);
    return open_ ? &*open_ : last_ ? &*last_ : nullptr;
  }
  std::visit([this, at](const auto& one) { handle(one, at); }, signal);
  const bool of_last = std::holds_alternative<XidReported>(signal) ||
                       std::holds_alternative<CulpritNamed>(signal) ||
                       std::holds_alternative<StickyClients>(signal);
  auto* touched = open_ ? &*open_ : of_last ? about(at, k_together) : nullptr;
  if (touched != nullptr && !note.kind.empty()) touched->note(note);
  return touched;
}

std::vector<Change> Tracker::changes() {
  std::vector<Change> list;
  for (auto* of : {&last_, &open_}) {
    if (!*of) continue;
    const auto news = (*of)->take_news();
    const auto tell = [&](bool is, Change::What what) {
      if (is) list.push_back({what, (*of)->incident()});
    };
    tell(news.opened, Change::What::opened);
    tell(news.attributed, Change::What::attributed);
    tell(news.changed && !news.opened && !news.attributed && !news.closed, Change::What::changed);
    tell(news.closed, Change::What::closed);
  }
  return list;
}

// ---- what opens and what joins ----

Case& Tracker::begin(Kind kind, Time at) {
  Incident incident;
  incident.number = next_();
  incident.instance = place_.instance;
  incident.device = place_.device;
  incident.domain = place_.domain;
  incident.kind = kind;
  incident.happened = at;
  incident.noticed = now_;
  last_.reset();
  open_.emplace(std::move(incident), clients_);
  for (const auto& xid : std::exchange(loose_xids_, {})) {
    open_->xid(xid.number, xid.at);
    open_->note(note_of(XidReported{xid.number}, xid.at));
  }
  return *open_;
}

Case* Tracker::about(Time at, milliseconds window) {
  if (open_) return &*open_;
  return last_ && within(last_->last_sign(), at, window) ? &*last_ : nullptr;
}

Case& Tracker::fault(const Case::Sign& sign) {
  // The log's own line is a fault each; the rest may still be about the last one.
  auto* of = sign.line || !sign.prompt ? (open_ ? &*open_ : nullptr) : about(sign.at, k_together);
  if (of == nullptr) of = &begin(Kind::app_fault, sign.at);
  const auto& incident = of->incident();
  if (is_death(incident.kind) && incident.faults == 0 &&
      within(incident.happened, sign.at, k_dies_of_it)) {
    const auto died = incident.kind;
    const auto [at, how] = std::pair(incident.happened, incident.cause);
    of->becomes(Kind::app_fault);
    of->followed_by(died, at, how);
    of->cause("");
  }
  of->fault(sign, clients_);
  return *of;
}

void Tracker::death(Kind kind, const std::string& how, Time at) {
  if (!open_ && last_ && within(last_->last_sign(), at, k_dies_of_it)) {
    open_ = std::exchange(last_, std::nullopt);
    open_->reopen(at);
  }
  if (open_) {
    open_->followed_by(kind, at, how);
  } else {
    begin(kind, at).cause(how);
  }
  open_->confirm(at);
  open_->all_hit(clients_, at);
}

void Tracker::device_trouble(Time at) {
  if (!open_ && last_ && within(last_->last_sign(), at, k_together)) {
    open_ = std::exchange(last_, std::nullopt);
    open_->reopen(at);
  }
  if (!open_) {
    begin(Kind::device_trouble, at);
  } else if (within(open_->incident().happened, at, k_together)) {
    open_->becomes(Kind::device_trouble);
  } else {
    open_->followed_by(Kind::device_trouble, at, "the device needs more than a restart");
  }
  open_->confirm(at);
  open_->all_hit(clients_, at);
}

// An action that was reported long before an Xid does not know of it.
std::optional<RecoveryAction> Tracker::action_for(Time xid) const {
  if (!action_ || action_at_ + k_together < xid) return std::nullopt;
  return action_;
}

void Tracker::judge_device(Case& of) {
  auto worst = judge(std::nullopt, action_for(of.incident().happened));
  for (const auto& xid : of.incident().xids) {
    worst = std::max(worst, judge(xid.number, action_for(xid.first)));
  }
  of.device_needs(worst, action_for(of.incident().happened));
  if (of.incident().kind == Kind::device_trouble && !takes_out(worst)) of.acquit_device();
}

// ---- the log ----

void Tracker::handle(const FatalFaultLogged&, Time at) {
  fault({at, true, true}).confirm(at);
}

void Tracker::handle(const CulpritNamed& culprit, Time at) {
  auto& of = fault({at, false, true});
  of.confirm(at);
  of.name(culprit.pid, clients_);
}

void Tracker::handle(const StickyClients& sticky, Time at) {
  auto& of = fault({at, false, true});
  of.confirm(at);
  for (const auto pid : sticky.pids) of.hit(pid, clients_);
}

void Tracker::handle(const ClientStatusSeen& status, Time) {
  if (!open_ || status.active || open_->incident().faults == 0) return;
  open_->confirm(open_->last_sign());
  open_->hit(status.pid, clients_);
}

void Tracker::handle(const ContextRecreated&, Time) {
  if (open_) open_->recovery_began();
}

// ---- NVML ----

void Tracker::handle(const XidReported& xid, Time at) {
  const auto meant = judge(xid.number, action_for(at));
  if (takes_out(meant)) {
    device_trouble(at);
  } else if (meant == Consequence::client_fault) {
    fault({at, false, true, true});
  }
  auto* of = about(at, k_together);
  if (of == nullptr) {
    loose_xids_.push_back({xid.number, at});
    if (loose_xids_.size() > k_loose_xid_limit) loose_xids_.pop_front();
    return;
  }
  of->xid(xid.number, at);
  judge_device(*of);
}

void Tracker::handle(const ActionReported& reported, Time at) {
  action_ = reported.action;
  action_at_ = at;
  if (takes_out(judge(std::nullopt, reported.action))) device_trouble(at);
  if (open_) judge_device(*open_);
}

// ---- probes and processes ----

void Tracker::handle(const ServerStatusSeen&, Time at) {
  fault({at, false, false}).confirm(at);
}

void Tracker::handle(const ServerEnded& ended, Time at) {
  if (!ended.asked) death(Kind::server_died, ended.how, at);
  clients_.all_known(true);  // whoever it had is not there any more
}

void Tracker::handle(const DaemonEnded& ended, Time at) {
  if (!ended.asked) death(Kind::daemon_died, ended.how, at);
}

void Tracker::handle(const Wedged& wedged, Time at) {
  if (open_) {
    open_->followed_by(Kind::wedged, at, wedged.why);
  } else {
    begin(Kind::wedged, at).cause(wedged.why);
  }
  open_->confirm(open_->last_sign());
}

// Nothing else is said of one that was left alone, for its clients, and came to itself.
void Tracker::handle(const AnswersAgain&, Time at) {
  if (open_ && open_->incident().kind == Kind::wedged && open_->incident().faults == 0) {
    handle(Serving{}, at);
  }
}

void Tracker::handle(const StartFailed& failed, Time at) {
  if (!open_) begin(Kind::start_failure, at);
  open_->confirm(open_->last_sign());
  if (open_->incident().kind == Kind::start_failure) {
    open_->cause(failed.cause);
  } else {
    open_->followed_by(Kind::start_failure, at, failed.cause);
  }
}

// ---- clients ----

void Tracker::handle(const ClientCame& came, Time at) {
  clients_.came(came.facts, at);
  if (open_) open_->came(came.facts);
}

void Tracker::handle(const ClientWent& went, Time at) {
  clients_.went(went.pid, went.start_ticks, at);
}

// Of who came before the fault it is said when it is served that it was, and nothing else.
void Tracker::handle(const ClientServed& served, Time at) {
  if (open_ || !last_) return;
  const auto* client = clients_.find(served.pid);
  if (client == nullptr || client->since <= last_->incident().happened) return;
  last_->served(served.pid, at);
}

void Tracker::handle(const ClientsKnown& known, Time) {
  clients_.all_known(known.all);
}

// ---- recovery ----

void Tracker::handle(const StepTaken& step, Time at) {
  if (open_) open_->step(step, at);
}

void Tracker::handle(const Serving&, Time at) {
  if (!open_) return;
  open_->close(End::serving, at);
  last_ = std::exchange(open_, std::nullopt);
}

void Tracker::handle(const GivenUp& given_up, Time at) {
  if (!open_) return;
  open_->cause(given_up.why);
  open_->close(End::given_up, at);
  last_ = std::exchange(open_, std::nullopt);
}

// ---- time ----

std::optional<Time> Tracker::deadline() const {
  const bool waits = open_ && !open_->confirmed() && open_->incident().kind == Kind::app_fault;
  return waits ? std::optional(open_->last_sign() + k_together) : std::nullopt;
}

std::vector<Change> Tracker::tick(Time now) {
  const auto due = deadline();
  const bool was_set_back = open_ && now + k_together < open_->last_sign();
  if (!due || (now <= *due && !was_set_back)) return {};
  now_ = now;
  open_->close(End::unconfirmed, now);
  last_ = std::exchange(open_, std::nullopt);
  return changes();
}

}  // namespace mps::fault
