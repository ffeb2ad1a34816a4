// Who is a suspect of a fault, and who has suffered from it, where they come, go, and come to be
// known around it.
#include <doctest/doctest.h>

#include "fault/tracker.h"
#include "fault/tracker_kit.h"

using namespace mps::fault;
using namespace mps::fault::test;

namespace {

const FatalFaultLogged k_line{41};

}  // namespace

TEST_CASE("a client of whom MPS told before the desk did is one, and not two") {
  Watched watched;
  watched.clients({8}).on(k_line, 0).on(ClientStatusSeen{7, false}, 1);
  watched.on(ClientCame{client(7)}, 2);
  CHECK(pids(watched.one().victims) == Pids{8, 7});
  CHECK(pids(watched.one().suspects) == Pids{8, 7});
  CHECK(watched.one().victims.back().start_ticks == 70);
  watched.on(CulpritNamed{7}, 3);
  CHECK(pids(watched.one().victims) == Pids{8});
  CHECK(pids(watched.one().culprits) == Pids{7});
}

TEST_CASE("what was wedged and comes to itself is over, and the next fault is another one") {
  Watched watched;
  watched.clients({7}).on(Wedged{"no answer"}, 0).on(AnswersAgain{}, 60000);
  CHECK(watched.story == "opened f1, closed f1");
  CHECK(watched.one().end == End::serving);
  watched.on(ClientWent{7, 70}, 70000).on(ClientCame{client(8, 80000)}, 80000);
  watched.on(k_line, 90000);
  CHECK(pids(watched.incidents.at(2).culprits) == Pids{8});
}

TEST_CASE("a client's fault is not over because the daemon answers again") {
  Watched watched;
  watched.clients({7}).on(k_line, 0).on(Wedged{"no answer"}, 1).on(AnswersAgain{}, 2);
  CHECK(watched.story == "opened f1, attributed f1");
}

TEST_CASE("of what has been open for long nobody is a suspect who has gone since") {
  Watched watched;
  watched.clients({7}).on(Wedged{"no answer"}, 0).on(ClientWent{7, 70}, 60000);
  watched.on(ClientCame{client(8, 70000)}, 70000).on(ClientCame{client(9, 70000)}, 70000);
  watched.on(k_line, 90000);
  CHECK(watched.one().attribution == Attribution::one_of);
  CHECK(pids(watched.one().suspects) == Pids{8, 9});
}

TEST_CASE("who had gone before the fault may have done it, and has not suffered from it") {
  Watched watched;
  watched.clients({7, 8, 9}).on(ClientWent{7, 70}, 0).on(ClientWent{8, 80}, 990);
  watched.on(k_line, 1000);
  CHECK(pids(watched.one().suspects) == Pids{9, 7, 8});
  CHECK(pids(watched.one().victims) == Pids{9, 8});
}
