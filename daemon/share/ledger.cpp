// Letting in, and what ends.
#include "share/ledger.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

namespace mps::share {

Ledger::Ledger(LedgerSettings settings) : settings_(settings) {}

std::string Ledger::admission_key(std::string_view share, std::string_view container) {
  std::string key(share);
  key += '\0';  // in none of the two
  return key.append(container);
}

Ledger::Device& Ledger::device_at(const std::string& uuid) {
  auto& device = devices_[uuid];
  if (device.uuid.empty()) device.uuid = device.name = uuid;
  return device;
}

// One that nobody has told of is there because of slots that are left of it.
Ledger::Instance& Ledger::instance_at(const std::string& id, const std::string& device) {
  const auto [at, made] = instances_.try_emplace(id);
  auto& instance = at->second;
  if (made) {
    instance.facts.id = id;
    instance.facts.device = device;
    instance.device = &device_at(device);
    instance.removed = true;
  }
  return instance;
}

Ledger::Account& Ledger::account_at(Device& device, const std::string& subject) {
  auto& account = device.accounts[subject];
  account.subject = subject;
  return account;
}

void Ledger::drop_if_idle(Device& device, Account& account) {
  if (account.lines != 0 || account.sums.clients != 0) return;
  device.accounts.erase(std::string(account.subject));
}

void Ledger::drop_if_idle(Instance& instance) {
  if (!instance.removed || instance.clients != 0 || !instance.lines.empty()) return;
  instances_.erase(std::string(instance.facts.id));
}

const Ledger::SlotEntry* Ledger::slot_on(std::string_view share, const Process& process) const {
  const auto found = slots_of_.find(process);
  if (found == slots_of_.end()) return nullptr;
  for (const auto id : found->second) {
    const auto& entry = slots_.at(id);
    if (entry.admission != nullptr && entry.admission->admission.share == share) return &entry;
  }
  return nullptr;
}

Ledger::SlotEntry* Ledger::slot_on(std::string_view share, const Process& process) {
  const auto* entry = std::as_const(*this).slot_on(share, process);
  return entry == nullptr ? nullptr : &slots_.at(entry->slot.id);
}

Ledger::AdmissionEntry& Ledger::admission_for(const Request& request, const Instance& instance) {
  const auto [at, made] = admission_of_.try_emplace(admission_key(request.share, request.container),
                                                    counters_.admission);
  if (made) ++counters_.admission;
  auto& entry = admissions_[at->second];
  const Admission now{at->second,       request.share,          request.container,
                      request.instance, instance.device->uuid,  request.subject,
                      request.cgroup,   request.description,    request.grant,
                      request.pod,      request.container_name, request.owner};
  entry.empty = false;
  if (entry.admission == now) return entry;
  entry.admission = now;
  effects_.changes.emplace_back(AdmissionMade{now});
  return entry;
}

Ledger::SlotEntry& Ledger::insert_slot(Slot slot, Sums need, Instance& instance,
                                       AdmissionEntry* admission) {
  auto& entry = slots_[slot.id];
  entry.slot = std::move(slot);
  entry.need = need;
  entry.instance = &instance;
  entry.device = &device_at(entry.slot.device);
  entry.device->sums.add(need);
  ++instance.clients;
  ++instance.uids[entry.slot.uid];
  slots_of_[entry.slot.process].push_back(entry.slot.id);
  if (admission == nullptr) return entry;
  entry.admission = admission;
  ++admission->slots;
  entry.account = &account_at(*entry.device, admission->admission.subject);
  entry.account->sums.add(need);
  return entry;
}

void Ledger::erase_slot(SlotEntry& entry) {
  const auto id = entry.slot.id;
  auto& instance = *entry.instance;
  entry.device->sums.subtract(entry.need);
  --instance.clients;
  const auto uid = instance.uids.find(entry.slot.uid);
  if (--uid->second == 0) instance.uids.erase(uid);
  const auto of_process = slots_of_.find(entry.slot.process);
  std::erase(of_process->second, id);
  if (of_process->second.empty()) slots_of_.erase(of_process);
  effects_.changes.emplace_back(SlotEnded{id});
  if (entry.account != nullptr) {
    entry.account->sums.subtract(entry.need);
    drop_if_idle(*entry.device, *entry.account);
  }
  auto* admission = entry.admission;
  slots_.erase(id);
  if (admission == nullptr) return;
  --admission->slots;
  end_if_over(*admission);
}

void Ledger::end_if_over(AdmissionEntry& entry) {
  const auto& admission = entry.admission;
  if (entry.slots != 0 || (!entry.empty && !admission.cgroup.empty())) return;
  effects_.changes.emplace_back(AdmissionEnded{admission.id});
  admission_of_.erase(admission_key(admission.share, admission.container));
  admissions_.erase(AdmissionId{admission.id});
}

void Ledger::refuse(RequestId request, Refusal why) {
  effects_.decisions.push_back({request, Refused{std::move(why)}});
}

void Ledger::let_in(const Asking& asking, Instance& instance) {
  const auto& request = asking.request;
  give_way(request);
  auto& admission = admission_for(request, instance);
  auto& entry = insert_slot(
      {counters_.slot++, admission.admission.id, request.instance, instance.device->uuid,
       request.process, request.uid, request.grant, request.command},
      asking.need, instance, &admission);
  effects_.changes.emplace_back(SlotMade{entry.slot});
  const bool takes_room =
      asking.need.memory != 0 || asking.need.limited_tenths != 0 || instance.facts.single_uid;
  if (takes_room) ++instance.device->let_in;
  entry.connections = 1;
  effects_.decisions.push_back(
      {request.id, LetIn{entry.slot.grant, entry.slot.id, entry.slot.admission, false}});
  let_in_siblings(request, entry);
}

std::optional<Refusal> Ledger::no_further(const Request& request, const SlotEntry& entry) const {
  const auto limit = settings_.bounds.connections_of_slot;
  if (entry.connections < limit) return std::nullopt;
  return too_many_connections(request.instance, request.process.pid, entry.connections, limit);
}

void Ledger::let_in_again(const Request& request, SlotEntry& entry) {
  if (auto full = no_further(request, entry)) return refuse(request.id, std::move(*full));
  ++entry.connections;
  effects_.decisions.push_back(
      {request.id, LetIn{entry.slot.grant, entry.slot.id, entry.slot.admission, true}});
}

// Other connections of the same process that wait for what it has now.
void Ledger::let_in_siblings(const Request& request, SlotEntry& entry) {
  const auto found = waiting_of_.find(request.process);
  if (found == waiting_of_.end()) return;
  for (const auto id : std::vector<RequestId>(found->second)) {
    auto& asking = waiting_.at(id);
    if (asking.request.share != request.share) continue;
    const auto left = leave_line(asking);
    let_in_again(left.request, entry);
  }
}

void Ledger::let_back_in(Instance& instance) {
  std::vector<Asking*> back;
  for (auto& [subject, line] : instance.lines) {
    for (auto* asking : line.asking) {
      if (slot_on(asking->request.share, asking->request.process) != nullptr) {
        back.push_back(asking);
      }
    }
  }
  for (auto* asking : back) {
    const auto left = leave_line(*asking);
    let_in_again(left.request, *slot_on(left.request.share, left.request.process));
  }
}

// An adopted client asks: now it is known whose it is.
void Ledger::give_way(const Request& request) {
  const auto found = slots_of_.find(request.process);
  if (found == slots_of_.end()) return;
  for (const auto id : std::vector<SlotId>(found->second)) {
    auto& entry = slots_.at(id);
    if (entry.admission == nullptr && entry.slot.instance == request.instance) erase_slot(entry);
  }
}

// Of a process without a slot. Who stands in line comes before it.
std::optional<Ledger::Blocker> Ledger::newcomer_blocker(const Asking& asking,
                                                        const Instance& instance) const {
  const auto& subject = asking.request.subject;
  const auto account = instance.device->accounts.find(subject);
  auto blocked = blocker(asking, instance,
                         account == instance.device->accounts.end() ? nullptr : &account->second);
  const auto line = instance.lines.find(subject);
  if (blocked || line == instance.lines.end()) return blocked;
  const auto first = waiting_blocker(*line->second.asking.front());
  return Blocker{.kind = Blocker::Kind::behind, .code = first ? first->code : Code::timeout};
}

Prospect Ledger::judge(const Asking& asking, const Instance& instance) const {
  using Kind = Prospect::Kind;
  const auto& request = asking.request;
  std::optional<Blocker> blocked;
  if (const auto* entry = slot_on(request.share, request.process)) {
    const auto* closed = std::get_if<Closed>(&instance.facts.door);
    if (closed == nullptr || !closed->running_may_go_on) blocked = door_blocker(instance);
    const auto full = blocked ? std::nullopt : no_further(request, *entry);
    if (full) return {Kind::refused, *full};
  } else {
    blocked = newcomer_blocker(asking, instance);
  }
  if (!blocked) return {};
  auto why = explain(*blocked, asking, instance);
  if (blocked->final || !request.may_wait || request.deadline <= asking.since) {
    return {Kind::refused, std::move(why)};
  }
  if (auto full = no_place(request)) return {Kind::refused, std::move(*full)};
  return {Kind::waits, std::move(why)};
}

Prospect Ledger::foresee(const Request& request, TimePoint now) const {
  const auto found = instances_.find(request.instance);
  if (found == instances_.end()) {
    return {Prospect::Kind::refused, not_ready(request.instance, "unknown")};
  }
  return judge(asking_from(request, now), found->second);
}

Effects Ledger::request(const Request& request, TimePoint now) {
  if (waiting_.contains(request.id)) throw std::logic_error("request id used twice");
  now_ = now;
  const auto found = instances_.find(request.instance);
  if (found == instances_.end()) {
    refuse(request.id, not_ready(request.instance, "unknown"));
    return finish();
  }
  auto& instance = found->second;
  const auto asking = asking_from(request, now);
  auto outcome = judge(asking, instance);
  if (outcome.kind == Prospect::Kind::refused) {
    refuse(request.id, std::move(outcome.why));
  } else if (outcome.kind == Prospect::Kind::waits) {
    stand_in_line(asking, instance, outcome.why);
  } else if (auto* entry = slot_on(request.share, request.process)) {
    let_in_again(request, *entry);
  } else {
    let_in(asking, instance);
  }
  return finish();
}

void Ledger::connection_found(SlotId slot) {
  if (const auto found = slots_.find(slot); found != slots_.end()) ++found->second.connections;
}

void Ledger::connection_closed(SlotId slot) {
  const auto found = slots_.find(slot);
  if (found != slots_.end() && found->second.connections > 0) --found->second.connections;
}

Effects Ledger::slot_ended(SlotId slot, TimePoint now) {
  now_ = now;
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return {};
  auto& instance = *found->second.instance;
  auto& device = *found->second.device;
  auto& current = *instance.device;  // another one, where the instance has moved since
  const Freed freed{found->second.account, &instance, found->second.need.memory != 0,
                    found->second.need.limited_tenths != 0};
  erase_slot(found->second);
  serve(device, &freed);
  if (&current != &device) serve(current);
  drop_if_idle(instance);
  return finish();
}

Effects Ledger::cgroup_empty(AdmissionId admission) {
  const auto found = admissions_.find(admission);
  if (found == admissions_.end()) return {};
  found->second.empty = true;
  end_if_over(found->second);
  return finish();
}

Effects Ledger::instance_changed(const InstanceFacts& facts, TimePoint now) {
  now_ = now;
  auto& instance = instance_at(facts.id, facts.device);
  if (facts.generation < instance.facts.generation) return {};
  auto& device = device_at(facts.device);
  if (instance.device != &device) {
    refuse_waiting_at(instance, not_ready(facts.id, "on another device now"));
    serve(*instance.device);
    instance.device = &device;
  }
  instance.facts = facts;
  instance.removed = false;
  if (!facts.device_name.empty()) device.name = facts.device_name;
  device.memory = facts.memory_mebibytes;
  device.reserved = facts.reserved_mebibytes;
  const auto* closed = std::get_if<Closed>(&facts.door);
  const bool back =
      closed != nullptr ? closed->running_may_go_on : std::holds_alternative<Serving>(facts.door);
  if (back) let_back_in(instance);
  if (closed != nullptr) refuse_waiting_at(instance, closed->refusal);
  serve(device);
  return finish();
}

Effects Ledger::instance_removed(const std::string& id, TimePoint now) {
  now_ = now;
  const auto found = instances_.find(id);
  if (found == instances_.end()) return {};
  auto& instance = found->second;
  instance.removed = true;
  instance.facts.generation = 0;
  instance.facts.door = Closed{instance_gone(id)};
  refuse_waiting_at(instance, instance_gone(id));
  serve(*instance.device);
  drop_if_idle(instance);
  return finish();
}

Effects Ledger::adopt(const std::string& id, const Process& process, uid_t uid) {
  const auto found = instances_.find(id);
  if (found == instances_.end() || slots_.size() >= settings_.bounds.slots) return {};
  if (slot_of(id, process)) return {};
  auto& instance = found->second;
  const auto& entry =
      insert_slot({counters_.slot++, 0, id, instance.device->uuid, process, uid, {}},
                  Sums{.clients = 1}, instance, nullptr);
  effects_.changes.emplace_back(SlotMade{entry.slot});
  return finish();
}

void Ledger::restore(const State& state) {
  counters_ = state.counters;
  for (const auto& [id, admission] : state.admissions) {
    admissions_[id].admission = admission;
    admission_of_[admission_key(admission.share, admission.container)] = id;
  }
  for (const auto& [id, slot] : state.slots) {
    const auto admission = admissions_.find(slot.admission);
    const bool adopted = admission == admissions_.end();
    insert_slot(slot, adopted ? Sums{.clients = 1} : need_of(slot.grant),
                instance_at(slot.instance, slot.device), adopted ? nullptr : &admission->second);
  }
}

}  // namespace mps::share
