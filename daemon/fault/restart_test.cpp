// Faults around a supervisor's end: what was written while none read, what was read and not noted
// as read, who was there then.
#include <doctest/doctest.h>

#include <algorithm>

#include "fault/tracker_kit.h"

using namespace mps::fault;
using namespace mps::fault::test;

namespace {

LogPlace line(std::uint64_t end) {
  return {"5-1.2", end};
}

// A supervisor that begins an hour after what it reads.
constexpr int k_now = 3'600'000;

struct Later : Watched {
  Later() {
    number = 1;
    tracker.catching_up(true);
  }
  Later& read(const Signal& signal, int when, std::uint64_t end) {
    take(tracker.on(signal, {at(when), at(k_now), line(end)}));
    return *this;
  }
  Later& recall(const ClientFacts& facts, std::optional<int> until = {}) {
    take(tracker.on(ClientCame{facts}, {facts.since, at(k_now), {}}));
    if (until) {
      take(tracker.on(ClientWent{facts.pid, facts.start_ticks}, {at(*until), at(k_now), {}}));
    }
    return *this;
  }
  const Incident& told() const { return incidents.at(2); }
};

}  // namespace

TEST_CASE("a fault while nobody read is of when it happened, and noticed when it is read") {
  Later later;
  later.recall(client(7)).recall(client(8));
  later.read(FatalFaultLogged{41}, 0, 100).read(CulpritNamed{8}, 1, 200);
  const auto& one = later.told();
  CHECK(one.happened == at(0));
  CHECK(one.noticed == at(k_now));
  CHECK(one.attributed == at(k_now));
  CHECK(one.signals.front().at == at(0));
  CHECK(one.attribution == Attribution::named);
  CHECK(one.culprits.front().client == client(8));
  CHECK(pids(one.victims) == Pids{7});
  CHECK(one.read_to == line(200));
}

TEST_CASE("who came later is no suspect, and who has gone since still is one") {
  Later later;
  later.recall(client(7));
  // Its process has gone, nobody knows when: it may have been there.
  later.recall(client(8), k_now);
  later.on(ClientCame{client(9, 1000)}, 1000);
  later.read(FatalFaultLogged{41}, 0, 100);
  CHECK(later.told().attribution == Attribution::one_of);
  CHECK(pids(later.told().suspects) == Pids{7, 8});
}

TEST_CASE("who had gone before the fault is none; named, it is known all the same") {
  Later later;
  later.recall(client(7)).recall(client(8), -5000);
  later.read(FatalFaultLogged{41}, 0, 100);
  CHECK(later.told().attribution == Attribution::only_client);
  CHECK(pids(later.told().culprits) == Pids{7});
  later.read(CulpritNamed{8}, 1, 200);
  CHECK(later.told().attribution == Attribution::named);
  CHECK(later.told().culprits.front().client.owner == "Deployment/web");
}

TEST_CASE("nobody is called the only one where others may have been there") {
  Later later;
  later.recall(client(7)).on(ClientsKnown{false}, k_now);
  later.read(FatalFaultLogged{41}, 0, 100);
  CHECK(later.told().attribution == Attribution::one_of);
  CHECK(later.told().others_possible);
  CHECK(summary(later.told()) ==
        "a client's fault by one of 1 client, or of others that nobody has seen come");
  // MPS has listed them since: of the next one it can be said.
  later.on(Serving{}, k_now + 10).on(ClientsKnown{true}, k_now + 20);
  later.on(FatalFaultLogged{41}, k_now + 60000);
  CHECK(later.incidents.at(3).attribution == Attribution::only_client);
  CHECK_FALSE(later.incidents.at(3).others_possible);
}

TEST_CASE("an end of the server makes the list whole: whoever it had is not there any more") {
  Later later;
  later.recall(client(7)).on(ClientsKnown{false}, k_now);
  later.on(ServerEnded{41, "exited", true}, k_now);
  later.on(FatalFaultLogged{42}, k_now + 60000);
  CHECK(later.told().attribution == Attribution::only_client);
}

// The book has the incident as it was at `killed_after` signals; the lines are read again from
// `read_from` on, which is never behind what the book has.
TEST_CASE("killed at any point, no line is counted twice and none is lost") {
  const std::vector<Signal> lines{FatalFaultLogged{41}, CulpritNamed{8},    StickyClients{},
                                  StickyClients{{7}},   StickyClients{{8}}, FatalFaultLogged{41}};
  for (std::size_t killed_after = 0; killed_after <= lines.size(); ++killed_after) {
    for (std::size_t read_from = 0; read_from <= killed_after; ++read_from) {
      CAPTURE(killed_after);
      CAPTURE(read_from);
      Watched before;
      before.clients({7, 8});
      for (std::size_t i = 0; i < killed_after; ++i) {
        const auto when = static_cast<int>(i);
        before.take(before.tracker.on(lines[i], {at(when), at(when), line((i + 1) * 100)}));
      }
      Watched after;
      after.number = before.number;
      after.tracker.catching_up(true);
      if (!before.incidents.empty()) {
        after.tracker.restore(before.one());
        after.incidents = before.incidents;
        if (before.one().read_to) after.tracker.recall_line(*before.one().read_to);
      }
      after.clients({7, 8});
      for (std::size_t i = read_from; i < lines.size(); ++i) {
        after.take(
            after.tracker.on(lines[i], {at(static_cast<int>(i)), at(k_now), line((i + 1) * 100)}));
      }
      after.on(Serving{}, k_now + 100);
      CHECK(after.incidents.size() == 1);
      const auto& one = after.one();
      CHECK(one.happened == at(0));
      CHECK(one.faults == 2);
      CHECK(pids(one.culprits).back() == 8);
      CHECK(one.end == End::serving);
    }
  }
}

TEST_CASE("one fault is one incident, in whatever order it is told, over a restart at any point") {
  const std::vector<Signal> signs{FatalFaultLogged{41}, CulpritNamed{8}, StickyClients{{7, 8}},
                                  XidReported{31}, ServerStatusSeen{}};
  std::vector<std::size_t> order{0, 1, 2, 3, 4};
  do {
    for (std::size_t restart = 0; restart <= order.size(); ++restart) {
      CAPTURE(restart);
      const auto tell = [&](Watched& watched, std::size_t from, std::size_t to) {
        for (auto i = from; i < to; ++i) {
          const auto when = at(static_cast<int>(i) * 300);
          const bool is_line = order[i] < 3;
          watched.take(watched.tracker.on(
              signs[order[i]],
              {when, when, is_line ? std::optional(line((i + 1) * 100)) : std::nullopt}));
        }
      };
      Watched before;
      before.clients({7, 8});
      tell(before, 0, restart);
      Watched after;
      after.number = before.number;
      after.incidents = before.incidents;
      if (before.number != 0) after.tracker.restore(before.one());
      if (before.number != 0 && before.one().read_to) {
        after.tracker.recall_line(*before.one().read_to);
      }
      after.clients({7, 8});
      tell(after, restart, order.size());
      after.on(Serving{}, 4000);
      const auto& one = after.one();
      CHECK(after.incidents.size() == 1);
      CHECK(one.faults == 1);
      CHECK(one.rounds == 1);
      CHECK(one.end == End::serving);
      CHECK(pids(one.culprits) == Pids{8});
      CHECK(pids(one.victims) == Pids{7});
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("a line of another log is another one") {
  Watched watched;
  watched.tracker.recall_line(line(500));
  watched.take(watched.tracker.on(FatalFaultLogged{41}, {at(0), at(0), line(500)}));
  CHECK(watched.incidents.empty());
  watched.take(watched.tracker.on(FatalFaultLogged{41}, {at(0), at(0), LogPlace{"6-1.2", 100}}));
  CHECK(watched.incidents.size() == 1);
}

TEST_CASE("late words for one that an earlier supervisor has closed") {
  Watched before;
  before.clients({7, 8}).on(FatalFaultLogged{41}, 0).on(Serving{}, 100);
  Watched after;
  after.number = 1;
  after.tracker.restore_closed(before.one());
  after.clients({7, 8}).on(CulpritNamed{8}, 200);
  CHECK(after.story == "attributed f1");
  after.on(FatalFaultLogged{41}, 300);
  CHECK(after.story == "attributed f1, opened f2");
}

TEST_CASE("who is served first after it") {
  Watched watched;
  watched.clients({7}).on(FatalFaultLogged{41}, 0).on(ClientCame{client(8, 50)}, 50);
  watched.on(ClientServed{8}, 60);  // not while it is open
  watched.on(Serving{}, 100);
  watched.on(ClientServed{7}, 110);   // was there before
  watched.on(ClientServed{99}, 120);  // nobody we know
  CHECK_FALSE(watched.one().first_served);
  watched.on(ClientServed{8}, 130);
  CHECK(watched.one().first_served == FirstServed{8, at(130)});
  watched.on(ClientCame{client(9, 140)}, 140).on(ClientServed{9}, 150);
  CHECK(watched.one().first_served == FirstServed{8, at(130)});
  // It was not over after all.
  watched.on(ServerEnded{41, "was killed"}, 160);
  CHECK_FALSE(watched.incidents.at(1).first_served);
}
