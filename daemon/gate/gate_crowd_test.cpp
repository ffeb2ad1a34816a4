// Many at a time: bounds, fairness, and peers that cost patience.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptors_kit.h"
#include "gate/gate_kit.h"

using namespace mps;
using namespace mps::gate;
using namespace mps::gate::test;

namespace {

// As many as there are descriptors for: three for each, two of them the gate's.
std::size_t crowd(std::size_t wanted) {
  return std::min<std::size_t>(wanted, (mps::test::raise_descriptor_limit() - 200) / 8);
}

std::vector<UniqueFd> join_many(Kit& kit, std::size_t count) {
  std::vector<UniqueFd> peers;
  while (peers.size() < count) {
    auto peer = connected(kit.folder + "/s");
    if (peer) {
      peers.push_back(std::move(peer));
    } else {
      kit.settle();  // the backlog is full
    }
  }
  kit.settle();
  return peers;
}

void open_many(Kit& kit, const std::vector<UniqueFd>& peers) {
  for (const auto& peer : peers) {
    REQUIRE(heard(peer) == k_greeting);
    for (const auto& text : k_opening) tell(peer, text);
  }
  kit.settle();
}

}  // namespace

TEST_CASE("two thousand silent peers and as many that are half open are in nobody's way") {
  const auto count = crowd(2000);
  Kit kit;
  kit.start();
  auto silent = join_many(kit, count);
  auto half = join_many(kit, count);
  for (const auto& peer : half) {
    REQUIRE(heard(peer) == k_greeting);
    REQUIRE(tell(peer, k_opening[0]));
  }
  kit.settle();
  CHECK(kit.gate->peers() == 2 * count);
  CHECK(kit.is_idle());
  kit.system.cgroup = "0::/b\n";
  std::vector<Inside> inside;
  inside.reserve(20);
  for (int i = 0; i < 20; ++i) inside.push_back(kit.enter());
  for (const auto& one : inside) {
    tell(one.peer, "goes on");
    kit.settle();
    CHECK(heard(one.daemon) == "goes on");
  }
  CHECK(std::all_of(silent.begin(), silent.end(), is_open));
  CHECK(std::all_of(half.begin(), half.end(), is_open));
  CHECK(kit.count(Kind::refused) == 0);
  silent.clear();
  half.clear();
  kit.settle();
  CHECK(kit.gate->peers() == inside.size());
}

TEST_CASE("one container's thousand wait behind its own bound, and delay nobody else") {
  Kit kit;
  kit.start();
  const auto many = join_many(kit, crowd(1000));
  open_many(kit, many);
  CHECK(kit.count(Kind::ask) == 64);  // of one container, without a verdict
  kit.words.clear();
  kit.system.cgroup = "0::/b\n";
  const auto other = kit.open_up();
  const auto ask = kit.expect(Kind::ask);
  CHECK(kit.count(Kind::ask) == 0);
  kit.let_in(ask.peer);
  const auto end = kit.accept_and_greet();
  CHECK(kit.expect(Kind::inside).peer == ask.peer);
}

TEST_CASE("containers take turns") {
  Bounds bounds;
  bounds.asked_of_container = 1000;
  Kit kit(bounds);
  kit.start();
  kit.leave();
  kit.settle();
  std::vector<UniqueFd> peers;
  std::vector<std::uint64_t> order;
  for (const auto& [cgroup, count] :
       {std::pair{"0::/a\n", 100}, std::pair{"0::/b\n", 2}, std::pair{"0::/c\n", 1}}) {
    kit.system.cgroup = cgroup;
    for (int i = 0; i < count; ++i) peers.push_back(kit.open_up());
  }
  kit.supervise();
  std::vector<std::uint64_t> ids;
  while (const auto ask = kit.find(Kind::ask)) ids.push_back(ask->peer & 0xffffffffU);
  REQUIRE(ids.size() == 103);
  // Slots are given in the order of arrival: 100 and 101 are of b, 102 is of c.
  const auto place = [&ids](std::uint64_t slot) {
    return std::find(ids.begin(), ids.end(), slot) - ids.begin();
  };
  CHECK(place(100) == 1);
  CHECK(place(102) == 2);
  CHECK(place(101) == 4);
}

TEST_CASE("whoever is asked for and leaves, or has a verdict, makes room for the next of its own") {
  Bounds bounds;
  bounds.asked_of_container = 2;
  Kit kit(bounds);
  kit.start();
  std::vector<UniqueFd> peers;
  peers.reserve(6);
  for (int i = 0; i < 6; ++i) peers.push_back(kit.open_up());
  CHECK(kit.count(Kind::ask) == 2);
  kit.say({.kind = Kind::refuse, .peer = kit.expect(Kind::ask).peer});
  CHECK(kit.count(Kind::ask) == 2);
  peers[1].reset();
  CHECK(kit.expect(Kind::gone).peer == kit.expect(Kind::ask).peer);
  CHECK(kit.count(Kind::ask) == 2);
  kit.let_in(kit.expect(Kind::ask).peer);
  CHECK(kit.count(Kind::ask) == 2);
}

TEST_CASE("more of a container than may be greeted wait ungreeted, and get their turn") {
  Bounds bounds;
  bounds.greeted_of_container = 2;
  Kit kit(bounds);
  kit.start();
  std::vector<UniqueFd> peers = join_many(kit, 6);
  CHECK(heard(peers[0]) == k_greeting);
  CHECK(heard(peers[1]) == k_greeting);
  CHECK(heard(peers[2]) == "(none)");
  CHECK(kit.is_idle());
  kit.system.cgroup = "0::/b\n";
  CHECK(heard(kit.join()) == k_greeting);
  for (const auto& text : k_opening) tell(peers[0], text);  // is queued, and counts no more
  kit.settle();
  CHECK(heard(peers[2]) == k_greeting);
  peers[1].reset();
  kit.settle();
  CHECK(heard(peers[3]) == k_greeting);
  CHECK(heard(peers[4]) == "(none)");
  tell(peers[3], "hello");  // is refused
  kit.settle();
  CHECK(heard(peers[3]) == "(end)");
  CHECK(heard(peers[4]) == k_greeting);
  CHECK(kit.is_idle());
}

TEST_CASE("more peers than there is room for wait in the backlog") {
  Bounds bounds;
  bounds.peers = 3;
  Kit kit(bounds);
  kit.start();
  auto peers = join_many(kit, 5);
  CHECK(kit.gate->peers() == 3);
  CHECK(heard(peers[2]) == k_greeting);
  CHECK(heard(peers[3]) == "(none)");
  CHECK(is_open(peers[4]));
  CHECK(kit.is_idle());
  peers[0].reset();
  peers[1].reset();
  kit.advance(100ms);
  CHECK(heard(peers[3]) == k_greeting);
  CHECK(heard(peers[4]) == k_greeting);
  CHECK(kit.is_idle());
}

TEST_CASE("more containers than are known apart share one line") {
  Bounds bounds;
  bounds.containers = 1;
  bounds.asked_of_container = 1;
  Kit kit(bounds);
  kit.start();
  const auto known = kit.open_up();
  kit.expect(Kind::ask);
  std::vector<UniqueFd> others;
  for (const auto* cgroup : {"0::/b\n", "0::/c\n"}) {
    kit.system.cgroup = cgroup;
    others.push_back(kit.open_up());
  }
  const auto ask = kit.expect(Kind::ask);
  CHECK_FALSE(kit.find(Kind::ask));
  kit.say({.kind = Kind::refuse, .peer = ask.peer});
  kit.expect(Kind::ask);
}

TEST_CASE("an event of who left is none of who has its slot now") {
  Kit kit;
  kit.start();
  auto first = kit.join();
  CHECK(heard(first) == k_greeting);
  auto inside = kit.enter();
  // In one turn: what the first said and its end, and another connection.
  for (int i = 0; i < 50; ++i) {
    tell(first, "hello");
    auto next = connected(kit.folder + "/s");
    inside.peer.reset();
    auto more = connected(kit.folder + "/s");
    kit.settle();
    CHECK(heard(first) == "(end)");
    CHECK(heard(next) == k_greeting);
    CHECK(heard(more) == k_greeting);
    CHECK(is_open(next));
    first = std::move(next);
    more.reset();
    inside = kit.enter();
  }
  CHECK(kit.gate->peers() == 2);
}

TEST_CASE("a supervisor with a long list to hear is told all of it") {
  Kit kit;
  kit.start();
  std::vector<Inside> inside;
  inside.reserve(300);
  for (int i = 0; i < 300; ++i) inside.push_back(kit.enter());
  const auto many = join_many(kit, crowd(500));
  open_many(kit, many);
  kit.supervise();
  CHECK(kit.count(Kind::is_inside) == 300);
  CHECK(kit.count(Kind::listed) == 1);
  CHECK(kit.count(Kind::ask) == 64);
  // Nothing else is said before the list is complete.
  const auto listed = std::find_if(kit.words.begin(), kit.words.end(),
                                   [](const auto& word) { return word.kind == Kind::listed; });
  CHECK(std::none_of(kit.words.begin(), listed,
                     [](const auto& word) { return word.kind == Kind::ask; }));
}

TEST_CASE("many that the daemon does not take are all told of") {
  Kit kit;
  kit.start();
  kit.daemon.reset();
  std::vector<UniqueFd> peers;
  std::vector<std::uint64_t> ids;
  for (int i = 0; i < 200; ++i) {
    kit.system.cgroup = "0::/" + std::to_string(i) + "\n";
    peers.push_back(kit.open_up());
    ids.push_back(kit.expect(Kind::ask).peer);
  }
  kit.say({.kind = Kind::no_daemon});
  for (const auto id : ids) kit.let_in(id);
  kit.daemon = listening(kit.folder + "/elsewhere");
  kit.serve();
  CHECK(kit.count(Kind::not_entered) == 200);
  CHECK(std::all_of(peers.begin(), peers.end(), is_open));
  CHECK(kit.is_idle());
}

TEST_CASE("refusals are counted together when they come fast") {
  Kit kit;
  kit.start();
  const auto refuse = [&kit](int count) {
    for (int i = 0; i < count; ++i) {
      const auto peer = kit.join();
      tell(peer, "hello");
      kit.settle();
    }
  };
  refuse(1);
  kit.expect(Kind::refused);
  refuse(500);
  CHECK(kit.count(Kind::refused) == 0);
  kit.expect_refusal(Refusal::unknown_opening, 500);
  CHECK(kit.is_idle());
  kit.leave();
  kit.settle();
  refuse(7);
  kit.supervise();
  kit.expect_refusal(Refusal::unknown_opening, 7);
}
