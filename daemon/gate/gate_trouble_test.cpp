// Whatever goes wrong, nobody is closed who has not spoken, and nobody is lost.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "gate/gate_kit.h"

using namespace mps;
using namespace mps::gate;
using namespace mps::gate::test;

namespace {

struct Fault {
  Call call{};
  int error = 0;
};

}  // namespace

TEST_CASE("an error before the opening is complete holds the peer, and costs no more than that") {
  const std::vector<Fault> faults{
      {Call::accept, EMFILE},       {Call::accept, ENFILE}, {Call::accept, ENOMEM},
      {Call::accept, ENOBUFS},      {Call::accept, EPERM},  {Call::accept, EINTR},
      {Call::accept, ECONNABORTED}, {Call::pidfd, EMFILE},  {Call::pidfd, ENFILE},
      {Call::pidfd, ENOMEM},        {Call::pidfd, EPERM},   {Call::pidfd, ENODEV},
      {Call::add, ENOMEM},          {Call::add, ENOSPC},    {Call::send, ENOBUFS},
      {Call::send, ENOMEM},         {Call::send, EAGAIN},   {Call::receive, ENOMEM},
      {Call::receive, ENOBUFS},     {Call::receive, EINTR}, {Call::receive, EIO},
  };
  for (const auto& fault : faults) {
    CAPTURE(static_cast<int>(fault.call));
    CAPTURE(fault.error);
    Kit kit;
    kit.start();
    const bool endless = fault.error != EINTR && fault.error != ECONNABORTED;
    kit.system.fail(fault.call, fault.error, endless ? 1 << 30 : 5);
    const auto peer = kit.join();
    CHECK(is_open(peer));
    if (endless) CHECK(kit.is_idle());
    std::string greeting = heard(peer);
    const bool greeted = greeting == k_greeting;
    if (greeted) {
      for (const auto& text : k_opening) tell(peer, text);
      kit.settle();
    }
    // Whoever cannot be watched is looked at every now and then.
    const bool is_heard = greeted && (!endless || fault.call == Call::add);
    for (int i = 0; i < 3; ++i) {
      kit.advance(100ms);
      CHECK(is_open(peer));
      CHECK(kit.count(Kind::ask) == (is_heard ? 1 : 0));
      if (endless) CHECK(kit.is_idle());
    }
    kit.system.heal();
    kit.advance(100ms);
    if (!greeted) {
      CHECK(heard(peer) == k_greeting);
      for (const auto& text : k_opening) tell(peer, text);
    }
    kit.let_through(peer);
    CHECK(kit.is_idle());
  }
}

TEST_CASE("who speaks early, or leaves, while something is short makes nobody spin") {
  for (const auto& fault :
       {Fault{Call::send, ENOBUFS}, Fault{Call::receive, ENOMEM}, Fault{Call::add, ENOMEM}}) {
    CAPTURE(static_cast<int>(fault.call));
    Kit kit;
    kit.start();
    kit.system.fail(fault.call, fault.error);
    auto early = kit.join();
    auto leaves = kit.join();
    tell(early, k_opening[0]);
    tell(leaves, k_opening[0]);
    leaves.reset();
    CHECK(kit.is_idle());
    kit.system.heal();
    kit.advance(100ms);
    CHECK(kit.gate->peers() == 1);
    CHECK(heard(early) == k_greeting);
    tell(early, k_opening[1]);
    kit.let_through(early);
  }
}

TEST_CASE("who was heard while something was short is noticed when it leaves") {
  Kit kit;
  kit.start();
  const auto first = kit.join();
  const auto descriptors = open_descriptors();
  SUBCASE("before its pidfd can be had, and it was greeted where that is exact") {
    kit.system.fail(Call::pidfd, ENOMEM);
    auto leaves = kit.join();
    leaves.reset();
    kit.advance(100ms);
    CHECK(kit.gate->peers() == 1);
    CHECK(kit.is_idle());
  }
  SUBCASE("when it is asked for") {
    kit.system.fail(Call::add, ENOMEM);
    auto leaves = kit.join();
    for (const auto& text : k_opening) tell(leaves, text);
    kit.advance(100ms);
    const auto ask = kit.expect(Kind::ask);
    kit.system.heal();
    kit.advance(100ms);
    leaves.reset();
    kit.settle();
    CHECK(kit.expect(Kind::gone).peer == ask.peer);
    CHECK(kit.gate->peers() == 1);
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("who connected before the gate was there is let in as well") {
  Kit kit;
  kit.supervise();
  kit.set_up();
  kit.serve();
  kit.listeners["s"] = listening(kit.folder + "/s");
  const auto peer = connected(kit.folder + "/s");
  kit.listen();
  CHECK(heard(peer) == k_greeting);
  for (const auto& text : k_opening) tell(peer, text);
  kit.let_through(peer);
}

TEST_CASE("a peer that has left is forgotten in every state") {
  Kit kit;
  kit.supervise();
  kit.listen();
  auto parked = kit.join();
  parked.reset();
  kit.settle();
  CHECK(kit.gate->peers() == 0);
  kit.set_up();
  auto speaking = kit.join();
  tell(speaking, k_opening[0]);
  speaking.reset();
  kit.settle();
  CHECK(kit.gate->peers() == 0);
  auto queued = kit.open_up();
  kit.expect(Kind::ask);
  kit.leave();
  kit.settle();
  queued.reset();
  kit.settle();
  CHECK(kit.gate->peers() == 0);
}

TEST_CASE("nobody is left in a backlog that is closed, not even before there is a greeting") {
  Kit kit;
  kit.supervise();
  kit.listen();
  auto peer = kit.join();
  REQUIRE(kit.gate->peers() == 0);
  SUBCASE("the share has gone") {
    kit.say({.kind = Kind::unlisten, .share = "s"});
    CHECK(kit.gate->peers() == 1);
    CHECK(heard(peer) == "(none)");
    kit.set_up();
    CHECK(heard(peer) == k_greeting);
    for (const auto& text : k_opening) tell(peer, text);
    kit.settle();
    CHECK(heard(peer) == "(end)");
    CHECK(kit.is_idle());
  }
  SUBCASE("the gate ends") {
    kit.say({.kind = Kind::end});
    CHECK(kit.gate->peers() == 1);
    CHECK(heard(peer) == "(none)");
    peer.reset();
    kit.settle();
    CHECK(kit.gate->peers() == 0);
  }
}

TEST_CASE("a peer that only stops speaking is greeted all the same") {
  Kit kit;
  kit.supervise();
  kit.listen();
  const auto peer = kit.join();
  REQUIRE(::shutdown(peer.get(), SHUT_WR) == 0);
  CHECK(kit.is_idle());
  CHECK(heard(peer) == "(none)");
  kit.set_up();
  CHECK(heard(peer) == k_greeting);
  CHECK(heard(peer) == "(end)");
}

TEST_CASE("errors on the way to the daemon are told, and the peer goes on waiting") {
  const std::vector<Fault> faults{
      {Call::socket, EMFILE},  {Call::socket, ENOMEM},   {Call::connect, ECONNREFUSED},
      {Call::connect, ENOENT}, {Call::connect, EACCES},  {Call::connect, EAGAIN},
      {Call::add, ENOMEM},     {Call::receive, ENOBUFS}, {Call::send, ENOBUFS},
      {Call::send, EPERM},
  };
  for (const auto& fault : faults) {
    CAPTURE(static_cast<int>(fault.call));
    CAPTURE(fault.error);
    Kit kit;
    kit.start();
    const auto peer = kit.open_up();
    const auto id = kit.expect(Kind::ask).peer;
    kit.system.fail(fault.call, fault.error);
    kit.let_in(id);
    UniqueFd end = kit.accept();
    if (end) tell(end, k_greeting);
    if (fault.error == EAGAIN) kit.advance(100ms);
    const auto word = kit.expect(Kind::not_entered);
    CHECK(word.peer == id);
    CHECK(static_cast<int>(word.code) == (fault.error == EAGAIN ? ETIMEDOUT : fault.error));
    CHECK(heard(peer) == "(none)");
    CHECK(kit.is_idle());
    kit.system.heal();
    kit.let_in(id);
    end = kit.accept_and_greet();
    kit.expect_opening(end, ::getpid());
    CHECK(kit.expect(Kind::inside).peer == id);
  }
}

TEST_CASE("a process that is not there any more when its words are sent has gone") {
  Kit kit;
  kit.start();
  const auto peer = kit.open_up();
  const auto id = kit.expect(Kind::ask).peer;
  kit.let_in(id);
  const auto end = kit.accept();
  kit.system.fail(Call::send, ESRCH);
  tell(end, k_greeting);
  CHECK(kit.expect(Kind::gone).peer == id);
  CHECK(heard(end) == "(end)");
}
