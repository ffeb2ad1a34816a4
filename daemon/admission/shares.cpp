#include "admission/shares.h"

#include <algorithm>

#include "base/text.h"
#include "policy/effective.h"
#include "policy/subject.h"

namespace mps::admission {

namespace {

std::int64_t to_unix(SystemTime time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

SystemTime from_unix(std::int64_t milliseconds) {
  return SystemTime(std::chrono::milliseconds(milliseconds));
}

}  // namespace

share::Share make_share(std::uint64_t number, const ShareWish& wish, SystemTime now) {
  share::Share made;
  made.number = number;
  made.id = "s" + std::to_string(number);
  made.instance = wish.instance;
  made.subject = wish.subject;
  made.grant = wish.grant;
  made.made_at = to_unix(now);
  if (wish.ttl) made.expires_at = to_unix(now + *wish.ttl);
  return made;
}

const share::Share* find_share(const Shares& shares, std::string_view instance,
                               std::string_view id) {
  const auto* found = find_share(shares, id);
  return found != nullptr && found->instance == instance ? found : nullptr;
}

const share::Share* find_share(const Shares& shares, std::string_view id) {
  if (!id.starts_with('s')) return nullptr;
  const auto number = parse_number<std::uint64_t>(id.substr(1));
  const auto found = number ? shares.find(*number) : shares.end();
  return found == shares.end() || found->second.id != id ? nullptr : &found->second;
}

std::string ledger_name(std::string_view instance, std::string_view share) {
  return std::string(instance) + "/" + std::string(share);
}

std::vector<std::uint64_t> expired(const Shares& shares, SystemTime now) {
  std::vector<std::uint64_t> numbers;
  for (const auto& [number, share] : shares) {
    if (!share.closing && share.expires_at && *share.expires_at <= to_unix(now)) {
      numbers.push_back(number);
    }
  }
  return numbers;
}

std::optional<SystemTime> next_expiry(const Shares& shares) {
  std::optional<SystemTime> next;
  for (const auto& [number, share] : shares) {
    if (share.closing || !share.expires_at) continue;
    const auto at = from_unix(*share.expires_at);
    next = next ? std::min(*next, at) : at;
  }
  return next;
}

std::variant<share::Plan, share::Refusal> plan_for_share(const policy::Generation& generation,
                                                         const identity::Identity& who,
                                                         const Place& place,
                                                         const share::Share& share) {
  if (!share.subject.empty() && who.subject != share.subject) {
    return share::wrong_pod(share.id, share.subject, who.subject);
  }
  if (auto elsewhere = wrong_instance(generation, who.subject, place)) return *elsewhere;
  return share::Plan{share.grant, {}};
}

std::string describe(const share::Share& share) {
  auto text = "share " + share.id + " of " + share.instance + ": " + share::describe(share.grant) +
              " for each client, for " +
              (share.subject.empty() ? "whoever has it mounted" : printable(share.subject));
  if (share.expires_at) text += ", until " + format_time(from_unix(*share.expires_at));
  return text;
}

}  // namespace mps::admission
