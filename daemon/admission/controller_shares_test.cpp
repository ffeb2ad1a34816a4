#include "admission/controller_kit.h"

using namespace mps;
using namespace mps::admission;
using namespace mps::admission::test;

namespace {

ShareWish wish(const std::string& subject = "") {
  return {"gpu0.shared", subject, {50, 4096}, {}};
}

}  // namespace

TEST_CASE("a share gives its own limits, past the policy's quota") {
  Kit kit;
  kit.door(share::Serving{});
  const auto made = kit.desk->make_share(wish());
  CHECK(made.id == "s1");
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first, true, "s1");
  kit.until_told(0, "in");
  kit.ask(second, true, "s1");
  kit.until_told(1, "in");
  const auto slots = kit.desk->ledger().slots(10);
  REQUIRE(slots.size() == 2);
  CHECK(slots[0].slot.grant == share::Grant{50, 4096});
  CHECK(kit.desk->ledger().slots_of_share("gpu0.shared/s1").size() == 2);
  REQUIRE_FALSE(kit.said.empty());
  CHECK(kit.said[0] ==
        "share_created gpu0.shared: share s1 of gpu0.shared: 50 % of the SMs, 4Gi for each client, "
        "for whoever has it mounted");
}

TEST_CASE("a share is for one namespace, and a share that is not there for nobody") {
  Kit kit;
  kit.door(share::Serving{});
  kit.desk->make_share(wish("team-a"));
  Program program;
  kit.put(program, "a.service");
  kit.ask(program, true, "s1");
  kit.until_told(0, "refused wrong_pod");
  kit.ask(program, true, "s2");
  kit.until_told(1, "refused share_deleted");
}

TEST_CASE("a share that closes lets nobody in, and ends with its last client") {
  Kit kit;
  kit.door(share::Serving{});
  int changes = 0;
  kit.desk->on_share_change([&changes] { ++changes; });
  kit.desk->make_share(wish());
  Program first, second, waiting;
  for (const auto* program : {&first, &second, &waiting}) kit.put(*program, "a.service");
  kit.ask(first, true, "s1");
  kit.until_told(0, "in");
  kit.door(share::NotReady{"starting"});
  kit.ask(waiting, true, "s1");
  kit.until_told(1, "waits not_ready");
  kit.desk->close_share(1);
  kit.until([&] { return kit.answers[1] == "refused share_deleted"; });
  kit.door(share::Serving{});
  kit.ask(second, true, "s1");
  kit.until_told(2, "refused share_deleted");
  kit.ask(first, true, "s1");  // another connection of who has a slot
  kit.until_told(3, "in");
  CHECK(kit.desk->shares().at(1).closing);
  CHECK(std::count(kit.said.begin(), kit.said.end(),
                   "share_closed gpu0.shared: share s1: nobody comes in any more, and 1 client "
                   "goes on until it ends") == 1);
  kit.desk->close_share(1);  // once is enough
  first.end();
  kit.until([&] { return kit.desk->shares().empty(); });
  CHECK(kit.said.back() == "share_deleted gpu0.shared: share s1 has ended");
  CHECK(kit.desk->make_share(wish()).id == "s2");
  kit.until([&] { return changes >= 3; });
}

TEST_CASE("a share without clients ends at once") {
  Kit kit;
  kit.door(share::Serving{});
  kit.desk->make_share(wish());
  kit.desk->close_share(1);
  CHECK(kit.desk->shares().empty());
  kit.desk->close_share(1);
  kit.desk->close_share(99);
}

TEST_CASE("shares are there again after a restart, and no id is used twice") {
  Kit kit;
  kit.door(share::Serving{});
  kit.desk->make_share(wish());
  kit.desk->make_share(wish("unit:a.service"));
  Program program;
  kit.put(program, "a.service");
  kit.ask(program, true, "s2");
  kit.until_told(0, "in");
  kit.desk->close_share(2);
  kit.desk->close();
  program.end();
  kit.open();
  kit.door(share::Serving{});
  kit.until([&] { return !kit.desk->shares().contains(2); });
  CHECK(kit.desk->shares().contains(1));
  CHECK(kit.desk->make_share(wish()).id == "s3");
}

TEST_CASE("a share whose time is over closes, also after a restart") {
  Kit kit;
  kit.door(share::Serving{});
  auto brief = wish();
  brief.ttl = 1ms;
  kit.desk->make_share(brief);
  kit.until([&] { return kit.desk->shares().empty(); });
  CHECK(std::count(kit.said.begin(), kit.said.end(),
                   "share_expired gpu0.shared: share s1: its time is over") == 1);
  brief.ttl = 1h;
  kit.desk->make_share(brief);
  kit.reopen();
  CHECK(kit.desk->shares().at(2).expires_at == kit.desk->shares().at(2).made_at + 3'600'000);
}
