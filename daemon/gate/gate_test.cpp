// The way in, and inside.
#include "gate/gate.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "gate/gate_kit.h"

using namespace mps;
using namespace mps::gate;
using namespace mps::gate::test;

namespace {

bool has_exact_pidfds() {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  const UniqueFd one(ends[0]);
  const UniqueFd other(ends[1]);
  ucred who{};
  socklen_t size = sizeof(who);
  REQUIRE(::getsockopt(one.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) == 0);
  bool exact = false;
  System system;
  const UniqueFd pidfd(system.pidfd_of(one.get(), who, exact));
  return exact;
}

}  // namespace

TEST_CASE("a peer is greeted once there is a greeting, and not before") {
  Kit kit;
  kit.supervise();
  kit.listen();
  const auto peer = kit.join();
  CHECK(heard(peer) == "(none)");
  CHECK(kit.gate->peers() == 0);  // in the backlog, which outlives us
  CHECK(kit.is_idle());
  kit.set_up();
  CHECK(heard(peer) == k_greeting);
  CHECK(kit.gate->peers() == 1);
  CHECK(kit.count(Kind::ask) == 0);
  CHECK(kit.is_idle());
}

TEST_CASE("a peer is greeted before anything is found out about it that takes time") {
  Kit kit;
  kit.start();
  SUBCASE("with the pidfds that this kernel has") {}
  SUBCASE("with those of kernels before 6.5") {
    kit.system.inexact = true;
  }
  UniqueFd peer;
  std::string said;
  kit.system.at_cgroup = [&] { said = heard(peer); };
  for (int i = 0; i < 2; ++i) {  // from the first it is known how exact they are
    said.clear();
    peer = connected(kit.folder + "/s");
    kit.settle();
    CHECK(said == k_greeting);
    for (const auto& text : k_opening) tell(peer, text);
    kit.let_through(peer);
  }
}

TEST_CASE("who is greeted and whose pidfd cannot be had yet is asked for when it can") {
  Kit kit;
  kit.start();
  const auto first = kit.join();
  kit.system.fail(Call::pidfd, EMFILE);
  const auto second = kit.join();
  const bool greeted = has_exact_pidfds();
  CHECK(heard(second) == (greeted ? k_greeting : "(none)"));
  for (const auto& text : k_opening) tell(second, text);
  kit.advance(100ms);
  CHECK(kit.count(Kind::ask) == 0);
  CHECK(kit.is_idle());
  CHECK(is_open(second));
  if (!greeted) return;
  kit.system.heal();
  kit.advance(100ms);
  kit.let_through(second);
}

TEST_CASE("a new supervisor is told who it speaks to, and that nothing is here") {
  Kit kit;
  kit.supervise();
  const auto welcome = kit.expect(Kind::welcome);
  CHECK(welcome.code == k_protocol);
  CHECK(welcome.pid == ::getpid());
  kit.expect(Kind::listed);
  CHECK(kit.words.empty());
}

TEST_CASE("a peer that has said all is asked for, with its pidfd") {
  Kit kit;
  kit.start();
  const auto peer = kit.open_up();
  const auto ask = kit.expect(Kind::ask);
  CHECK(ask.pid == ::getpid());
  CHECK(ask.uid == ::getuid());
  CHECK(ask.share == "s");
  const auto info = "/proc/self/fdinfo/" + std::to_string(ask.beside.get());
  CHECK(std::filesystem::exists(info));
  pollfd alive{ask.beside.get(), POLLIN, 0};
  CHECK(::poll(&alive, 1, 0) == 0);
  CHECK(heard(peer) == "(none)");
  CHECK_FALSE(kit.accept());  // the daemon has not heard of it
  CHECK(kit.is_idle());
}

TEST_CASE("who is let in is taken to the daemon with its own words and credentials") {
  Kit kit;
  kit.start();
  const auto inside = kit.enter();
  CHECK(kit.gate->peers() == 1);
  CHECK(heard(inside.peer) == "(none)");
  CHECK(kit.is_idle());
}

TEST_CASE("a probe that reads the greeting and leaves is nobody's business") {
  Kit kit;
  kit.start();
  CHECK(heard(kit.join()) == k_greeting);
  kit.settle();
  CHECK(kit.gate->peers() == 0);
  CHECK(kit.count(Kind::gone) == 0);
  CHECK(kit.count(Kind::refused) == 0);
}

TEST_CASE("who is refused reads an end, and no reset") {
  Kit kit;
  kit.start();
  const auto peer = kit.open_up();
  kit.say({.kind = Kind::refuse, .peer = kit.expect(Kind::ask).peer});
  CHECK(heard(peer) == "(end)");
  CHECK(kit.gate->peers() == 0);
  CHECK_FALSE(kit.accept());
}

TEST_CASE("every other opening is refused once it is said, and counted") {
  struct Case {
    const char* name;
    std::vector<std::string> texts;
  };
  const std::vector<Case> cases{
      {"other bytes", {"hello"}},
      {"nothing in it", {""}},
      {"longer", {k_opening[0] + "x"}},
      {"shorter", {k_opening[0].substr(0, 8)}},
      {"a front-end", {k_opening[0], std::string("ui\0i", 4)}},
      {"the second longer", {k_opening[0], k_opening[1] + "x"}},
      {"the second first", {k_opening[1]}},
      {"more than there is room for", {std::string(600, 'x')}},
      {"more after it", {k_opening[0], k_opening[1], "more"}},
      {"very many", std::vector<std::string>(16, "hello")},
  };
  for (const auto& one : cases) {
    CAPTURE(one.name);
    const auto& texts = one.texts;
    Kit kit;
    kit.start();
    const auto peer = kit.join();
    CHECK(heard(peer) == k_greeting);
    for (const auto& text : texts) tell(peer, text);
    kit.settle();
    CHECK(heard(peer) == "(end)");
    const bool too_long = texts.front().size() > 512;
    kit.expect_refusal(too_long ? Refusal::had_descriptors : Refusal::unknown_opening);
    CHECK(kit.gate->peers() == 0);
    CHECK_FALSE(kit.accept());
  }
}

TEST_CASE("who says more while it is asked for is refused, and that it has gone is said") {
  Kit kit;
  kit.start();
  const auto peer = kit.open_up();
  const auto ask = kit.expect(Kind::ask);
  tell(peer, "more");
  kit.settle();
  CHECK(heard(peer) == "(end)");
  CHECK(kit.expect(Kind::gone).peer == ask.peer);
  kit.expect_refusal(Refusal::unknown_opening);
}

TEST_CASE("descriptors in an opening are refused and not kept") {
  for (const std::size_t at : {0U, 1U}) {
    Kit kit;
    kit.start();
    const auto peer = kit.join();
    CHECK(heard(peer) == k_greeting);
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    const UniqueFd out(ends[0]);
    UniqueFd in(ends[1]);
    if (at == 1) tell(peer, k_opening[0]);
    tell(peer, k_opening[at], {in.get()});
    in.reset();
    kit.settle();
    CHECK(heard(peer) == "(end)");
    char byte = 0;
    CHECK(::read(out.get(), &byte, 1) == 0);  // nobody has the other end
    kit.expect_refusal(Refusal::had_descriptors);
  }
}

TEST_CASE("another process on a peer's socket is refused") {
  Kit kit;
  kit.start();
  SUBCASE("that says all of it") {
    const auto peer = kit.join();
    CHECK(heard(peer) == k_greeting);
    tell_from_child(peer, k_opening);
    kit.settle();
    CHECK(heard(peer) == "(end)");
    kit.expect_refusal(Refusal::wrong_process);
  }
  SUBCASE("that says the rest") {
    const auto peer = kit.join();
    CHECK(heard(peer) == k_greeting);
    tell(peer, k_opening[0]);
    tell_from_child(peer, {k_opening[1]});
    kit.settle();
    CHECK(heard(peer) == "(end)");
    kit.expect_refusal(Refusal::wrong_process);
  }
  SUBCASE("who connected has ended and is not there any more") {
    const auto path = kit.folder + "/s";
    const UniqueFd place(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 100));
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    const UniqueFd ours(pair[0]);
    UniqueFd theirs(pair[1]);
    const auto child = ::fork();
    if (child == 0) {
      const auto made = connected(path);
      tell(theirs, "x", {made.get()});
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    System plain;
    Received received;
    std::array<char, 8> buffer{};
    REQUIRE(plain.receive(ours.get(), buffer, received) == 1);
    REQUIRE(received.descriptor_count == 1);
    const UniqueFd peer(std::exchange(received.descriptors[0], -1));
    received.descriptor_count = 0;
    kit.settle();
    CHECK(heard(peer) == k_greeting);
    for (const auto& text : k_opening) tell(peer, text);
    kit.settle();
    CHECK(heard(peer) == "(end)");
    kit.advance(100ms);
    CHECK(kit.expect(Kind::refused).code == static_cast<std::uint32_t>(Refusal::wrong_process));
  }
}

TEST_CASE("where the kernel has no exact pidfd, what was said before it was opened is refused") {
  Kit kit;
  kit.system.inexact = true;
  kit.start();
  SUBCASE("said before") {
    const auto peer = connected(kit.folder + "/s");
    for (const auto& text : k_opening) tell(peer, text);
    kit.settle();
    CHECK(heard(peer) == k_greeting);
    CHECK(heard(peer) == "(end)");
    kit.expect_refusal(Refusal::wrong_process);
  }
  SUBCASE("said after") {
    kit.enter();
  }
}

TEST_CASE("a process that ended is not taken to the daemon") {
  Kit kit;
  kit.start();
  SUBCASE("before it is asked for") {
    const auto peer = kit.join();
    CHECK(heard(peer) == k_greeting);
    kit.system.ended = true;
    for (const auto& text : k_opening) tell(peer, text);
    kit.settle();
    CHECK(heard(peer) == "(end)");
    kit.expect_refusal(Refusal::ended);
  }
  SUBCASE("before its verdict") {
    const auto peer = kit.open_up();
    const auto ask = kit.expect(Kind::ask);
    kit.system.ended = true;
    kit.let_in(ask.peer);
    CHECK(kit.expect(Kind::gone).peer == ask.peer);
    CHECK(heard(peer) == "(end)");
    CHECK_FALSE(kit.accept());
  }
  SUBCASE("at the daemon's greeting") {
    const auto peer = kit.open_up();
    const auto ask = kit.expect(Kind::ask);
    kit.let_in(ask.peer);
    const auto end = kit.accept();
    kit.system.ended = true;
    tell(end, k_greeting);
    CHECK(kit.expect(Kind::gone).peer == ask.peer);
    CHECK(heard(end) == "(end)");
  }
  SUBCASE("it leaves while it is asked for") {
    auto peer = kit.open_up();
    const auto ask = kit.expect(Kind::ask);
    peer.reset();
    CHECK(kit.expect(Kind::gone).peer == ask.peer);
    kit.let_in(ask.peer);  // too late
    CHECK_FALSE(kit.accept());
  }
  CHECK(kit.gate->peers() == 0);
}

// ---- the daemon ----

TEST_CASE("without a daemon who is let in waits, and enters when there is one") {
  Kit kit;
  kit.supervise();
  kit.set_up();
  kit.listen();
  const auto peer = kit.open_up();
  const auto ask = kit.expect(Kind::ask);
  kit.let_in(ask.peer);
  kit.advance(1s);
  CHECK(heard(peer) == "(none)");
  CHECK(kit.is_idle());
  kit.serve();
  const auto end = kit.accept_and_greet();
  kit.expect_opening(end, ::getpid());
  CHECK(kit.expect(Kind::inside).peer == ask.peer);
  CHECK(kit.say({.kind = Kind::no_daemon}));
  tell(end, "goes on");
  kit.settle();
  CHECK(heard(peer) == "goes on");
}

TEST_CASE("whom the daemon does not take goes on waiting, and may be let in later") {
  Kit kit;
  kit.start();
  const auto peer = kit.open_up();
  const auto id = kit.expect(Kind::ask).peer;
  int error = 0;
  UniqueFd end;
  const auto fails_with = [&](int expected) {
    const auto word = kit.expect(Kind::not_entered);
    CHECK(word.peer == id);
    error = static_cast<int>(word.code);
    CHECK(error == expected);
  };
  SUBCASE("its socket is not there") {
    ::unlink((kit.folder + "/daemon/control").c_str());
    kit.let_in(id);
    fails_with(ENOENT);
    kit.daemon = listening(kit.folder + "/daemon/control");
    const int yes = 1;
    ::setsockopt(kit.daemon.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
  }
  SUBCASE("nobody listens") {
    kit.daemon.reset();
    kit.let_in(id);
    fails_with(ECONNREFUSED);
    kit.serve();
  }
  SUBCASE("it says another greeting") {
    kit.let_in(id);
    end = kit.accept();
    tell(end, "another");
    fails_with(EPROTO);
    CHECK(heard(end) == "(end)");
  }
  SUBCASE("it is silent") {
    kit.let_in(id);
    end = kit.accept();
    kit.advance(99ms);
    CHECK(kit.count(Kind::not_entered) == 0);
    kit.advance(1ms);
    fails_with(ETIMEDOUT);
  }
  SUBCASE("it closes") {
    kit.let_in(id);
    end = kit.accept();
    end.reset();
    fails_with(ECONNRESET);
  }
  CHECK(heard(peer) == "(none)");
  CHECK(kit.is_idle());
  if (!kit.daemon) kit.serve();
  kit.let_in(id);
  end = kit.accept_and_greet();
  kit.expect_opening(end, ::getpid());
  CHECK(kit.expect(Kind::inside).peer == id);
}

namespace {

// Two that are let in: the daemon has the first one's connection, and says nothing.
struct TwoToEnter : Kit {
  TwoToEnter() {
    start();
    first = open_up();
    its = expect(Kind::ask).peer;
    second = open_up();
    other = expect(Kind::ask).peer;
    let_in(its);
    let_in(other);
    end = accept();
  }
  UniqueFd first, second, end;
  std::uint64_t its = 0, other = 0;
};

}  // namespace

TEST_CASE("who has waited for the daemon for too long is refused, wherever it waits") {
  TwoToEnter kit;
  SUBCASE("behind another") {
    CHECK(kit.say({.kind = Kind::refuse, .peer = kit.other}));
    CHECK(heard(kit.second) == "(end)");
    CHECK(heard(kit.first) == "(none)");
    tell(kit.end, k_greeting);
    CHECK(kit.expect(Kind::inside).peer == kit.its);
  }
  SUBCASE("at the daemon, where the next one has its turn") {
    CHECK(kit.say({.kind = Kind::refuse, .peer = kit.its}));
    CHECK(heard(kit.first) == "(end)");
    CHECK(heard(kit.end) == "(end)");
    const auto next = kit.accept_and_greet();
    CHECK(kit.expect(Kind::inside).peer == kit.other);
    CHECK(kit.say({.kind = Kind::refuse, .peer = kit.other}));  // too late: it has got in
    CHECK(heard(kit.second) == "(none)");
  }
  CHECK(kit.is_idle());
}

TEST_CASE("when there is no daemon any more, those who were to enter are asked for anew") {
  TwoToEnter kit;
  CHECK(kit.say({.kind = Kind::no_daemon}));
  for (const auto id : {kit.its, kit.other}) {
    const auto word = kit.expect(Kind::not_entered);
    CHECK(word.peer == id);
    CHECK(word.code == ECONNREFUSED);
  }
  CHECK(heard(kit.end) == "(end)");
  kit.serve();
  CHECK_FALSE(kit.accept());  // nobody enters unasked
  kit.let_in(kit.other);
  const auto next = kit.accept_and_greet();
  kit.expect_opening(next, ::getpid());
  CHECK(kit.expect(Kind::inside).peer == kit.other);
  CHECK(heard(kit.first) == "(none)");
}

TEST_CASE("a full backlog of the daemon is tried again until the deadline") {
  Kit kit;
  kit.start();
  REQUIRE(::listen(kit.daemon.get(), 0) == 0);
  std::vector<UniqueFd> others;
  for (auto other = connected(kit.folder + "/daemon/control"); other;
       other = connected(kit.folder + "/daemon/control"))
    others.push_back(std::move(other));
  const auto peer = kit.open_up();
  const auto id = kit.expect(Kind::ask).peer;
  kit.let_in(id);
  SUBCASE("it gets room") {
    kit.advance(50ms);
    CHECK(kit.count(Kind::not_entered) == 0);
    for (std::size_t i = 0; i < others.size(); ++i) CHECK(kit.accept());
    const auto end = kit.accept_and_greet();
    kit.expect_opening(end, ::getpid());
    CHECK(kit.expect(Kind::inside).peer == id);
  }
  SUBCASE("it does not") {
    kit.advance(100ms);
    CHECK(kit.expect(Kind::not_entered).code == ETIMEDOUT);
    CHECK(heard(peer) == "(none)");
    CHECK(kit.is_idle());
  }
}

TEST_CASE("one at a time is taken to the daemon, in the order of the verdicts") {
  Kit kit;
  kit.start();
  std::vector<UniqueFd> peers;
  std::vector<std::uint64_t> ids;
  for (int i = 0; i < 3; ++i) {
    peers.push_back(kit.open_up());
    ids.push_back(kit.expect(Kind::ask).peer);
  }
  for (const auto id : {ids[2], ids[0], ids[1]}) kit.let_in(id);
  std::vector<UniqueFd> ends;
  for (const auto id : {ids[2], ids[0], ids[1]}) {
    ends.push_back(kit.accept());
    CHECK_FALSE(kit.accept());
    CHECK(kit.count(Kind::inside) == 0);
    tell(ends.back(), k_greeting);
    CHECK(kit.expect(Kind::inside).peer == id);
  }
  CHECK(kit.is_idle());
}

TEST_CASE("who leaves while it is at the daemon gives its turn to the next") {
  Kit kit;
  kit.start();
  auto first = kit.open_up();
  const auto id = kit.expect(Kind::ask).peer;
  const auto second = kit.open_up();
  const auto other = kit.expect(Kind::ask).peer;
  kit.let_in(id);
  kit.let_in(other);
  const auto end = kit.accept();
  first.reset();
  CHECK(kit.expect(Kind::gone).peer == id);
  CHECK(heard(end) == "(end)");
  const auto next = kit.accept_and_greet();
  CHECK(kit.expect(Kind::inside).peer == other);
}
