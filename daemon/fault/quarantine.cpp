#include "fault/quarantine.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.h"

namespace mps::fault {

namespace {

using std::chrono::milliseconds;

constexpr std::chrono::hours k_longest_policy{30 * 24};
constexpr std::chrono::seconds k_shortest{1};
constexpr std::chrono::hours k_longest{24 * 366};
constexpr std::size_t k_reason_limit = 256;

bool known(const QuarantineState& state, const CountedFault& fault) {
  const auto same = [&fault](const CountedFault& other) {
    if (other.incident != fault.incident || other.round != fault.round) return false;
    if (fault.round == 0) return other.who == fault.who;
    return other.pid == fault.pid && other.start_ticks == fault.start_ticks;
  };
  return std::any_of(state.faults.begin(), state.faults.end(), same);
}

// A fault that one of several has caused counts once for all of them that the key covers.
unsigned faults_of(const QuarantineState& state, const Key& key, Time since) {
  unsigned count = 0;
  std::set<std::uint64_t> suspected;
  for (const auto& fault : state.faults) {
    if (fault.spent || fault.at < since || !covers(key, fault.who)) continue;
    if (fault.round != 0 || suspected.insert(fault.incident).second) ++count;
  }
  return count;
}

// In this order they are applied as they come, so that each sees what the one before it did.
class Counting {
 public:
  Counting(const QuarantineState& state, Time now) : state_(state), now_(now) {}

  void count(const CountedFault& fault, const policy::Quarantine& policy) {
    if (known(state_, fault) || was_kept_out_for(fault)) return;
    put(FaultCounted{fault});
    for (const auto& key : {fault.who, Key{fault.who.subject, "", ""}}) {
      const auto faults = faults_of(state_, key, now_ - policy.within);
      if (faults < policy.after) continue;
      keep_out(key, faults, policy);
      return;
    }
  }

  QuarantineChanges take() { return std::move(changes_); }

 private:
  void put(QuarantineChange change) {
    state_.apply(change);
    changes_.push_back(std::move(change));
  }

  // Of an incident that closes later: whoever is kept out has not faulted since.
  bool was_kept_out_for(const CountedFault& fault) const {
    return std::any_of(state_.entries.begin(), state_.entries.end(), [&fault](const auto& one) {
      const auto& entry = one.second;
      return entry.by.empty() && covers(entry.key, fault.who) && fault.at <= entry.since;
    });
  }

  void make_room() {
    if (state_.entries.size() < k_entry_limit) return;
    auto first = state_.entries.end();
    for (auto at = state_.entries.begin(); at != state_.entries.end(); ++at) {
      if (!at->second.by.empty()) continue;
      if (first == state_.entries.end() || at->second.until < first->second.until) first = at;
    }
    if (first != state_.entries.end()) put(EntryEnded{first->first});
  }

  void keep_out(const Key& key, unsigned faults, const policy::Quarantine& policy) {
    Entry entry{state_.next, key, faults, now_, now_ + policy.duration, "", ""};
    entry.reason = std::to_string(faults) + (faults == 1 ? " fault" : " faults") + " within " +
                   format_duration(policy.within);
    const auto same = std::find_if(
        state_.entries.begin(), state_.entries.end(),
        [&key](const auto& one) { return one.second.by.empty() && one.second.key == key; });
    if (same != state_.entries.end()) {
      entry.number = same->first;
    } else {
      make_room();
    }
    if (state_.entries.size() < k_entry_limit || same != state_.entries.end()) {
      put(EntryMade{std::move(entry)});
    }
  }

  QuarantineState state_;
  Time now_;
  QuarantineChanges changes_;
};

}  // namespace

Key workload_of(const ClientFacts& client) {
  return {client.subject, client.owner, client.command};
}

bool covers(const Key& key, const Key& who) {
  return key.subject == who.subject && (key.owner.empty() || key.owner == who.owner) &&
         (key.command.empty() || key.command == who.command);
}

std::string describe(const Key& key) {
  std::string text = key.command;
  if (!key.owner.empty()) text += (text.empty() ? "" : " of ") + key.owner;
  return text.empty() ? key.subject : text + " in " + key.subject;
}

std::string entry_id(std::uint64_t number) {
  return "q" + std::to_string(number);
}

std::optional<std::uint64_t> entry_number(const std::string& id) {
  if (!id.starts_with('q')) return std::nullopt;
  const auto number = parse_number<std::uint64_t>(std::string_view(id).substr(1));
  return number && entry_id(*number) == id ? number : std::nullopt;
}

void QuarantineState::apply(const QuarantineChange& change) {
  if (const auto* counted = std::get_if<FaultCounted>(&change)) {
    const auto oldest = counted->fault.at - k_longest_policy;
    std::erase_if(faults, [oldest](const auto& fault) { return fault.at < oldest; });
    faults.push_back(counted->fault);
    if (faults.size() <= k_counted_limit) return;
    const auto spent = std::ranges::find(faults, true, &CountedFault::spent);
    faults.erase(spent == faults.end() ? faults.begin() : spent);
  } else if (const auto* made = std::get_if<EntryMade>(&change)) {
    const auto& entry = made->entry;
    next = std::max(next, entry.number + 1);
    entries[entry.number] = entry;
    if (!entry.by.empty()) return;
    for (auto& fault : faults) fault.spent = fault.spent || covers(entry.key, fault.who);
  } else {
    entries.erase(std::get<EntryEnded>(change).number);
  }
}

QuarantineChanges count(const QuarantineState& state, const Incident& incident,
                        const PolicyOf& policy_of, Time now) {
  Counting counting(state, now);
  if (incident.hardware || incident.end == End::none) return {};
  for (const auto& culprit : incident.culprits) {
    const auto& client = culprit.client;
    const auto policy = policy_of(client.subject);
    if (client.subject.empty() || !policy) continue;
    counting.count({incident.number, culprit.round, client.pid, client.start_ticks,
                    workload_of(client), culprit.at},
                   *policy);
  }
  if (incident.unattributed_rounds == 0) return counting.take();
  for (const auto& suspect : incident.suspects) {
    const auto policy = policy_of(suspect.subject);
    if (suspect.subject.empty() || !policy || !policy->on_suspicion) continue;
    counting.count({incident.number, 0, suspect.pid, suspect.start_ticks, workload_of(suspect),
                    incident.noticed},
                   *policy);
  }
  return counting.take();
}

Result<EntryMade> put_in(const QuarantineState& state, const Order& order, const std::string& by,
                         Time now) {
  const auto& key = order.key;
  if (key.subject.empty()) return Error{"namespace: is missing"};
  if (order.duration < k_shortest || order.duration > k_longest) {
    return Error{"for: must be 1s at least and 8784h at most"};
  }
  if (trim(order.reason).empty()) return Error{"reason: is missing"};
  auto number = state.next;
  for (const auto& [known, entry] : state.entries) {
    if (!entry.by.empty() && entry.key == key) number = known;
  }
  if (number == state.next && state.entries.size() >= k_entry_limit) {
    return Error{"there are " + std::to_string(k_entry_limit) +
                 " entries already; remove one of them first"};
  }
  return EntryMade{{number, key, 0, now, now + order.duration,
                    printable(order.reason, k_reason_limit), printable(by, 64)}};
}

QuarantineChanges expired(const QuarantineState& state, Time now) {
  QuarantineChanges changes;
  for (const auto& [number, entry] : state.entries) {
    if (entry.until <= now) changes.push_back(EntryEnded{number});
  }
  return changes;
}

std::optional<Time> next_expiry(const QuarantineState& state) {
  std::optional<Time> first;
  for (const auto& [number, entry] : state.entries) {
    if (!first || entry.until < *first) first = entry.until;
  }
  return first;
}

std::optional<KeptOut> kept_out(const QuarantineState& state, const Key& who, Time now) {
  const Entry* longest = nullptr;
  for (const auto& [number, entry] : state.entries) {
    if (entry.until <= now || !covers(entry.key, who)) continue;
    if (longest == nullptr || entry.until > longest->until) longest = &entry;
  }
  if (longest == nullptr) return std::nullopt;
  return KeptOut{*longest, describe(longest->key), longest->until - now};
}

}  // namespace mps::fault
