#include "admission/crowd.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace mps::admission;
using Place = Crowd::Place;

namespace {

void fill(Crowd& crowd, const std::string& container, uid_t uid, ConnectionId first,
          std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) crowd.join(first + i, container, uid);
}

std::vector<ConnectionId> sorted(std::vector<ConnectionId> ids) {
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

TEST_CASE("a container's bound is its own affair") {
  Crowd crowd({.connections = 10, .of_container = 3, .of_uid = 10});
  fill(crowd, "a", 0, 1, 3);
  const auto full = crowd.look("a", 1);
  CHECK(full.place == Place::of_own);
  CHECK(sorted(full.candidates) == std::vector<ConnectionId>{1, 2, 3});
  CHECK(crowd.look("b", 0).place == Place::free);
  crowd.leave(2);
  CHECK(crowd.look("a", 0).place == Place::free);
}

TEST_CASE("when all are too many, the largest gives a place to a smaller one") {
  Crowd crowd({.connections = 6, .of_container = 4, .of_uid = 100});
  fill(crowd, "a", 0, 1, 4);
  fill(crowd, "b", 0, 11, 2);
  const auto first = crowd.look("c", 0);
  CHECK(first.place == Place::of_others);
  CHECK(sorted(first.candidates) == std::vector<ConnectionId>{1, 2, 3, 4});
  crowd.leave(1);
  crowd.join(21, "c", 0);
  // Among equals, who is there stays: b would have three then, as a has.
  CHECK(crowd.look("b", 0).place == Place::none);
  CHECK(crowd.look("c", 0).place == Place::of_others);
}

TEST_CASE("a uid's bound takes from that uid alone") {
  Crowd crowd({.connections = 100, .of_container = 50, .of_uid = 4});
  fill(crowd, "a", 1000, 1, 3);
  fill(crowd, "a", 0, 11, 4);
  fill(crowd, "b", 1000, 21, 1);
  CHECK(crowd.look("c", 1001).place == Place::free);
  const auto found = crowd.look("c", 1000);
  CHECK(found.place == Place::of_others);
  CHECK(sorted(found.candidates) == std::vector<ConnectionId>{1, 2, 3});
  CHECK(crowd.look("a", 1000).place == Place::none);
}

TEST_CASE("a thousand connections of one container against one of another: turns") {
  Crowd crowd({});
  fill(crowd, "a", 0, 1, 200);
  fill(crowd, "b", 0, 1001, 2);
  for (ConnectionId id = 1; id <= 200; ++id) crowd.ready(id);
  crowd.ready(1001);
  crowd.ready(1002);
  crowd.ready(1002);
  CHECK(crowd.next() == 1U);
  CHECK(crowd.next() == 1001U);
  CHECK(crowd.next() == 2U);
  CHECK(crowd.next() == 1002U);
  CHECK(crowd.next() == 3U);
  crowd.leave(4);
  CHECK(crowd.next() == 5U);
  for (ConnectionId id = 1; id <= 200; ++id) crowd.leave(id);
  CHECK(!crowd.anybody_ready());
  CHECK(!crowd.next());
  crowd.leave(77);  // nobody
  crowd.ready(77);
  CHECK(!crowd.anybody_ready());
  crowd.leave(1001);
  crowd.leave(1002);
  CHECK(crowd.size() == 0);
}

TEST_CASE("what connections are counted by") {
  CHECK(container_key("0::/kubepods/pod1/c1\n") == "0::/kubepods/pod1/c1\n");
  CHECK(container_key("0::/kubepods/pod1/c1") == "0::/kubepods/pod1/c1\n");
  CHECK(container_key("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n") ==
        "0::/user.slice/user-1000.slice\n");
  CHECK(container_key("1:name=systemd:/user.slice/user-7.slice/session-2.scope\n0::/x\n") ==
        "1:name=systemd:/user.slice/user-7.slice\n0::/x\n");
  CHECK(container_key("0::/mine/user.slice/user-7.slice/x\n") ==
        "0::/mine/user.slice/user-7.slice/x\n");
  CHECK(container_key("").empty());
}
