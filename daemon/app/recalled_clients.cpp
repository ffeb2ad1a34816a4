#include "app/recalled_clients.h"

#include <algorithm>
#include <chrono>

#include "app/fault_signals.h"
#include "base/text.h"
#include "fault/clients.h"

namespace mps::app {

namespace {

fault::Time at_unix(std::int64_t milliseconds) {
  return fault::Time(std::chrono::milliseconds(milliseconds));
}

fault::ClientFacts facts_of(const api::Event& event) {
  fault::ClientFacts facts;
  facts.pid = parse_number<pid_t>(api::text_in(event, "pid")).value_or(0);
  facts.start_ticks = parse_number<std::uint64_t>(api::text_in(event, "startTicks")).value_or(0);
  if (const auto uid = parse_number<uid_t>(api::text_in(event, "uid"))) facts.uid = *uid;
  facts.command = api::text_in(event, "command");
  facts.since = fault::time_of(event.time);
  return fault::bounded(std::move(facts));
}

// The one that has this pid, or had it last.
RecalledClient* find(std::vector<RecalledClient>& list, pid_t pid) {
  const auto found = std::find_if(list.rbegin(), list.rend(),
                                  [pid](const auto& one) { return one.facts.pid == pid; });
  return found == list.rend() ? nullptr : &*found;
}

void take_event(const api::Event& event, RecalledClients& into) {
  if (event.kind == "server_ready" || event.kind == "control_started") into.all = true;
  if (event.kind == "log_lost") into.all = false;
  if (event.kind != "client_asked" && event.kind != "client_gone") return;
  const auto facts = facts_of(event);
  if (facts.pid <= 0) return;
  auto* known = find(into.clients, facts.pid);
  if (event.kind == "client_gone") {
    if (known != nullptr && !known->until) known->until = fault::time_of(event.time);
    return;
  }
  // What the desk recorded of it is more.
  const bool same = known != nullptr && !known->until &&
                    (facts.start_ticks == 0 || known->facts.start_ticks == facts.start_ticks);
  if (!same) into.clients.push_back({facts, std::nullopt});
}

// Of those who have gone the last ones.
void bound(std::vector<RecalledClient>& list) {
  std::size_t there = 0;
  std::size_t gone = 0;
  std::vector<RecalledClient> kept;
  for (auto one = list.rbegin(); one != list.rend(); ++one) {
    if ((one->until ? gone : there)++ < fault::k_client_limit) kept.push_back(std::move(*one));
  }
  std::reverse(kept.begin(), kept.end());
  list = std::move(kept);
}

}  // namespace

RecalledClients recall_clients(const std::optional<std::vector<admission::LetIn>>& desk,
                               bool desk_is_whole, const std::deque<api::Event>& events,
                               const std::string& instance) {
  RecalledClients recalled;
  if (desk) {
    for (const auto& in : *desk) {
      if (in.instance != instance) continue;
      RecalledClient one{fault::bounded(facts_of(in, at_unix(in.since))), std::nullopt};
      if (in.until != 0) one.until = at_unix(in.until);
      recalled.clients.push_back(std::move(one));
    }
  }
  for (const auto& event : events) {
    if (event.instance == instance) take_event(event, recalled);
  }
  if (desk) recalled.all = desk_is_whole;
  const auto there =
      static_cast<std::size_t>(std::count_if(recalled.clients.begin(), recalled.clients.end(),
                                             [](const RecalledClient& one) { return !one.until; }));
  if (there > fault::k_client_limit) recalled.all = false;
  bound(recalled.clients);
  return recalled;
}

}  // namespace mps::app
