// For tests of what comes from signals: a tracker, clients, and a story of it in one line each.
#pragma once

#include <map>
#include <random>
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

// A node's worth of trouble: signals in any order, of clients that may or may not be there.
class Story {
 public:
  explicit Story(unsigned seed) : random_(seed) {}

  int below(int limit) { return std::uniform_int_distribution<int>(0, limit - 1)(random_); }
  int later() { return now_ += below(3) == 0 ? below(4000) : below(50); }
  pid_t pid() { return 1 + below(40); }

  Signal next() {
    static constexpr unsigned k_xids[] = {13, 31, 43, 45, 63, 79, 94, 95, 109, 154, 999};
    switch (below(18)) {
      case 0:
        return FatalFaultLogged{41};
      case 1:
        return CulpritNamed{below(5) == 0 ? 0 : pid()};
      case 2:
        return StickyClients{{pid(), pid()}};
      case 3:
        return ClientStatusSeen{pid(), below(2) == 0};
      case 4:
        return ContextRecreated{};
      case 5:
        return XidReported{k_xids[below(11)]};
      case 6:
        return ActionReported{recovery_action(static_cast<unsigned>(below(8)))};
      case 7:
        return ServerStatusSeen{};
      case 8:
        return ServerEnded{41, "was killed", below(2) == 0};
      case 9:
        return DaemonEnded{"exited", below(2) == 0};
      case 10:
        return Wedged{"no answer"};
      case 11:
        return StartFailed{"no device"};
      case 12:
        return ClientWent{pid(), 0};
      case 13:
        return StepTaken{"wait", "done"};
      case 14:
        return below(4) == 0 ? Signal(GivenUp{"spent"}) : Signal(Serving{});
      default:
        return ClientCame{client(pid(), now_)};
    }
  }

 private:
  std::mt19937 random_;
  int now_ = 0;
};

}  // namespace mps::fault::test
