#include "fault/clients.h"

#include <algorithm>
#include <utility>

namespace mps::fault {

void Clients::leave(std::map<Key, ClientFacts>::iterator one, Time at) {
  gone_.push_back({std::move(one->second), at});
  here_.erase(one);
  if (gone_.size() > k_client_limit) gone_.pop_front();
}

void Clients::came(const ClientFacts& facts, Time at) {
  const Key key{facts.pid, facts.start_ticks};
  if (const auto known = here_.find(key); known != here_.end()) {
    const auto since = std::min(known->second.since, facts.since);
    known->second = bounded(facts);
    known->second.since = since;
    return;
  }
  // A pid belongs to one at a time.
  const auto before = here_.lower_bound({facts.pid, 0});
  if (before != here_.end() && before->first.first == facts.pid) {
    if (facts.start_ticks == 0) return;
    if (before->first.second == 0) {
      here_.erase(before);  // the same one, of whom more is known now
    } else {
      leave(before, at);
    }
  }
  if (here_.size() >= k_client_limit) {
    ++left_out_;
    return;
  }
  here_.emplace(key, bounded(facts));
}

void Clients::went(pid_t pid, std::uint64_t start_ticks, Time at) {
  const auto one = start_ticks != 0 ? here_.find({pid, start_ticks}) : here_.lower_bound({pid, 0});
  if (one != here_.end() && one->first.first == pid) {
    return leave(one, at);
  }
  // Told twice (by the desk, and by the instance), or nobody who was left out.
  const bool gone_already = std::any_of(gone_.begin(), gone_.end(), [&](const Gone& other) {
    return other.facts.pid == pid && (start_ticks == 0 || other.facts.start_ticks == start_ticks);
  });
  if (!gone_already && left_out_ > 0) --left_out_;
}

void Clients::forget(Time now, std::chrono::milliseconds after) {
  std::erase_if(gone_, [&](const Gone& one) { return one.at + after < now; });
}

const ClientFacts* Clients::find(pid_t pid) const {
  const auto here = here_.lower_bound({pid, 0});
  if (here != here_.end() && here->first.first == pid) return &here->second;
  const auto gone = std::find_if(gone_.rbegin(), gone_.rend(),
                                 [pid](const Gone& one) { return one.facts.pid == pid; });
  return gone == gone_.rend() ? nullptr : &gone->facts;
}

std::vector<ClientFacts> Clients::at(Time time, std::chrono::milliseconds slack) const {
  std::vector<ClientFacts> list;
  for (const auto& [key, facts] : here_) {
    if (facts.since <= time) list.push_back(facts);
  }
  for (const auto& one : gone_) {
    if (one.facts.since <= time && one.at + slack >= time) list.push_back(one.facts);
  }
  return list;
}

}  // namespace mps::fault
