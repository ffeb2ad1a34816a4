// Who waits, and whose turn it is.
#include <algorithm>
#include <iterator>
#include <utility>

#include "share/ledger.h"

namespace mps::share {

namespace {

template <typename Map, typename Key>
void erase_value(Map& map, const Key& key, std::uint64_t value) {
  const auto found = map.find(key);
  if (found == map.end()) return;
  std::erase(found->second, value);
  if (found->second.empty()) map.erase(found);
}

}  // namespace

std::optional<Refusal> Ledger::no_place(const Request& request) const {
  const auto& bounds = settings_.bounds;
  if (waiting_.size() >= bounds.waiting) {
    return too_many_waiting("this node", waiting_.size(), bounds.waiting);
  }
  const auto mine = waiting_in_.find(request.subject);
  if (mine == waiting_in_.end() || mine->second < bounds.waiting_of_namespace) return std::nullopt;
  return too_many_waiting(request.subject, mine->second, bounds.waiting_of_namespace);
}

void Ledger::stand_in_line(const Asking& asking, Instance& instance, const Refusal& why) {
  const auto& request = asking.request;
  auto& device = *instance.device;
  const auto [at, made] = instance.lines.try_emplace(request.subject);
  auto& line = at->second;
  if (made) {
    line.instance = &instance;
    line.account = &account_at(device, request.subject);
    ++line.account->lines;
    line.turn = device.turns.insert(device.turns.end(), &line);
  }
  auto& waiting = waiting_.emplace(request.id, asking).first->second;
  waiting.line = &line;
  line.asking.push_back(&waiting);
  waiting_of_[request.process].push_back(request.id);
  ++waiting_in_[request.subject];
  deadlines_.emplace(request.deadline, request.id);
  if (line.asking.size() == 1) {
    if (const auto blocked = blocker(waiting, instance, line.account)) note_passing(line, *blocked);
  }
  effects_.decisions.push_back({request.id, Waits{why}});
}

Ledger::Asking Ledger::leave_line(Asking& asking) {
  auto& line = *asking.line;
  auto& instance = *line.instance;
  auto& device = *instance.device;
  const auto id = asking.request.id;
  if (device.kept && device.kept->request == id) keep_no_more(device);
  if (line.asking.front() == &asking) {
    line.passed_from.reset();
    line.short_of.reset();
  }
  std::erase(line.asking, &asking);
  deadlines_.erase({asking.request.deadline, id});
  erase_value(waiting_of_, asking.request.process, id);
  const auto in_namespace = waiting_in_.find(asking.request.subject);
  if (--in_namespace->second == 0) waiting_in_.erase(in_namespace);
  auto left = std::move(waiting_.extract(id).mapped());
  left.line = nullptr;
  if (line.asking.empty()) {
    device.turns.erase(line.turn);
    auto& account = *line.account;
    --account.lines;
    instance.lines.erase(left.request.subject);
    drop_if_idle(device, account);
  }
  return left;
}

void Ledger::serve(Device& device, const Freed* freed) {
  for (auto turn = device.turns.begin(); turn != device.turns.end();) {
    turn = serve_first(device, turn, freed);
  }
  keep_room_if_due(device);
}

// Looks at the first of a line; where to go on.
std::list<Ledger::Line*>::iterator Ledger::serve_first(Device& device,
                                                       std::list<Line*>::iterator turn,
                                                       const Freed* freed) {
  auto& line = **turn;
  auto& instance = *line.instance;
  auto& first = *line.asking.front();
  const bool kept = device.kept && device.kept->request == first.request.id;
  if (!kept && still_short(line, freed)) return std::next(turn);
  const auto blocked = blocker(first, instance, line.account);
  if (blocked && !blocked->final) {
    return note_passing(line, *blocked) ? device.turns.begin() : std::next(turn);
  }
  // Others' chances may change with it, or their lines end: then look at all again.
  const bool again = kept || waiting_of_.at(first.request.process).size() > 1;
  auto next = std::next(turn);
  if (line.asking.size() > 1 && (blocked || next == device.turns.end())) next = turn;
  if (blocked) {
    refuse(first.request.id, explain(*blocked, first, instance));
    leave_line(first);
    return again ? device.turns.begin() : next;
  }
  device.turns.splice(device.turns.end(), device.turns, turn);
  if (kept) device.kept.reset();
  const auto asking = leave_line(first);
  let_in(asking, instance);
  return again ? device.turns.begin() : next;
}

void Ledger::keep_room_if_due(Device& device) {
  if (device.kept || now_ < device.keeps_none_until) return;
  for (const auto* line : device.turns) {
    if (!line->passed_from || device.let_in - *line->passed_from < settings_.passes) continue;
    device.kept = KeptRoom{line->asking.front()->request.id, now_ + settings_.keep_room};
    return;
  }
}

void Ledger::keep_no_more(Device& device) {
  const auto found = waiting_.find(device.kept->request);
  if (found != waiting_.end()) {
    // Counted from the next look on, which must not be a short one.
    found->second.line->passed_from.reset();
    found->second.line->short_of.reset();
  }
  device.kept.reset();
  device.keeps_none_until = now_ + settings_.keep_none;
}

void Ledger::refuse_waiting_at(Instance& instance, const Refusal& why) {
  while (!instance.lines.empty()) {
    auto& first = *instance.lines.begin()->second.asking.front();
    refuse(first.request.id, why);
    leave_line(first);
  }
}

void Ledger::expire() {
  std::vector<Device*> touched;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_) {
    auto& asking = waiting_.at(deadlines_.begin()->second);
    auto* device = asking.line->instance->device;
    if (std::find(touched.begin(), touched.end(), device) == touched.end()) {
      touched.push_back(device);
    }
    const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(now_ - asking.since);
    refuse(asking.request.id, after_waiting(explain_waiting(asking), waited));
    leave_line(asking);
  }
  for (auto* device : touched) serve(*device);
}

Effects Ledger::time_passed(TimePoint now) {
  now_ = now;
  expire();
  for (auto& [uuid, device] : devices_) {
    if (!device.kept || device.kept->until > now_) continue;
    keep_no_more(device);
    serve(device);
  }
  return finish();
}

std::optional<TimePoint> Ledger::next_due() const {
  std::optional<TimePoint> due;
  if (!deadlines_.empty()) due = deadlines_.begin()->first;
  for (const auto& [uuid, device] : devices_) {
    if (device.kept && (!due || device.kept->until < *due)) due = device.kept->until;
  }
  return due;
}

Effects Ledger::peer_gone(RequestId request, TimePoint now) {
  now_ = now;
  const auto found = waiting_.find(request);
  if (found == waiting_.end()) return {};
  auto& device = *found->second.line->instance->device;
  leave_line(found->second);
  serve(device);
  return finish();
}

Effects Ledger::revise(std::span<const Revision> revisions, TimePoint now) {
  now_ = now;
  for (const auto& revision : revisions) {
    const auto found = waiting_.find(revision.request);
    if (found == waiting_.end()) continue;
    auto& asking = found->second;
    if (const auto* why = std::get_if<Refusal>(&revision.now)) {
      refuse(revision.request, *why);
      leave_line(asking);
      continue;
    }
    const auto& plan = std::get<Plan>(revision.now);
    asking.request.grant = plan.grant;
    asking.request.quota = plan.quota;
    asking.need = need_of(plan.grant);
    asking.quota = limits_of(plan.quota);
  }
  for (auto& [uuid, device] : devices_) serve(device);
  return finish();
}

Effects Ledger::settings_changed(const LedgerSettings& settings, TimePoint now) {
  now_ = now;
  settings_ = settings;
  for (auto& [uuid, device] : devices_) serve(device);
  return finish();
}

}  // namespace mps::share
