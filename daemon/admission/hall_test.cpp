// What programs ask at admission.sock, and what they hear.
#include <poll.h>
#include <unistd.h>

#include "admission/hall_kit.h"

using namespace mps;
using namespace mps::admission;
using namespace mps::admission::testing;
using namespace std::chrono_literals;

TEST_CASE("the agent speaks first") {
  Kit kit;
  const auto program = kit.connect();
  CHECK(heard(program) ==
        "hello\nprotocol=1\ncapabilities=ask standing terminate-own\nagent=" MPS_VERSION
        "\ninstance=gpu0.shared\nshare=open\nclock=3600000\nlongest-wait=86400000\n");
  CHECK(heard(program).empty());
  CHECK(kit.at_rest());
}

TEST_CASE("clients are told which device it is, and how to see it") {
  Kit kit;
  kit.hall->set_device("gpu0.shared", {"GPU-1", "gpu0", "GPU-1"});
  kit.hall->set_device("gpu1.shared", {"GPU-2", "gpu1", ""});
  const auto program = kit.connect();
  CHECK(heard(program) ==
        "hello\nprotocol=1\ncapabilities=ask standing terminate-own\nagent=" MPS_VERSION
        "\ninstance=gpu0.shared\nshare=open\ndevice=GPU-1\ndevice-name=gpu0\nclock=3600000\n"
        "longest-wait=86400000\n");
  REQUIRE(say(program, "standing\n"));
  kit.turn();
  kit.desk.standings.at(0).second(Standing{"a", "b", {50.0, {}}, 0, "ready"});
  CHECK(heard(program) ==
        "standing\nnamespace=a\ncontainer=b\nclients=0\ninstance-state=ready\n"
        "active-thread-percentage=50.0\nvisible-devices=GPU-1\nnext=granted\n");
  REQUIRE(say(program, "ask\n"));
  kit.turn();
  kit.hall->set_device("gpu0.shared", {"GPU-1", "gpu0", ""});
  kit.desk.asked.at(0).told(share::LetIn{{25.0, {}, true}, 17, 3, false});
  CHECK(heard(program) ==
        "granted\nslot=17\nagain=no\nactive-thread-percentage=25.0\nclient-priority=1\n");
}

TEST_CASE("asked and granted: who asks is told by the kernel") {
  Kit kit;
  const auto program = kit.asking("ask\n");
  REQUIRE(kit.desk.asked.size() == 1);
  const auto& asked = kit.desk.asked[0];
  CHECK(asked.peer.instance == "gpu0.shared");
  CHECK(asked.peer.share == "open");
  CHECK(asked.peer.pid == ::getpid());
  CHECK(asked.peer.uid == ::getuid());
  CHECK(asked.peer.gid == ::getgid());
  CHECK(asked.peer.pidfd);
  CHECK(!asked.wish.may_wait);
  CHECK(heard(program).empty());
  asked.told(share::LetIn{{25.0, 10240}, 17, 3, false});
  CHECK(heard(program) ==
        "granted\nslot=17\nagain=no\nactive-thread-percentage=25.0\npinned-memory-mib=10240\n");
  CHECK(kit.hall->counts().granted == 1);
}

TEST_CASE("a deadline is of the clock in hello") {
  Kit kit;
  const auto first = kit.asking("ask\ndeadline=default\n");
  const auto second = kit.asking("ask\ndeadline=3605000\n");
  const auto third = kit.asking("ask\ndeadline=3599999\n");
  REQUIRE(kit.desk.asked.size() == 3);
  CHECK(kit.desk.asked[0].wish.may_wait);
  CHECK(!kit.desk.asked[0].wish.wait);
  CHECK(kit.desk.asked[1].wish.may_wait);
  CHECK(kit.desk.asked[1].wish.wait == 5s);
  CHECK(!kit.desk.asked[2].wish.may_wait);
}

TEST_CASE("who waits hears why, each reason once") {
  Kit kit;
  const auto program = kit.asking("ask\ndeadline=default\n");
  const auto& told = kit.desk.asked[0].told;
  told(share::Waits{share::not_ready("gpu0.shared", "starting")});
  told(share::Waits{share::not_ready("gpu0.shared", "starting")});
  CHECK(heard(program) ==
        "waiting\ncode=not_ready\nsentence=gpu0.shared is not ready: it is starting\n");
  CHECK(heard(program).empty());
  told(share::Waits{{share::Code::quota_clients, "4 of 4"}});
  CHECK(heard(program) == "waiting\ncode=quota_clients\nsentence=4 of 4\n");
  told(granted(5));
  CHECK(heard(program).starts_with("granted\nslot=5\n"));
}

TEST_CASE("who is refused may ask again on the same connection") {
  Kit kit;
  const auto program = kit.asking("ask\n");
  kit.desk.asked[0].told(share::Refused{share::draining("gpu0.shared")});
  CHECK(heard(program) ==
        "refused\ncode=draining\nsentence=gpu0.shared takes no new clients: it is draining\n");
  REQUIRE(say(program, "ask\n"));
  kit.turn();
  REQUIRE(kit.desk.asked.size() == 2);
  kit.desk.asked[1].told(granted(5));
  CHECK(heard(program).starts_with("granted\n"));
  CHECK(kit.hall->counts().refused == 1);
  CHECK(kit.desk.withdrawn.empty());
}

TEST_CASE("what do I have, before and after the grant") {
  Kit kit;
  const auto program = kit.asking("standing\n");
  REQUIRE(kit.desk.standings.size() == 1);
  CHECK(kit.desk.standings[0].first.pid == ::getpid());
  kit.desk.standings[0].second(Standing{"team-a", "pod web-0", {50.0, {}}, 3, "ready"});
  CHECK(heard(program) ==
        "standing\nnamespace=team-a\ncontainer=pod web-0\nclients=3\ninstance-state=ready\n"
        "active-thread-percentage=50.0\nnext=granted\n");
  REQUIRE(say(program, "ask\n"));
  kit.turn();
  kit.desk.asked.at(0).told(granted(9));
  CHECK(heard(program).starts_with("granted\n"));
  REQUIRE(say(program, "standing\n"));
  kit.turn();
  kit.desk.standings.at(1).second(share::unidentified("it has no cgroup"));
  CHECK(heard(program) ==
        "refused\ncode=unidentified\nsentence=nobody can tell whose process this is: "
        "it has no cgroup\n");
  CHECK(kit.desk.closed.empty());
}

TEST_CASE("terminate my own") {
  Kit kit;
  const auto program = kit.asking("terminate-own\n");
  REQUIRE(kit.desk.terminations.size() == 1);
  kit.desk.terminations[0].second(Terminated{{12, 34}, {"56: no answer"}});
  CHECK(heard(program) == "terminated\nasked=2\npids=12 34\nfailed=1\nsentence=56: no answer\n");
  REQUIRE(say(program, "terminate-own\nscope=descendants\n"));
  kit.turn();
  CHECK(kit.desk.scopes == std::vector{Scope::container, Scope::descendants});
}

TEST_CASE("one request at a time: what is said meanwhile is answered afterwards") {
  Kit kit;
  const auto program = kit.asking("standing\n");
  REQUIRE(say(program, "ask\n"));
  REQUIRE(say(program, "standing\n"));
  kit.turn();
  CHECK(kit.desk.standings.size() == 1);
  CHECK(kit.desk.asked.empty());
  CHECK(kit.at_rest());
  kit.desk.standings[0].second(Standing{});
  kit.turn();
  CHECK(kit.desk.asked.size() == 1);
  CHECK(kit.desk.standings.size() == 1);
}

TEST_CASE("who leaves while it waits is withdrawn, once") {
  Kit kit;
  auto program = kit.asking("ask\ndeadline=default\n");
  program.reset();
  kit.turn();
  CHECK(kit.desk.withdrawn == std::vector<RequestId>{1});
  CHECK(kit.hall->connections() == 0);
  kit.desk.asked[0].told(granted(5));  // against the contract; nobody is there
  CHECK(kit.desk.closed.empty());
  CHECK(kit.at_rest());
}

TEST_CASE("a connection that was granted ends once, however it ends") {
  Kit kit;
  auto program = kit.asking("ask\n");
  kit.desk.asked[0].told(granted(5));
  SUBCASE("closed") {
    program.reset();
  }
  SUBCASE("half closed") {
    ::shutdown(program.get(), SHUT_WR);
  }
  SUBCASE("asks once more") {
    REQUIRE(say(program, "ask\n"));
  }
  SUBCASE("its listener goes") {
    kit.hall->remove_listener("gpu0.shared", "open");
  }
  SUBCASE("it leaves while something else is asked") {
    REQUIRE(say(program, "standing\n"));
    kit.turn();
    program.reset();
  }
  kit.turn();
  CHECK(kit.desk.closed == std::vector<share::SlotId>{5});
  CHECK(kit.desk.withdrawn.empty());
  kit.hall->close();
  CHECK(kit.desk.closed.size() == 1);
}

TEST_CASE("who is granted but gone is closed at once") {
  Kit kit;
  auto program = kit.asking("ask\n");
  program.reset();
  kit.desk.asked[0].told(granted(5));
  CHECK(kit.desk.closed == std::vector<share::SlotId>{5});
  CHECK(kit.desk.withdrawn.empty());
  CHECK(kit.hall->connections() == 0);
}

TEST_CASE("a second slot is not to be had over one connection") {
  Kit kit;
  const auto program = kit.asking("ask\n");
  kit.desk.asked[0].told(granted(5));
  CHECK(heard(program).starts_with("granted\n"));
  REQUIRE(say(program, "ask\n"));
  kit.turn();
  CHECK(heard(program) ==
        error("already_granted", "this connection has been granted its slot already"));
  CHECK(heard(program) == "(end)");
}

TEST_CASE("a share that is served no longer") {
  Kit kit;
  const auto waiting = kit.asking("ask\ndeadline=default\n");
  const auto silent = kit.greeted();
  const auto other = listening();
  REQUIRE(kit.hall->add_listener("gpu0.shared", "s-1", UniqueFd(::dup(other.get()))));
  const auto beside = connected(other.get());
  kit.turn();
  CHECK(heard(beside).find("\nshare=s-1\n") != std::string::npos);
  kit.hall->remove_listener("gpu0.shared", "open");
  for (const auto* program : {&waiting, &silent}) {
    CHECK(heard(*program) == error("closed", "gpu0.shared/open is served here no longer"));
    CHECK(heard(*program) == "(end)");
  }
  CHECK(kit.desk.withdrawn == std::vector<RequestId>{1});
  CHECK(heard(beside).empty());
  // Somebody else holds the socket too: newcomers wait in its backlog, and we do not hear of them.
  const auto newcomer = connected(kit.listener.get());
  CHECK(kit.at_rest());
  kit.hall->remove_listener("gpu0.shared", "open");
  REQUIRE(kit.hall->add_listener("gpu0.shared", "open", UniqueFd(::dup(kit.listener.get()))));
  kit.turn();
  CHECK(heard(newcomer).starts_with("hello\n"));
}

TEST_CASE("a share is listened for once") {
  Kit kit;
  const auto again = kit.hall->add_listener("gpu0.shared", "open", listening());
  CHECK(again.error().message == "gpu0.shared/open is listened for already");
  kit.machine.watch_error = ENOSPC;
  const auto failed = kit.hall->add_listener("gpu1.shared", "open", listening());
  CHECK(failed.error().message == "cannot listen for gpu1.shared/open: No space left on device");
}

TEST_CASE("the end: all are told, and the desk hears nothing later") {
  Kit kit;
  const auto waiting = kit.asking("ask\ndeadline=default\n");
  const auto inside = kit.asking("ask\n");
  kit.desk.asked[1].told(granted(5));
  const auto asking = kit.asking("standing\n");
  SUBCASE("closed") {
    kit.hall->close();
    CHECK(kit.desk.withdrawn == std::vector<RequestId>{1});
    CHECK(kit.desk.closed == std::vector<share::SlotId>{5});
    CHECK(heard(asking) == error("closed", "gpu0.shared/open is served here no longer"));
  }
  SUBCASE("dropped") {
    kit.hall.reset();
    CHECK(kit.desk.withdrawn.empty());
    CHECK(kit.desk.closed.empty());
    CHECK(heard(waiting) == "(end)");
  }
  kit.desk.asked[0].told(granted(6));
  kit.desk.standings[0].second(Standing{});
  CHECK(heard(asking) == "(end)");
}

TEST_CASE("an answer after the deadline of another request is not taken for its own") {
  Kit kit;
  const auto program = kit.asking("standing\n");
  const auto late = kit.desk.standings[0].second;
  late(Standing{});
  CHECK(heard(program).starts_with("standing\n"));
  REQUIRE(say(program, "ask\n"));
  kit.turn();
  late(Standing{});
  CHECK(heard(program).empty());
  kit.desk.asked[0].told(granted(5));
  kit.desk.asked[0].told(granted(6));
  CHECK(heard(program).starts_with("granted\nslot=5\n"));
  CHECK(heard(program).empty());
}
