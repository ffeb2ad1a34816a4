#include <doctest/doctest.h>

#include <random>
#include <set>

#include "fault/tracker.h"
#include "fault/tracker_kit.h"

using namespace mps::fault;
using namespace mps::fault::test;

namespace {

void check_bounds(const Incident& one) {
  CHECK(one.signals.size() <= k_signal_limit);
  CHECK(one.steps.size() <= k_step_limit);
  CHECK(one.victims.size() <= k_people_limit);
  CHECK(one.suspects.size() <= k_people_limit);
  CHECK(one.culprits.size() <= k_people_limit);
  CHECK(one.strangers.size() <= k_people_limit);
  CHECK(one.xids.size() <= k_xid_limit);
  CHECK(one.consequences.size() <= k_consequence_limit);
  CHECK(one.victims.size() <= one.victim_count);
  CHECK(one.suspects.size() <= one.suspect_count);
}

void check_sense(const Incident& one, const std::set<pid_t>& named) {
  CHECK((one.end == End::none) == !one.closed);
  CHECK((one.end == End::serving) == one.serving.has_value());
  CHECK(one.attributed.has_value() == !one.culprits.empty());
  CHECK(one.rounds >= 1);
  for (const auto& culprit : one.culprits) {
    const bool was_named = culprit.by == Attribution::named && named.contains(culprit.client.pid);
    CHECK((was_named || culprit.by == Attribution::only_client));
    for (const auto& victim : one.victims) CHECK_FALSE(same_process(victim, culprit.client));
  }
  if (one.attribution == Attribution::one_of) CHECK(one.suspect_count > 0);
  for (const auto& consequence : one.consequences) CHECK(consequence.kind > one.kind);
}

}  // namespace

TEST_CASE("whatever is noticed, in whatever order: incidents that make sense") {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Story story(seed);
    Watched watched;
    std::set<pid_t> named;
    std::set<std::uint64_t> closed;
    unsigned lines = 0;
    for (int i = 0; i < 400; ++i) {
      const auto signal = story.next();
      if (const auto* culprit = std::get_if<CulpritNamed>(&signal)) named.insert(culprit->pid);
      lines += std::holds_alternative<FatalFaultLogged>(signal) ? 1U : 0U;
      const auto when = story.later();
      watched.tick(when);
      watched.on(signal, when);
      CHECK(watched.tracker.clients().size() <= 2 * k_client_limit);
    }
    unsigned faults = 0;
    for (const auto& [number, one] : watched.incidents) {
      CAPTURE(number);
      check_bounds(one);
      check_sense(one, named);
      faults += one.faults;
      const bool open =
          watched.tracker.open() != nullptr && watched.tracker.open()->number == number;
      CHECK(open == !one.closed);
    }
    CHECK(watched.number == watched.incidents.size());
    // None is lost. More than lines: those of which something else told alone. An open one may have
    // had another since it was told.
    const auto* open = watched.tracker.open();
    if (open != nullptr) faults += open->faults - watched.incidents.at(open->number).faults;
    CHECK(faults >= lines);
  }
}

TEST_CASE("the only client is only ever blamed alone") {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    Story story(seed);
    Watched watched;
    const int count = 1 + story.below(4);
    for (pid_t pid = 1; pid <= count; ++pid) watched.clients({pid});
    watched.on(FatalFaultLogged{41}, story.later());
    for (int i = 0; i < 5; ++i) watched.on(ClientWent{1 + story.below(4), 0}, story.later());
    watched.on(Serving{}, story.later());
    const auto& one = watched.one();
    CHECK((one.attribution == Attribution::only_client) == (count == 1));
    CHECK(one.culprits.size() == (count == 1 ? 1U : 0U));
  }
}
