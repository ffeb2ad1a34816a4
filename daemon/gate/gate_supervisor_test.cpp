// Supervisors that die, are silent or talk nonsense, and listeners that come and go.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "gate/gate_kit.h"

using namespace mps;
using namespace mps::gate;
using namespace mps::gate::test;

TEST_CASE("a supervisor that dies in any step loses nobody") {
  Kit kit;
  kit.start();
  UniqueFd peer;
  UniqueFd end;
  SUBCASE("before the opening") {
    peer = kit.join();
    kit.leave();
    kit.settle();
    CHECK(heard(peer) == k_greeting);
    for (const auto& text : k_opening) tell(peer, text);
  }
  SUBCASE("before it was asked") {
    kit.leave();
    kit.settle();
    peer = kit.open_up();
  }
  SUBCASE("when it was asked") {
    peer = kit.open_up();
    kit.expect(Kind::ask);
    kit.leave();
  }
  SUBCASE("when it let it in and there was no daemon") {
    peer = kit.open_up();
    kit.say({.kind = Kind::no_daemon});
    kit.let_in(kit.expect(Kind::ask).peer);
    kit.leave();
    kit.settle();
    kit.supervise();
    kit.serve();
  }
  SUBCASE("when it let it in and the daemon was silent") {
    peer = kit.open_up();
    kit.let_in(kit.expect(Kind::ask).peer);
    end = kit.accept();
    kit.leave();
    kit.settle();
    CHECK(heard(end) == "(end)");
  }
  SUBCASE("when the daemon did not take it") {
    peer = kit.open_up();
    kit.let_in(kit.expect(Kind::ask).peer);
    end = kit.accept();
    kit.advance(100ms);
    kit.expect(Kind::not_entered);
    kit.leave();
  }
  SUBCASE("another one comes while it lives") {
    peer = kit.open_up();
    kit.expect(Kind::ask);
    kit.supervise();
  }
  CHECK(kit.is_idle());
  CHECK(is_open(peer));
  kit.let_through(peer);
  CHECK(kit.count(Kind::ask) == 0);
}

TEST_CASE("a new supervisor is told of the listeners and of who is inside") {
  Kit kit;
  kit.start();
  kit.listen("other");
  const auto first = kit.enter();
  const auto second = kit.enter("other");
  const auto waits = kit.open_up();
  kit.leave();
  kit.listeners.clear();
  kit.settle();
  kit.supervise();
  CHECK(kit.expect(Kind::welcome).code == k_protocol);
  for (const auto* share : {"s", "other"}) {
    auto listening = kit.expect(Kind::listening);
    CHECK(listening.share == share);
    int value = 0;
    socklen_t size = sizeof(value);
    CHECK(::getsockopt(listening.beside.get(), SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0);
    CHECK(value == 1);
    kit.listeners[share] = std::move(listening.beside);
  }
  for (const auto* inside : {&first, &second}) {
    const auto word = kit.expect(Kind::is_inside);
    CHECK(word.peer == inside->id);
    CHECK(word.share == (inside == &first ? "s" : "other"));
    CHECK(word.pid == ::getpid());
    CHECK(word.uid == ::getuid());
    CHECK(word.beside);
  }
  const auto ask = kit.expect(Kind::ask);
  CHECK(kit.words.size() == 1);
  CHECK(kit.words.front().kind == Kind::listed);
  // Given back, ours stay, and go on.
  kit.listen("s");
  kit.listen("other");
  kit.let_in(ask.peer);
  const auto end = kit.accept_and_greet();
  CHECK(kit.expect(Kind::inside).peer == ask.peer);
  const auto more = kit.enter("other");
  tell(first.peer, "still here");
  kit.settle();
  CHECK(heard(first.daemon) == "still here");
}

TEST_CASE("a supervisor that does not read is let go, and nobody is lost by it") {
  Bounds bounds;
  bounds.reports = 4;
  Kit kit(bounds);
  kit.start();
  // Not read from here on: only the gate takes turns.
  std::vector<UniqueFd> peers;
  const auto turns = [&kit] {
    for (int i = 0; i < 20; ++i) kit.gate->turn(0ms);
  };
  bool let_go = false;
  kit.system.fail(Call::connect, ECONNREFUSED);
  kit.settle();
  const auto peer = kit.open_up();
  const auto id = kit.expect(Kind::ask).peer;
  Buffer buffer;
  const auto verdict = encode({.kind = Kind::let_in, .peer = id}, buffer);
  const std::string text(verdict.begin(), verdict.end());
  for (int i = 0; i < 20000 && !let_go; ++i) {
    let_go = !tell(kit.supervisor(), text);
    turns();
  }
  CHECK(let_go);
  CHECK(is_open(peer));
  CHECK(kit.is_idle());
  kit.system.heal();
  kit.leave();
  kit.settle();
  kit.supervise();
  kit.let_through(peer);
}

TEST_CASE("reports wait for a supervisor that has no room, in order") {
  Kit kit;
  kit.start();
  const auto peer = kit.open_up();
  const auto id = kit.expect(Kind::ask).peer;
  for (const int error : {ENOBUFS, ETOOMANYREFS, EPIPE}) {
    kit.system.supervisor_error = error;
    kit.system.ended = false;
    kit.say({.kind = Kind::no_daemon});
    const auto other = kit.open_up();
    CHECK(kit.count(Kind::ask) == 0);
    CHECK(kit.is_idle());
    kit.system.supervisor_error = 0;
    kit.advance(100ms);
    kit.say({.kind = Kind::refuse, .peer = kit.expect(Kind::ask).peer});
    CHECK(heard(other) == "(end)");
  }
  kit.serve();
  kit.let_in(id);
  const auto end = kit.accept_and_greet();
  CHECK(kit.expect(Kind::inside).peer == id);
}

TEST_CASE("what a supervisor says that can't be understood ends it, and nobody else") {
  const std::string long_text(k_message_limit + 1, 'x');
  for (const auto& garbage : {std::string("x"), long_text, std::string(40, '\0'), std::string()}) {
    Kit kit;
    kit.start();
    const auto peer = kit.open_up();
    kit.say_bytes(garbage);
    CHECK_FALSE(kit.is_supervised());
    kit.let_through(peer);
  }
  for (const auto kind : {Kind::daemon, Kind::listen, Kind::setup, Kind::welcome, Kind::ask}) {
    Kit kit;
    kit.start();
    const auto peer = kit.open_up();
    kit.say({.kind = kind, .share = "x", .bytes = "\1"});
    CHECK_FALSE(kit.is_supervised());
    kit.let_through(peer);
  }
  Kit kit;
  kit.start();
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  kit.say({.kind = Kind::listen, .share = "file"}, file.get());
  CHECK_FALSE(kit.is_supervised());
}

TEST_CASE("verdicts about nobody, or twice, change nothing") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  const auto silent = kit.join();
  for (const std::uint64_t id : {std::uint64_t{0}, inside.id, inside.id + 1, ~std::uint64_t{0},
                                 (std::uint64_t{2} << 32U) | 1U}) {
    kit.let_in(id);
    kit.say({.kind = Kind::refuse, .peer = id});
  }
  CHECK(kit.is_supervised());
  CHECK(is_open(silent));
  tell(inside.peer, "still here");
  kit.settle();
  CHECK(heard(inside.daemon) == "still here");
}

TEST_CASE("what a supervisor said before it left is heard") {
  Kit kit;
  kit.start();
  const auto peer = kit.open_up();
  Buffer buffer;
  const auto bytes = encode({.kind = Kind::refuse, .peer = kit.expect(Kind::ask).peer}, buffer);
  const auto second = connected(kit.folder + "/s");  // it will be told of, and does not read it
  kit.gate->turn(0ms);
  for (const auto& text : k_opening) tell(second, text);
  kit.gate->turn(0ms);
  tell(kit.supervisor(), {bytes.data(), bytes.size()});
  kit.leave();
  kit.settle();
  CHECK(heard(peer) == "(end)");
  CHECK(is_open(second));
}

TEST_CASE("another greeting or another opening: who spoke for the old one is refused") {
  for (const bool greeting : {true, false}) {
    Kit kit;
    kit.start();
    const auto silent = kit.join();
    const auto half = kit.join();
    CHECK(heard(half) == k_greeting);
    tell(half, k_opening[0]);
    const auto asked = kit.open_up();
    const auto id = kit.expect(Kind::ask).peer;
    const auto inside = kit.enter();
    const auto packed =
        greeting ? pack({"new", k_opening[0], k_opening[1]}) : pack({k_greeting, k_opening[0]});
    kit.say({.kind = Kind::setup, .bytes = packed});
    CHECK(heard(asked) == "(end)");
    CHECK(kit.expect(Kind::gone).peer == id);
    CHECK(is_open(silent));
    CHECK(is_open(half));
    tell(half, k_opening[1]);
    kit.settle();
    CHECK(heard(half) == "(end)");
    CHECK(is_open(inside.peer));
    CHECK(heard(kit.join()) == (greeting ? "new" : k_greeting));
  }
}

// ---- listeners ----

TEST_CASE("a share that is not listened for any more refuses who waits there") {
  Kit kit;
  kit.start();
  kit.listen("other");
  const auto silent = kit.join();
  const auto asked = kit.open_up();
  const auto id = kit.expect(Kind::ask).peer;
  const auto inside = kit.enter();
  const auto elsewhere = kit.open_up("other");
  kit.say({.kind = Kind::unlisten, .share = "s"});
  CHECK(heard(asked) == "(end)");
  CHECK(kit.expect(Kind::gone).peer == id);
  CHECK(heard(silent) == k_greeting);
  CHECK(is_open(silent));
  for (const auto& text : k_opening) tell(silent, text);
  kit.settle();
  CHECK(heard(silent) == "(end)");
  CHECK(is_open(elsewhere));
  tell(inside.peer, "still here");
  kit.settle();
  CHECK(heard(inside.daemon) == "still here");
  // The supervisor has the same socket: what connects there is none of the gate's business.
  const auto late = connected(kit.folder + "/s");
  CHECK(kit.is_idle());
  CHECK(kit.count(Kind::ask) == 1);
  // Listened for again, it is served.
  kit.words.clear();
  kit.listen("s");
  CHECK(heard(late) == k_greeting);
}

TEST_CASE("who waits in the backlog of a socket that is given up is refused, not let go") {
  Kit kit;
  kit.start();
  std::vector<UniqueFd> waiting;
  waiting.reserve(300);
  for (int i = 0; i < 300; ++i) waiting.push_back(connected(kit.folder + "/s"));
  SUBCASE("as its share is") {
    kit.say({.kind = Kind::unlisten, .share = "s"});
  }
  SUBCASE("at the end") {
    kit.say({.kind = Kind::end});
  }
  kit.listeners.clear();  // the supervisor's
  for (const auto& peer : waiting) {
    CHECK(heard(peer) == k_greeting);
    CHECK(is_open(peer));
  }
  for (const auto& peer : waiting) {
    for (const auto& text : k_opening) tell(peer, text);
  }
  kit.settle();
  for (const auto& peer : waiting) CHECK(heard(peer) == "(end)");
}

TEST_CASE("places of listeners are used again, once everybody who came through them has left") {
  Bounds bounds;
  bounds.listeners = 2;
  Kit kit(bounds);
  kit.start();
  const auto inside = kit.enter();
  for (int i = 0; i < 10; ++i) {
    const auto share = "t" + std::to_string(i);
    kit.listen(share);
    const auto peer = kit.open_up(share);
    const auto ask = kit.expect(Kind::ask);
    CHECK(ask.share == share);
    kit.say({.kind = Kind::unlisten, .share = share});
    CHECK(heard(peer) == "(end)");
  }
  kit.say({.kind = Kind::unlisten, .share = "s"});
  kit.listen("a");
  kit.listen("b");  // no place: the one of `inside` is not free
  CHECK(is_open(connected(kit.folder + "/b")));
  kit.supervise();
  CHECK(kit.count(Kind::listening) == 1);
  CHECK(kit.expect(Kind::is_inside).share == "s");
}

TEST_CASE("a listener that somebody has shut down is let go, and may come again") {
  Kit kit;
  kit.start();
  const auto peer = kit.join();
  REQUIRE(::shutdown(kit.listeners["s"].get(), SHUT_RDWR) == 0);
  CHECK(kit.is_idle());
  kit.listeners.clear();
  kit.listen();
  kit.enter();
  CHECK(is_open(peer));
}

TEST_CASE("at the end who has spoken is refused, and who has not is waited for") {
  Kit kit;
  kit.start();
  const auto silent = kit.join();
  const auto asked = kit.open_up();
  const auto inside = kit.enter();
  kit.say({.kind = Kind::end});
  CHECK(heard(asked) == "(end)");
  CHECK(heard(inside.peer) == "(end)");
  CHECK(heard(inside.daemon) == "(end)");
  CHECK(heard(silent) == k_greeting);
  CHECK(is_open(silent));
  CHECK(kit.gate->turn(0ms));
  for (const auto& text : k_opening) tell(silent, text);
  kit.gate->turn(0ms);
  CHECK(heard(silent) == "(end)");
  CHECK_FALSE(kit.gate->turn(0ms));
}
