// Who is kept out for faulting too often, by policy or by hand: a namespace, or a workload of it
// (the pods of one owner that run one command). Pure; what survives a restart is in book.h.
//
// A workload is counted by itself first. Faults of a namespace's other workloads add up to its own,
// since names of owners and commands are the tenant's to change. Faults that somebody was kept out
// for count no more. Nobody is counted for a fault that the driver blames the device for; and for
// one that several may have caused only where the policy says so, once an incident.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "fault/incident.h"
#include "policy/policy.h"

namespace mps::fault {

inline constexpr std::size_t k_entry_limit = 256;
inline constexpr std::size_t k_counted_limit = 2048;

struct Key {
  std::string subject{};  // the namespace
  std::string owner{};    // empty: whichever
  std::string command{};  // likewise
  bool operator==(const Key&) const = default;
};
Key workload_of(const ClientFacts& client);
bool covers(const Key& key, const Key& who);
std::string describe(const Key& key);  // "team-a", "train.py of Deployment/web in team-a"

struct Entry {
  std::uint64_t number = 0;  // never used twice
  Key key{};
  unsigned faults = 0;  // 0: by hand
  Time since{};
  Time until{};
  std::string reason{};
  std::string by{};  // "uid 1000"; empty: the policy
  bool operator==(const Entry&) const = default;
};
std::string entry_id(std::uint64_t number);  // "q3"
std::optional<std::uint64_t> entry_number(const std::string& id);

struct CountedFault {
  std::uint64_t incident = 0;
  unsigned round = 0;  // 0: one of several
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;
  Key who{};
  Time at{};
  bool spent = false;  // somebody was kept out for it, and is not again, whatever became of that
  bool operator==(const CountedFault&) const = default;
};

struct FaultCounted {
  CountedFault fault;
};
struct EntryMade {  // or changed
  Entry entry;
};
struct EntryEnded {
  std::uint64_t number = 0;
};
using QuarantineChange = std::variant<FaultCounted, EntryMade, EntryEnded>;
using QuarantineChanges = std::vector<QuarantineChange>;

struct QuarantineState {
  std::uint64_t next = 1;
  std::map<std::uint64_t, Entry> entries{};
  std::deque<CountedFault> faults{};

  void apply(const QuarantineChange& change);
  bool operator==(const QuarantineState&) const = default;
};

// The quarantine of a namespace's policy; none: there is none.
using PolicyOf = std::function<std::optional<policy::Quarantine>(std::string_view subject)>;

// What a closed incident comes to. Of the same one again: what is new.
QuarantineChanges count(const QuarantineState& state, const Incident& incident,
                        const PolicyOf& policy_of, Time now);

// By hand. An Error says what is wrong with it.
struct Order {
  Key key{};
  std::chrono::milliseconds duration{};
  std::string reason{};
};
Result<EntryMade> put_in(const QuarantineState& state, const Order& order, const std::string& by,
                         Time now);

// Whose time is over.
QuarantineChanges expired(const QuarantineState& state, Time now);
std::optional<Time> next_expiry(const QuarantineState& state);

// For share::quarantined() and its like: of those that hold, the entry that lasts longest.
struct KeptOut {
  Entry entry{};
  std::string who{};
  std::chrono::milliseconds left{};
};
std::optional<KeptOut> kept_out(const QuarantineState& state, const Key& who, Time now);

}  // namespace mps::fault
