// What keeps somebody out.
#include <array>
#include <cmath>
#include <iterator>

#include "share/ledger.h"

namespace mps::share {

namespace {

constexpr std::uint64_t k_no_limit_tenths = 1000;
constexpr std::array k_measured = {Code::quota_clients,  Code::quota_threads, Code::quota_memory,
                                   Code::device_clients, Code::device_memory, Code::device_threads};
constexpr std::array k_of_device = {Code::device_clients, Code::device_memory,
                                    Code::device_threads};

std::uint64_t to_tenths(double percentage) {
  return percentage <= 0 ? 0 : static_cast<std::uint64_t>(std::llround(percentage * 10));
}

std::uint64_t times(std::uint64_t value, double factor) {
  // Not just below what was meant, where the factor has no exact form.
  return static_cast<std::uint64_t>(std::floor(static_cast<double>(value) * factor + 1e-6));
}

bool of_device(Code code) {
  return code == Code::device_clients || code == Code::device_memory ||
         code == Code::device_threads || code == Code::uid_conflict;
}

}  // namespace

void Ledger::Sums::add(const Sums& other) {
  clients += other.clients;
  tenths += other.tenths;
  limited_tenths += other.limited_tenths;
  memory += other.memory;
}

void Ledger::Sums::subtract(const Sums& other) {
  clients -= other.clients;
  tenths -= other.tenths;
  limited_tenths -= other.limited_tenths;
  memory -= other.memory;
}

Ledger::Sums Ledger::need_of(const Grant& grant) {
  const auto part = to_tenths(grant.active_thread_percentage);
  return {1, part, part < k_no_limit_tenths ? part : 0, grant.pinned_memory_mebibytes.value_or(0)};
}

Ledger::QuotaLimits Ledger::limits_of(const policy::Quota& quota) {
  QuotaLimits limits;
  if (quota.clients) limits.clients = quota.clients->value;
  if (quota.active_thread_percentage) {
    limits.tenths = to_tenths(quota.active_thread_percentage->value);
  }
  if (quota.pinned_memory_mebibytes) limits.memory = quota.pinned_memory_mebibytes->value;
  return limits;
}

Ledger::Asking Ledger::asking_from(const Request& request, TimePoint now) const {
  return {request, need_of(request.grant), limits_of(request.quota), now, nullptr};
}

Ledger::Measure Ledger::measure(Code code, const Asking& asking, const Instance& instance,
                                const Account* account) const {
  const auto& device = *instance.device;
  const auto& need = asking.need;
  const auto sums = account == nullptr ? Sums{} : account->sums;
  switch (code) {
    case Code::quota_clients:
      return {code, sums.clients, need.clients, asking.quota.clients};
    case Code::quota_threads:
      return {code, sums.tenths, need.tenths, asking.quota.tenths};
    case Code::quota_memory:
      return {code, sums.memory, need.memory, asking.quota.memory};
    case Code::device_clients:
      return {code, instance.clients, need.clients, instance.facts.max_clients};
    case Code::device_memory: {
      if (device.memory == 0) return {code, device.sums.memory, need.memory, std::nullopt};
      const auto left = device.memory > device.reserved ? device.memory - device.reserved : 0;
      return {code, device.sums.memory, need.memory, times(left, settings_.overcommit_memory)};
    }
    default:
      return {Code::device_threads, device.sums.limited_tenths, need.limited_tenths,
              times(k_no_limit_tenths, settings_.overcommit_threads)};
  }
}

std::optional<Ledger::Blocker> Ledger::door_blocker(const Instance& instance) const {
  const auto& door = instance.facts.door;
  if (const auto* closed = std::get_if<Closed>(&door)) {
    return Blocker{.kind = Blocker::Kind::door, .code = closed->refusal.code, .final = true};
  }
  if (std::holds_alternative<Serving>(door)) return std::nullopt;
  return Blocker{.kind = Blocker::Kind::door, .code = Code::not_ready};
}

std::optional<Ledger::Blocker> Ledger::bound_blocker(const Request& request) const {
  const auto& bounds = settings_.bounds;
  Blocker full{.kind = Blocker::Kind::node, .code = Code::device_clients, .final = true};
  if (slots_.size() >= bounds.slots) {
    full.used = slots_.size();
    full.limit = bounds.slots;
    return full;
  }
  if (admissions_.size() < bounds.admissions) return std::nullopt;
  if (admission_of_.contains(admission_key(request.share, request.container))) return std::nullopt;
  full.used = admissions_.size();
  full.limit = bounds.admissions;
  full.need = 1;  // tells the two apart
  return full;
}

std::optional<Ledger::Blocker> Ledger::uid_blocker(const Asking& asking,
                                                   const Instance& instance) const {
  if (!instance.facts.single_uid || instance.uids.empty()) return std::nullopt;
  const auto uid = asking.request.uid;
  if (instance.uids.size() == 1 && instance.uids.begin()->first == uid) return std::nullopt;
  const auto holder = instance.uids.begin()->first == uid ? std::next(instance.uids.begin())
                                                          : instance.uids.begin();
  return Blocker{.kind = Blocker::Kind::other_uid,
                 .code = Code::uid_conflict,
                 .final = !settings_.uid_conflict_waits,
                 .uid = holder->first};
}

// Others may pass whom room is kept for, as long as they leave it enough.
std::optional<Ledger::Blocker> Ledger::kept_blocker(const Asking& asking,
                                                    const Instance& instance) const {
  const auto& kept = instance.device->kept;
  if (!kept || kept->request == asking.request.id) return std::nullopt;
  const auto& first = waiting_.at(kept->request);
  const auto& place = *first.line->instance;
  for (const auto code : k_of_device) {
    if (code == Code::device_clients && &place != &instance) continue;
    const auto mine = measure(code, asking, instance, nullptr);
    const auto other = measure(code, first, place, nullptr);
    if (!mine.limit || mine.need == 0 || other.need == 0) continue;
    if (mine.used + mine.need + other.need <= *mine.limit) continue;
    return Blocker{.kind = Blocker::Kind::kept, .code = code};
  }
  if (&place != &instance || !instance.facts.single_uid) return std::nullopt;
  if (first.request.uid == asking.request.uid) return std::nullopt;
  return Blocker{.kind = Blocker::Kind::kept, .code = Code::uid_conflict};
}

std::optional<Ledger::Blocker> Ledger::blocker(const Asking& asking, const Instance& instance,
                                               const Account* account) const {
  if (auto door = door_blocker(instance)) return door;
  if (auto full = bound_blocker(asking.request)) return full;
  if (asking.quota.memory && !asking.request.grant.pinned_memory_mebibytes) {
    return Blocker{
        .kind = Blocker::Kind::no_memory_limit, .code = Code::quota_memory, .final = true};
  }
  std::optional<Blocker> first;
  for (const auto code : k_measured) {
    const auto found = measure(code, asking, instance, account);
    if (!found.limit || found.need == 0 || found.used + found.need <= *found.limit) continue;
    const Blocker limit{.kind = Blocker::Kind::limit,
                        .code = code,
                        .final = found.need > *found.limit,
                        .used = found.used,
                        .need = found.need,
                        .limit = *found.limit};
    if (limit.final) return limit;
    if (!first) first = limit;
  }
  if (auto uid = uid_blocker(asking, instance); uid && (uid->final || !first)) return uid;
  return first ? first : kept_blocker(asking, instance);
}

bool Ledger::helps(const Freed& freed, const Line& line) {
  switch (*line.short_of) {
    case Code::device_clients:
      return freed.instance == line.instance;
    case Code::device_memory:
      return freed.memory;
    case Code::device_threads:
      return freed.threads;
    default:
      return freed.account == line.account;
  }
}

// Most of who waits still lacks what it lacked before: that is found out without all the rest.
bool Ledger::still_short(const Line& line, const Freed* freed) const {
  if (!line.short_of) return false;
  if (freed != nullptr && !helps(*freed, line)) return true;
  const auto found = measure(*line.short_of, *line.asking.front(), *line.instance, line.account);
  return found.limit && found.need <= *found.limit && found.used + found.need > *found.limit;
}

std::optional<Ledger::Blocker> Ledger::waiting_blocker(const Asking& asking) const {
  const auto& line = *asking.line;
  auto own = blocker(asking, *line.instance, line.account);
  if (own || line.asking.front() == &asking) return own;
  own = blocker(*line.asking.front(), *line.instance, line.account);
  return Blocker{.kind = Blocker::Kind::behind, .code = own ? own->code : Code::timeout};
}

bool Ledger::note_passing(Line& line, const Blocker& blocker) {
  auto& device = *line.instance->device;
  line.short_of = blocker.kind == Blocker::Kind::limit ? std::optional(blocker.code) : std::nullopt;
  // Free places go to the lines in turn: nobody can be passed there.
  if (of_device(blocker.code) && blocker.code != Code::device_clients) {
    if (!line.passed_from) line.passed_from = device.let_in;
    return false;
  }
  line.passed_from.reset();
  const bool kept = device.kept && device.kept->request == line.asking.front()->request.id;
  if (kept && !of_device(blocker.code)) keep_no_more(device);
  return kept && !device.kept;
}

}  // namespace mps::share
