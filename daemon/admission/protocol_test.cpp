#include "admission/protocol.h"

#include <doctest/doctest.h>

#include <string>

#include "base/text.h"

using namespace mps;
using namespace mps::admission;
using namespace std::chrono_literals;

namespace {

Question asked(std::string_view text) {
  const auto decoded = decode(text);
  REQUIRE(std::holds_alternative<Question>(decoded));
  return std::get<Question>(decoded);
}

// "code: sentence"
std::string fault(std::string_view text) {
  const auto decoded = decode(text);
  if (!std::holds_alternative<Fault>(decoded)) return "none";
  const auto& found = std::get<Fault>(decoded);
  return std::string(to_string(found.code)) + ": " + found.sentence;
}

}  // namespace

TEST_CASE("requests") {
  CHECK(asked("ask\n") == Question(Ask{}));
  CHECK(asked("ask\ndeadline=default\n") == Question(Ask{true, std::nullopt}));
  CHECK(asked("ask\ndeadline=3600000\n") == Question(Ask{true, 3600000ms}));
  CHECK(asked("ask\ndeadline=0\n") == Question(Ask{true, 0ms}));
  CHECK(asked("standing\n") == Question(AskStanding{}));
  CHECK(asked("terminate-own\n") == Question(TerminateOwn{}));
  CHECK(asked("terminate-own\nscope=container\n") == Question(TerminateOwn{}));
  CHECK(asked("terminate-own\nscope=descendants\n") == Question(TerminateOwn{Scope::descendants}));
  for (const std::string text :
       {"ask\n", "ask\ndeadline=default\n", "ask\ndeadline=12\n", "standing\n", "terminate-own\n",
        "terminate-own\nscope=descendants\n"}) {
    CHECK(encode(asked(text)) == text);
  }
}

TEST_CASE("what is no request, word for word") {
  CHECK(fault("") == "bad_message: the message is empty");
  CHECK(fault("ask") == "bad_message: the last line has no end");
  CHECK(fault("\n") == "bad_message: line 1 is not a kind of message");
  CHECK(fault(std::string("as\0k\n", 5)) == "bad_message: line 1 is not a kind of message");
  CHECK(fault("GET / HTTP/1.1\r\n\r\n") == "bad_message: line 1 is not a kind of message");
  CHECK(fault(std::string(33, 'a') + "\n") == "bad_message: line 1 is not a kind of message");
  CHECK(fault("ask\ndeadline\n") == "bad_message: line 2 is not key=value");
  CHECK(fault("ask\n\n") == "bad_message: line 2 is not key=value");
  CHECK(fault("ask\n=1\n") == "bad_message: line 2 is not key=value");
  CHECK(fault("ask\nDeadline=1\n") == "bad_message: line 2 is not key=value");
  CHECK(fault("ask\ndeadline=\xff\n") == "bad_message: line 2 is not key=value");
  CHECK(fault("ask\ndeadline=1\t\n") == "bad_message: line 2 is not key=value");
  CHECK(fault("ask\ndeadline=1\r\n") == "bad_message: line 2 is not key=value");
  CHECK(fault(std::string("ask\ndeadline=1\0\n", 16)) == "bad_message: line 2 is not key=value");
  CHECK(fault("ask\ndeadline=1\ndeadline=1\n") == "bad_message: \"deadline\" is there twice");
  CHECK(fault("ask\ncolour=red\n") == "bad_message: \"ask\" has no key \"colour\"");
  CHECK(fault("ask\ndeadline=1\ncolour=\n") == "bad_message: \"ask\" has no key \"colour\"");
  CHECK(fault("standing\ndeadline=1\n") == "bad_message: \"standing\" has no key \"deadline\"");
  CHECK(fault("terminate-own\npid=1\n") == "bad_message: \"terminate-own\" has no key \"pid\"");
  CHECK(fault("terminate-own\nscope=\n") ==
        "bad_message: scope must be \"container\" or \"descendants\": \"\"");
  CHECK(fault("terminate-own\nscope=node\n") ==
        "bad_message: scope must be \"container\" or \"descendants\": \"node\"");
  CHECK(fault("hello\n") == "unknown_request: unknown request \"hello\"");
  std::string lines = "ask\n";
  for (char first = 'a'; first <= 'z'; ++first) lines += std::string(1, first) + "=\n";
  for (char second = 'a'; second <= 'f'; ++second) lines += std::string("x") + second + "=\n";
  CHECK(fault(lines) == "bad_message: it has too many lines");
  CHECK(fault(std::string(513, 'a')) == "too_long: a request has at most 512 bytes");
}

TEST_CASE("what is no deadline, word for word") {
  const std::string words =
      "bad_message: deadline must be \"default\" or milliseconds of the clock in hello: ";
  for (const std::string value : {"", "-1", "+1", "1.5", "1s", " 1", "soon", "0x1",
                                  "1000000000000000000", "99999999999999999999"}) {
    CHECK(fault("ask\ndeadline=" + value + "\n") == words + "\"" + value + "\"");
  }
  CHECK(asked("ask\ndeadline=999999999999999999\n") == Question(Ask{true, 999999999999999999ms}));
}

TEST_CASE("a deadline is of the clock in hello, and bounded") {
  const auto wish = [](const Ask& ask) { return wish_of(ask, 1000ms, 24h); };
  CHECK(!wish({}).may_wait);
  CHECK(wish({true, std::nullopt}).may_wait);
  CHECK(!wish({true, std::nullopt}).wait);
  CHECK(wish({true, 1001ms}).may_wait);
  CHECK(wish({true, 1001ms}).wait == 1ms);
  CHECK(!wish({true, 1000ms}).may_wait);
  CHECK(!wish({true, 0ms}).may_wait);
  CHECK(wish({true, 999999999999999999ms}).wait == 24h);
}

TEST_CASE("what is told, word for word") {
  CHECK(encode(Hello{"gpu0.shared", "open", 123456ms, 24h}) ==
        "hello\nprotocol=1\ncapabilities=ask standing terminate-own\nagent=" MPS_VERSION
        "\ninstance=gpu0.shared\nshare=open\nclock=123456\nlongest-wait=86400000\n");
  CHECK(encode(Hello{"gpu0-mig3.shared", "s1", 1ms, 2ms, "MIG-1", "gpu0-mig3"}) ==
        "hello\nprotocol=1\ncapabilities=ask standing terminate-own\nagent=" MPS_VERSION
        "\ninstance=gpu0-mig3.shared\nshare=s1\ndevice=MIG-1\ndevice-name=gpu0-mig3\nclock=1\n"
        "longest-wait=2\n");
  share::LetIn verdict{{25.0, 10240}, 17, 3, false};
  CHECK(encode(verdict) ==
        "granted\nslot=17\nagain=no\nactive-thread-percentage=25.0\npinned-memory-mib=10240\n");
  verdict = {{12.3, std::nullopt}, 18, 3, true};
  CHECK(encode(verdict) == "granted\nslot=18\nagain=yes\nactive-thread-percentage=12.3\n");
  verdict.grant.below_normal = true;
  CHECK(encode(verdict, "MIG-1") ==
        "granted\nslot=18\nagain=yes\nactive-thread-percentage=12.3\nclient-priority=1\n"
        "visible-devices=MIG-1\n");
  CHECK(encode(share::Waits{share::not_ready("gpu0.shared", "starting")}) ==
        "waiting\ncode=not_ready\nsentence=gpu0.shared is not ready: it is starting\n");
  CHECK(encode(share::draining("gpu0.shared")) ==
        "refused\ncode=draining\nsentence=gpu0.shared takes no new clients: it is draining\n");
  CHECK(encode(Standing{"team-a", "pod web-0, container cuda", {100.0, 512}, 2, "ready"}) ==
        "standing\nnamespace=team-a\ncontainer=pod web-0, container cuda\nclients=2\n"
        "instance-state=ready\nactive-thread-percentage=100.0\npinned-memory-mib=512\nnext="
        "granted\n");
  using Kind = share::Prospect::Kind;
  Standing draining{"team-a", "pod web-0", {50.0, {}, true}, 1, "draining"};
  draining.next = {Kind::refused, share::draining("gpu0.shared")};
  CHECK(encode(draining, "GPU-1") ==
        "standing\nnamespace=team-a\ncontainer=pod web-0\nclients=1\ninstance-state=draining\n"
        "active-thread-percentage=50.0\nclient-priority=1\nvisible-devices=GPU-1\nnext=refused\n"
        "code=draining\nsentence=gpu0.shared takes no new clients: it is draining\n");
  draining.next = {Kind::waits, share::not_ready("gpu0.shared", "starting")};
  CHECK(encode(draining).ends_with(
      "\nnext=waiting\ncode=not_ready\nsentence=gpu0.shared is not ready: it is starting\n"));
  CHECK(encode(Terminated{{12, 34}, {}}) == "terminated\nasked=2\npids=12 34\nfailed=0\n");
  CHECK(encode(Terminated{{}, {"12: it has gone", "34: no answer"}}) ==
        "terminated\nasked=0\npids=\nfailed=2\nsentence=12: it has gone; 34: no answer\n");
  CHECK(encode(Fault{Trouble::too_slow, "why"}) == "error\ncode=too_slow\nsentence=why\n");
}

TEST_CASE("whatever an answer is made of, it is a message within the limits") {
  std::string odd;
  for (int i = 0; i < 5000; ++i) odd += static_cast<char>(i % 256);
  Terminated many;
  for (int i = 0; i < 1000; ++i) many.asked.push_back(2147483647);
  many.failed.assign(100, odd);
  std::string multibyte;
  for (int i = 0; i < 2000; ++i) multibyte += "é";
  for (const auto& message :
       {encode(Hello{odd, odd, 1ms, 1ms, odd, odd}),
        encode(share::Refusal{share::Code::no_policy, odd}),
        encode(share::Refusal{share::Code::no_policy, multibyte}),
        encode(Standing{odd, odd, {1, 1, true}, 1, odd, {share::Prospect::Kind::waits, {{}, odd}}},
               odd),
        encode(share::LetIn{{1, 1, true}, 1, 1, false}, odd), encode(many),
        encode(Fault{Trouble::closed, odd}),
        encode(share::Waits{{share::Code::timeout, "a\nslot=1\n"}})}) {
    CHECK(message.size() <= k_message_limit);
    CHECK(!find_odd_character(message));
    const auto parsed = parse(message);
    CHECK(parsed.has_value());
  }
  CHECK(parse(encode(share::Waits{{share::Code::timeout, "a\nslot=1\n"}}))->find("slot") ==
        std::nullopt);
  CHECK(parse(encode(many))->find("asked") == "1000");
}

TEST_CASE("each trouble has its name") {
  for (std::size_t i = 0; i < k_troubles; ++i) {
    CHECK(!std::string_view(to_string(static_cast<Trouble>(i))).empty());
  }
  CHECK(std::string_view(to_string(Trouble::closed)) == "closed");
  CHECK(std::string_view(to_string(Trouble::unanswered)) == "unanswered");
}
