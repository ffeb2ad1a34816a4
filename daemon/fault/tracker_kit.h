// For tests of what comes from signals: a tracker, clients, and a story of it in one line each.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "fault/tracker.h"

namespace mps::fault::test {

inline Time at(int milliseconds) {
  return Time(std::chrono::milliseconds(1'800'000'000'000 + milliseconds));
}

inline ClientFacts client(pid_t pid, int since = -1000, const std::string& subject = "team-a") {
  ClientFacts facts;
  facts.pid = pid;
  facts.start_ticks = static_cast<std::uint64_t>(pid) * 10;
  facts.uid = 1000;
  facts.command = "train";
  facts.pod = "web-" + std::to_string(pid);
  facts.subject = subject;
  facts.owner = "Deployment/web";
  facts.since = at(since);
  return facts;
}

using Pids = std::vector<pid_t>;
inline Pids pids(const std::vector<ClientFacts>& list) {
  Pids all;
  for (const auto& one : list) all.push_back(one.pid);
  return all;
}
inline Pids pids(const std::vector<Culprit>& list) {
  Pids all;
  for (const auto& one : list) all.push_back(one.client.pid);
  return all;
}

struct Watched {
  Tracker tracker{{"gpu0.shared", "GPU-0", "shared"}, [this] { return ++number; }};
  std::uint64_t number = 0;
  std::map<std::uint64_t, Incident> incidents{};  // as they were told last
  std::string story{};                            // "opened f1, attributed f1, closed f1"

  void take(const std::vector<Change>& changes) {
    for (const auto& change : changes) {
      static constexpr const char* k_words[] = {"opened", "attributed", "changed", "closed"};
      incidents[change.incident.number] = change.incident;
      if (change.what == Change::What::changed) continue;
      story += (story.empty() ? "" : ", ") +
               std::string(k_words[static_cast<std::size_t>(change.what)]) + " " +
               id_of(change.incident.number);
    }
  }
  Watched& on(const Signal& signal, int when) {
    take(tracker.on(signal, at(when)));
    return *this;
  }
  Watched& tick(int when) {
    take(tracker.tick(at(when)));
    return *this;
  }
  Watched& clients(const std::vector<pid_t>& list, int since = -1000) {
    for (const auto pid : list) on(ClientCame{client(pid, since)}, since);
    return *this;
  }
  const Incident& one() const { return incidents.at(1); }
};

}  // namespace mps::fault::test
