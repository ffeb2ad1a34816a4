// What is relayed for those who are inside.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "gate/gate_kit.h"

using namespace mps;
using namespace mps::gate;
using namespace mps::gate::test;

namespace {

std::string numbered(int number, std::size_t size) {
  auto text = std::to_string(number) + ":";
  text.resize(size, 'x');
  return text;
}

// Until it has no room. How many were said.
int fill(Kit& kit, const UniqueFd& from, std::size_t size) {
  int said = 0;
  for (; said < 1000 && tell(from, numbered(said, size)); ++said) kit.settle();
  REQUIRE(said > 2);
  REQUIRE(said < 1000);
  return said;
}

}  // namespace

TEST_CASE("messages go both ways, each as it is") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  for (const std::size_t size : {1U, 9U, 4096U, 102400U, 200000U}) {
    tell(inside.peer, numbered(1, size));
    tell(inside.peer, "next");
    tell(inside.daemon, numbered(2, size));
    kit.settle();
    CHECK((heard(inside.daemon) == numbered(1, size)));
    kit.settle();
    CHECK(heard(inside.daemon) == "next");
    CHECK((heard(inside.peer) == numbered(2, size)));
  }
  CHECK(heard(inside.peer) == "(none)");
  CHECK(kit.is_idle());
}

TEST_CASE("an empty message is one, and no end") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  tell(inside.peer, "");
  tell(inside.peer, "after");
  tell(inside.daemon, "");
  tell(inside.daemon, "after");
  kit.settle();
  CHECK(heard(inside.daemon) == "(end)");  // as the empty message reads without credentials
  CHECK(heard(inside.daemon) == "after");
  CHECK(heard(inside.peer) == "(end)");
  CHECK(heard(inside.peer) == "after");
}

TEST_CASE("descriptors go with their message, and none is kept") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  for (const bool to_daemon : {true, false}) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    const UniqueFd out(ends[0]);
    UniqueFd in(ends[1]);
    tell(to_daemon ? inside.peer : inside.daemon, "take", {in.get(), in.get()});
    in.reset();
    kit.settle();
    System plain;
    Received received;
    std::array<char, 16> buffer{};
    REQUIRE(plain.receive((to_daemon ? inside.daemon : inside.peer).get(), buffer, received) == 4);
    REQUIRE(received.descriptor_count == 2);
    CHECK(::write(received.descriptors[0], "!", 1) == 1);
    received.clear();
    char byte = 0;
    CHECK(::read(out.get(), &byte, 1) == 1);
    CHECK(::read(out.get(), &byte, 1) == 0);
  }
}

TEST_CASE("an end that does not read loses nothing, and does not make the gate spin") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  for (const bool to_daemon : {true, false}) {
    const auto& from = to_daemon ? inside.peer : inside.daemon;
    const auto& to = to_daemon ? inside.daemon : inside.peer;
    const int said = fill(kit, from, 102400);
    CHECK(kit.is_idle());
    tell(to, "the other way");
    kit.settle();
    CHECK(heard(from) == "the other way");
    for (int i = 0; i < said; ++i) {
      CHECK((heard(to) == numbered(i, 102400)));
      kit.settle();
    }
    CHECK(heard(to) == "(none)");
  }
}

TEST_CASE("who leaves while the other end is full is heard to its end") {
  for (const bool to_daemon : {true, false}) {
    for (const bool both : {true, false}) {
      CAPTURE(to_daemon);
      CAPTURE(both);
      Kit kit;
      kit.start();
      auto inside = kit.enter();
      auto& from = to_daemon ? inside.peer : inside.daemon;
      auto& to = to_daemon ? inside.daemon : inside.peer;
      const int said = fill(kit, from, 50000);
      if (both) fill(kit, to, 50000);
      from.reset();
      CHECK(kit.is_idle());
      CHECK(kit.count(Kind::left) == 0);
      int got = 0;
      auto text = heard(to);
      if (text == "(reset)") text = heard(to);
      for (; text != "(end)" && got < 2 * said; ++got) {
        CHECK((text == numbered(got, 50000)));
        kit.settle();
        text = heard(to);
        if (text == "(reset)") text = heard(to);
      }
      CHECK(got == said);
      CHECK(kit.expect(Kind::left).peer == inside.id);
      CHECK(kit.gate->peers() == 0);
    }
  }
}

TEST_CASE("the last words of an end that left with something unread are passed on") {
  Kit kit;
  kit.start();
  auto inside = kit.enter();
  SUBCASE("of the program") {
    tell(inside.daemon, "unread");
    kit.settle();
    tell(inside.peer, "last");
    inside.peer.reset();
    kit.settle();
    CHECK(heard(inside.daemon) == "last");
    CHECK(heard(inside.daemon) == "(end)");
  }
  SUBCASE("of the program, while the daemon speaks") {
    tell(inside.peer, "last");
    inside.peer.reset();
    tell(inside.daemon, "into the void");
    kit.settle();
    CHECK(heard(inside.daemon) == "(reset)");  // as without a gate: that was not read
    CHECK(heard(inside.daemon) == "last");
    CHECK(heard(inside.daemon) == "(end)");
  }
  SUBCASE("of the daemon") {
    tell(inside.peer, "unread");
    kit.settle();
    tell(inside.daemon, "last");
    inside.daemon.reset();
    kit.settle();
    CHECK(heard(inside.peer) == "last");
    CHECK(heard(inside.peer) == "(end)");
  }
  CHECK(kit.expect(Kind::left).peer == inside.id);
}

TEST_CASE("another process that speaks on an admitted socket ends it") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  tell_from_child(inside.peer, {"hello"});
  kit.settle();
  CHECK(heard(inside.daemon) == "(end)");
  CHECK(kit.expect(Kind::left).peer == inside.id);
}

TEST_CASE("a shortage loses no message of who is inside") {
  for (const auto call : {Call::peek, Call::send}) {
    for (const int error : {ENOMEM, ENOBUFS, EAGAIN, EINTR}) {
      CAPTURE(static_cast<int>(call));
      CAPTURE(error);
      Kit kit;
      kit.start();
      const auto inside = kit.enter();
      kit.system.fail(call, error, 3);
      for (int i = 0; i < 5; ++i) {
        tell(inside.peer, numbered(i, 9));
        tell(inside.daemon, numbered(i, 9));
      }
      for (int i = 0; i < 8; ++i) kit.advance(100ms);
      for (int i = 0; i < 5; ++i) {
        CHECK(heard(inside.daemon) == numbered(i, 9));
        CHECK(heard(inside.peer) == numbered(i, 9));
      }
      if (error == EAGAIN || error == EINTR) continue;
      kit.system.fail(call, error);
      tell(inside.peer, "held");
      CHECK(kit.is_idle());
      kit.system.heal();
      kit.advance(100ms);
      CHECK(heard(inside.daemon) == "held");
    }
  }
}

TEST_CASE("an error that no patience helps against ends the one it is about") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  const auto other = kit.enter();
  kit.system.fail(Call::send, EINVAL, 1);
  tell(inside.peer, "lost");
  kit.settle();
  CHECK(heard(inside.peer) == "(end)");
  CHECK(kit.expect(Kind::left).peer == inside.id);
  tell(other.peer, "goes on");
  kit.settle();
  CHECK(heard(other.daemon) == "goes on");
}
