// Shares that were made on demand: which one a peer's socket is, who may use it, and when it ends.
// Pure; the records are in the checkpoint, the directories are app/share_keeper.h's.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "admission/plan.h"
#include "share/records.h"

namespace mps::admission {

inline constexpr std::string_view k_open_share = "open";

using Shares = std::map<std::uint64_t, share::Share>;  // by number
using SystemTime = std::chrono::system_clock::time_point;

// What is asked for: of a device's part, with limits for each client process.
struct ShareWish {
  std::string instance;  // "gpu0.shared"
  std::string subject;   // whose it is to be; empty: anybody's who has it mounted
  share::Grant grant{};
  std::optional<std::chrono::milliseconds> ttl{};
};

share::Share make_share(std::uint64_t number, const ShareWish& wish, SystemTime now);

// None: no share of this instance has that id.
const share::Share* find_share(const Shares& shares, std::string_view instance,
                               std::string_view id);
// Ids are used once on a node, so they alone say which it is.
const share::Share* find_share(const Shares& shares, std::string_view id);

// The ledger's name of it: ids of open shares are those of their instance only.
std::string ledger_name(std::string_view instance, std::string_view share);

// Whose time is over and that are still open for newcomers, by number.
std::vector<std::uint64_t> expired(const Shares& shares, SystemTime now);
// When the next one's time is over.
std::optional<SystemTime> next_expiry(const Shares& shares);

// A share stands in the place of a policy: whoever it is for needs none, and the namespace's quota
// does not count, as an administrator has decided for this one. The device's bounds hold, and a
// namespace with an instance of its own stays there.
std::variant<share::Plan, share::Refusal> plan_for_share(const policy::Generation& generation,
                                                         const identity::Identity& who,
                                                         const Place& place,
                                                         const share::Share& share);

// "share s1 of gpu0.shared: 25 % of the SMs, 12Gi for each client, for team-a, until …".
std::string describe(const share::Share& share);

}  // namespace mps::admission
