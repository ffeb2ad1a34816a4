// Peers that are slow, silent, huge, many, or not who they say: none costs another anything.
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "admission/hall_kit.h"
#include "base/descriptors_kit.h"

using namespace mps;
using namespace mps::admission;
using namespace mps::admission::testing;
using namespace std::chrono_literals;

namespace {

const std::string k_too_many =
    error("too_many_connections",
          "this container has too many connections to the agent; close some and try again");

Limits small(std::size_t connections, std::size_t of_container) {
  Limits limits;
  limits.crowd = {connections, of_container, 1000};
  return limits;
}

}  // namespace

TEST_CASE("who says nothing is closed after 10 seconds, and not before") {
  Kit kit;
  const auto program = kit.greeted();
  kit.pass(9999ms);
  CHECK(heard(program).empty());
  kit.pass(1ms);
  CHECK(heard(program) == error("too_slow", "nothing was asked for 10s"));
  CHECK(heard(program) == "(end)");
  CHECK(kit.hall->connections() == 0);
  CHECK(kit.hall->counts().of(Trouble::too_slow) == 1);
}

TEST_CASE("who says nothing after an answer is closed too; who was let in is not") {
  Kit kit;
  const auto refused = kit.asking("ask\n");
  const auto inside = kit.asking("ask\n");
  kit.pass(9s);
  kit.desk.asked[0].told(share::Refused{share::draining("gpu0.shared")});
  kit.desk.asked[1].told(granted(5));
  CHECK(heard(inside).starts_with("granted\n"));
  CHECK(heard(refused).starts_with("refused\n"));
  kit.pass(9999ms);
  CHECK(heard(refused).empty());
  kit.pass(1ms);
  CHECK(heard(refused) == error("too_slow", "nothing was asked for 10s"));
  kit.pass(24h);
  CHECK(heard(inside).empty());
  CHECK(kit.hall->connections() == 1);
}

TEST_CASE("a desk that does not answer") {
  Kit kit;
  const auto standing = kit.asking("standing\n");
  const auto waiting = kit.asking("ask\ndeadline=3605000\n");
  const auto patient = kit.asking("ask\ndeadline=default\n");
  kit.pass(30s);
  CHECK(heard(standing) == error("unanswered", "the agent has no answer after 30s; try again"));
  CHECK(heard(waiting).empty());
  kit.pass(5s);
  CHECK(heard(waiting) == error("unanswered", "the agent has no answer after 30s; try again"));
  CHECK(kit.desk.withdrawn == std::vector<RequestId>{1});
  kit.pass(24h);
  CHECK(heard(patient).starts_with("error\ncode=unanswered\n"));
  CHECK(kit.desk.withdrawn == std::vector<RequestId>{1, 2});
}

TEST_CASE("what is no request ends the connection, with the reason") {
  Kit kit;
  const auto check = [&](std::string_view said, const std::string& answer) {
    const auto program = kit.asking(said);
    CHECK(heard(program) == answer);
    CHECK(heard(program) == "(end)");
  };
  check("", error("bad_message", "the message is empty"));
  check("quit\n", error("unknown_request", "unknown request \"quit\""));
  check("ask\nslot=1\n", error("bad_message", "\"ask\" has no key \"slot\""));
  check(std::string(512, 'a'), error("bad_message", "the last line has no end"));
  check(std::string(513, 'a'), error("too_long", "a request has at most 512 bytes"));
  check(std::string(100000, '\n'), error("too_long", "a request has at most 512 bytes"));
  CHECK(kit.desk.asked.empty());
  CHECK(kit.hall->connections() == 0);
}

TEST_CASE("who has much more to say than is heard still reads why it was ended") {
  Kit kit;
  const auto program = kit.greeted();
  for (int i = 0; i < 10; ++i) REQUIRE(say(program, "rubbish"));
  kit.turn();
  CHECK(heard(program) == error("bad_message", "the last line has no end"));
  CHECK(heard(program) == "(end)");
}

TEST_CASE("descriptors are not taken") {
  Kit kit;
  const auto before = open_descriptors();
  for (const std::size_t count : {1U, 2U, 253U}) {
    const auto program = kit.greeted();
    send_descriptors(program, "ask\n", count);
    kit.turn();
    CHECK(heard(program) == error("had_descriptors", "a request comes without descriptors"));
  }
  CHECK(open_descriptors() == before);
  CHECK(kit.desk.asked.empty());
}

TEST_CASE("a connection that was handed on") {
  Kit kit;
  const auto program = kit.greeted();
  const auto child = ::fork();
  if (child == 0) ::_exit(say(program, "ask\n") ? 0 : 1);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  kit.turn();
  CHECK(heard(program) ==
        error("wrong_process",
              "a connection is for the process that made it; connect from this one"));
  CHECK(kit.desk.asked.empty());
}

TEST_CASE("a connection whose maker has ended is nobody's") {
  Kit kit;
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  const UniqueFd ours(pair[0]), theirs(pair[1]);
  const auto child = ::fork();
  if (child == 0) {
    const auto program = connected(kit.listener.get());
    char byte = 0;
    (void)!::write(theirs.get(), &byte, 1);
    ::_exit(::read(theirs.get(), &byte, 1) == 1 && say(program, "ask\n") ? 0 : 1);
  }
  char byte = 0;
  REQUIRE(::read(ours.get(), &byte, 1) == 1);
  kit.turn();
  CHECK(kit.hall->connections() == 1);
  REQUIRE(::write(ours.get(), &byte, 1) == 1);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  kit.turn();
  CHECK(kit.desk.asked.empty());
  CHECK(kit.hall->connections() == 0);
}

TEST_CASE("a pid that may be another's by now") {
  Kit kit;
  kit.machine.exact = false;
  const auto early = connected(kit.listener.get());
  REQUIRE(say(early, "ask\n"));
  kit.turn();
  CHECK(heard(early).starts_with("hello\n"));
  CHECK(heard(early) == error("too_early", "nothing can be asked before hello was said"));
  CHECK(kit.desk.asked.empty());
  const auto polite = kit.asking("ask\n");
  CHECK(kit.desk.asked.size() == 1);
  kit.machine.exact = true;
  const auto known = connected(kit.listener.get());
  REQUIRE(say(known, "ask\n"));
  kit.turn();
  CHECK(kit.desk.asked.size() == 2);
}

TEST_CASE("a peer that has ended before it was looked at") {
  Kit kit;
  kit.machine.pidfd_error = ESRCH;
  const auto program = kit.connect();
  CHECK(heard(program) == "(end)");
  kit.machine.pidfd_error = 0;
  CHECK(heard(kit.connect()).starts_with("hello\n"));
}

TEST_CASE("without descriptors newcomers wait, and nothing spins") {
  Kit kit;
  kit.machine.accept_error = EMFILE;
  const auto program = kit.connect();
  const auto tried = kit.machine.accepts;
  CHECK(tried == 1);
  kit.turn(10);
  CHECK(kit.machine.accepts == tried);
  CHECK(heard(program).empty());
  kit.machine.accept_error = 0;
  kit.pass(99ms);
  CHECK(heard(program).empty());
  kit.pass(1ms);
  CHECK(heard(program).starts_with("hello\n"));
}

TEST_CASE("without a descriptor to know it by, a peer is told to try again") {
  Kit kit;
  kit.machine.pidfd_error = EMFILE;
  const auto program = kit.connect();
  CHECK(heard(program) == error("out_of_resources",
                                "the agent cannot take this connection; try again: "
                                "Too many open files"));
  CHECK(heard(program) == "(end)");
  const auto next = kit.connect();
  CHECK(heard(next).empty());
  kit.machine.pidfd_error = 0;
  kit.pass(100ms);
  CHECK(heard(next).starts_with("hello\n"));
  kit.machine.watch_error = ENOMEM;
  CHECK(heard(kit.connect()) == error("out_of_resources",
                                      "the agent cannot take this connection; try again: "
                                      "Cannot allocate memory"));
  CHECK(kit.hall->connections() == 1);
}

TEST_CASE("a listener that somebody has shut down does not keep us busy") {
  Kit kit;
  const auto program = kit.greeted();
  ::shutdown(kit.listener.get(), SHUT_RDWR);
  kit.turn();
  CHECK(kit.at_rest());
  kit.machine.accept_error = EMFILE;
  kit.pass(1s);
  REQUIRE(say(program, "standing\n"));
  kit.turn();
  CHECK(kit.desk.standings.size() == 1);
}

TEST_CASE("who does not read its answers is ended, and nobody waits for it") {
  Kit kit;
  const auto deaf = kit.greeted();
  std::size_t answers = 0;
  while (kit.hall->connections() == 1) {
    REQUIRE(answers < 1000);
    REQUIRE(say(deaf, "standing\n"));
    kit.turn();
    kit.desk.standings.at(answers++).second(Standing{});
  }
  CHECK(kit.hall->counts().not_reading == 1);
  CHECK(answers < 100);
}

TEST_CASE("who does not read why it waits keeps its place") {
  Kit kit;
  const auto stopped = kit.asking("ask\ndeadline=default\n");
  for (int i = 0; i < 1000; ++i) {
    kit.desk.asked[0].told(share::Waits{{share::Code::quota_clients, std::to_string(i)}});
  }
  CHECK(kit.hall->connections() == 1);
  CHECK(kit.desk.withdrawn.empty());
  while (!heard(stopped).empty()) continue;
  kit.desk.asked[0].told(granted(5));
  CHECK(heard(stopped).starts_with("granted\n"));
}

TEST_CASE("one container's newcomer takes the place of its own most dispensable connection") {
  Kit kit(small(100, 3));
  const auto waiting = kit.asking("ask\ndeadline=default\n");
  const auto inside = kit.asking("ask\n");
  kit.desk.asked[1].told(granted(5));
  CHECK(heard(inside).starts_with("granted\n"));
  const auto silent = kit.greeted();
  const auto fourth = kit.greeted();
  CHECK(heard(silent) == k_too_many);
  CHECK(heard(silent) == "(end)");
  REQUIRE(say(fourth, "ask\ndeadline=default\n"));
  kit.turn();
  // Who is let in keeps its slot without this connection.
  const auto fifth = kit.asking("ask\ndeadline=default\n");
  CHECK(heard(inside) == k_too_many);
  CHECK(kit.desk.closed == std::vector<share::SlotId>{5});
  // All of them wait: then it is the newcomer that goes.
  const auto sixth = kit.connect();
  CHECK(heard(sixth) == k_too_many);
  CHECK(heard(sixth) == "(end)");
  CHECK(kit.desk.withdrawn.empty());
  kit.machine.cgroup = "0::/b\n";
  CHECK(heard(kit.connect()).starts_with("hello\n"));
}

TEST_CASE("who has most gives a place to who has none, of those that wait the latest") {
  Kit kit(small(4, 4));
  std::vector<UniqueFd> hog;
  hog.reserve(3);
  for (int i = 0; i < 3; ++i) hog.push_back(kit.asking("ask\ndeadline=default\n"));
  kit.machine.cgroup = "0::/b\n";
  const auto first = kit.greeted();
  kit.machine.cgroup = "0::/c\n";
  const auto second = kit.greeted();
  CHECK(heard(hog[2]) == k_too_many);
  CHECK(kit.desk.withdrawn == std::vector<RequestId>{3});
  kit.machine.cgroup = "0::/a\n";
  const auto more = kit.connect();
  CHECK(heard(more) ==
        error("too_many_connections", "there are too many connections to the agent; try again"));
  CHECK(heard(first).empty());
  CHECK(heard(hog[0]).empty());
}

TEST_CASE("a container's ten thousand connections beside another's one") {
  (void)mps::test::raise_descriptor_limit();
  Kit kit;
  const auto before = open_descriptors();
  std::vector<UniqueFd> hog;
  kit.machine.cgroup = "0::/b\n";
  const auto other = kit.greeted();
  kit.machine.cgroup = "0::/a\n";
  for (int i = 0; i < 10000; ++i) {
    hog.push_back(kit.connect());
    (void)say(hog.back(), "standing\n");
    if (hog.size() > 300) hog.erase(hog.begin());
    CHECK(kit.desk.standings.size() <= 256);  // the desk's work is bounded too
  }
  CHECK(kit.hall->connections() <= 257);
  CHECK(open_descriptors() < before + 301 + 3 * 257);
  REQUIRE(say(other, "ask\n"));
  kit.turn();
  CHECK(kit.desk.asked.size() == 1);
  hog.clear();
  kit.turn(100);
  for (const auto& [peer, told] : kit.desk.standings) told(Standing{});
  CHECK(kit.hall->connections() == 1);
}

TEST_CASE("who asks and leaves counts until the desk is done with it") {
  Kit kit(small(100, 2));
  kit.asking("standing\n").reset();
  kit.asking("terminate-own\n").reset();
  kit.turn();
  CHECK(kit.hall->connections() == 2);
  CHECK(heard(kit.connect()) == k_too_many);
  CHECK(kit.at_rest());
  SUBCASE("it answers") {
    kit.desk.standings[0].second(Standing{});
    kit.desk.terminations[0].second(share::unidentified("gone"));
  }
  SUBCASE("it does not") {
    kit.pass(30s);
  }
  CHECK(kit.hall->connections() == 0);
  CHECK(heard(kit.connect()).starts_with("hello\n"));
}

TEST_CASE("requests are heard one of each container in turn") {
  Kit kit;
  std::vector<UniqueFd> hog;
  hog.reserve(60);
  for (int i = 0; i < 60; ++i) hog.push_back(kit.greeted());
  kit.machine.cgroup = "0::/b\n";
  const auto other = kit.greeted();
  for (const auto& program : hog) REQUIRE(say(program, "standing\n"));
  REQUIRE(say(other, "terminate-own\n"));
  kit.turn(1);
  CHECK(kit.desk.standings.size() == 31);
  CHECK(kit.desk.terminations.size() == 1);
  pollfd look{kit.hall->descriptor(), POLLIN, 0};
  CHECK(::poll(&look, 1, 10000) == 1);  // it says that there is more to do
  kit.turn(1);
  CHECK(kit.desk.standings.size() == 60);
}

TEST_CASE("ten thousand asks leave nothing behind") {
  Kit kit;
  const auto before = open_descriptors();
  for (int i = 0; i < 10000; ++i) {
    auto program = kit.connect();
    REQUIRE(say(program, "ask\n"));
    kit.turn(2);
    REQUIRE(kit.desk.asked.size() == 1);
    if (i % 3 == 0) kit.desk.asked[0].told(share::Refused{share::draining("gpu0.shared")});
    if (i % 3 == 1) kit.desk.asked[0].told(granted(5));
    program.reset();
    kit.turn(1);
    kit.desk.asked.clear();
  }
  CHECK(kit.hall->connections() == 0);
  CHECK(open_descriptors() == before);
  CHECK(kit.desk.closed.size() == 3333);
  CHECK(kit.desk.withdrawn.size() == 3333);
  kit.turn(1);  // its timer runs on the real clock, and may have come meanwhile
  CHECK(kit.at_rest());
}
