// What a request would come to. That it is what it comes to is looked at with each request of the
// other tests (ledger_test_kit.h).
#include <doctest/doctest.h>

#include "share/ledger_test_kit.h"

using namespace mps::share;

TEST_CASE("to foresee changes nothing") {
  Kit kit;
  auto first = kit.make(1);
  first.quota = Kit::clients(1);
  auto second = kit.make(2);
  second.quota = Kit::clients(1);
  CHECK(kit.ledger.foresee(first, kit.now) == Prospect{});
  CHECK(kit.ledger.foresee(second, kit.now) == Prospect{});
  CHECK(kit.ledger.slot_count() == 0);
  CHECK(kit.changes.empty());
  kit.ask(first);
  const auto waits = kit.ledger.foresee(second, kit.now);
  CHECK(Kit::to_line(waits) == "waits quota_clients: team-a has 1 of 1 clients on gpu0");
  CHECK(kit.ledger.waiting_count() == 0);
  CHECK(kit.ledger.foresee(first, kit.now) == Prospect{});
  second.may_wait = false;
  CHECK(Kit::to_line(kit.ledger.foresee(second, kit.now)) ==
        "refused quota_clients: team-a has 1 of 1 clients on gpu0");
  second.instance = "gpu9.shared";
  CHECK(Kit::to_line(kit.ledger.foresee(second, kit.now)) ==
        "refused not_ready: gpu9.shared is not ready: it is unknown");
}

TEST_CASE("the door of an instance") {
  Kit kit;
  CHECK(std::holds_alternative<Serving>(kit.ledger.door_of("gpu0.shared").value()));
  CHECK_FALSE(kit.ledger.door_of("gpu1.shared"));
}
