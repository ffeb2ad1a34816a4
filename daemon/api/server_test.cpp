#include "api/server.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <fstream>

#include "api/test_support.h"

using namespace mps::api;
using mps::api::test::Reactor;
using mps::api::test::Socket;
using mps::api::test::TempDir;
using mps::api::test::wait_until;

namespace {

constexpr const char* k_get = "GET /v1/instances/x HTTP/1.1\r\nHost: x\r\n\r\n";

// A whole response; its length is counted here.
std::string response(const std::string& head, const std::string& body) {
  return "HTTP/1.1 " + head + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

std::string not_found() {
  return response("404 Not Found\r\nContent-Type: application/json",
                  R"({"error":{"code":"not_found","message":"no instance \"x\""}})");
}

HttpLimits quick() {
  HttpLimits limits;
  limits.read_deadline = std::chrono::milliseconds(300);
  limits.heartbeat = std::chrono::milliseconds(50);
  limits.connections = 4;
  limits.streams = 2;
  return limits;
}

struct Fixture {
  explicit Fixture(HttpLimits limits = {}) {
    log = std::move(EventLog::open({directory.path(), 16, 1 << 20}).value());
    ServerSettings settings{path, std::nullopt, limits};
    auto opened =
        reactor.run([&] { return Server::open(reactor.executor(), settings, agent, *log); });
    REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
    server = std::move(*opened);
  }
  ~Fixture() {
    reactor.run([this] { server.reset(); });
    reactor.finish();
  }
  void append(const std::string& kind, const std::string& message = "") {
    reactor.run([&] { log->append(test::event(kind, message)); });
  }
  std::size_t connections() {
    return reactor.run([this] { return server->connections(); });
  }

  TempDir directory;
  std::filesystem::path path = directory.path() / "s.sock";
  mps::api::test::FakeAgent agent;
  std::unique_ptr<EventLog> log;
  Reactor reactor;
  std::unique_ptr<Server> server;
};

struct QuickFixture : Fixture {
  QuickFixture() : Fixture(quick()) {}
};

// None of its connections ends by itself, and each may be a stream.
struct CrowdedFixture : Fixture {
  explicit CrowdedFixture(std::size_t streams = 4) : Fixture(crowded(streams)) {}
  static HttpLimits crowded(std::size_t streams) {
    auto limits = quick();
    limits.read_deadline = test::k_deadline * 2;
    limits.streams = streams;
    return limits;
  }
};

struct TwoStreamsFixture : CrowdedFixture {
  TwoStreamsFixture() : CrowdedFixture(2) {}
};

std::string error_response(const std::string& head, const std::string& code,
                           const std::string& message) {
  return response(head + "\r\nContent-Type: application/json\r\nConnection: close",
                  R"({"error":{"code":")" + code + R"(","message":")" + message + R"("}})");
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a connection serves many requests") {
  Socket peer(path);
  REQUIRE(peer.connected());
  for (int i = 0; i < 3; ++i) {
    peer.send(k_get);
    CHECK(peer.receive("}}") == not_found());
  }
  peer.send("GET /v1/clients?instance=gpu0.shared HTTP/1.1\r\nConnection: close\r\n\r\n");
  CHECK(peer.receive() ==
        response("200 OK\r\nContent-Type: application/json\r\nConnection: close",
                 R"([{"admission":null,"adopted":false,"command":"train","connected":true,)"
                 R"("container":null,"description":null,"instance":"gpu0.shared","limits":null,)"
                 R"("namespace":null,"pid":100,"share":null,"since":"2026-11-20T10:00:01.000Z",)"
                 R"("uid":1000}])"));
}

TEST_CASE_FIXTURE(Fixture, "two requests at once, and a peer that has nothing more to say") {
  Socket peer(path);
  peer.send(std::string(k_get) + k_get);
  peer.end_of_requests();
  CHECK(peer.receive() == not_found() + not_found());
}

TEST_CASE_FIXTURE(Fixture, "a verb, with its peer known") {
  Socket peer(path);
  peer.send(
      "POST /v1/instances/gpu0.shared:restart HTTP/1.1\r\nContent-Length: 14\r\n\r\n"
      R"({"force":true})");
  CHECK(peer.receive("}") ==
        response("202 Accepted\r\nContent-Type: application/json",
                 R"({"instance":"gpu0.shared","message":"restart gpu0.shared force: accepted"})"));
  CHECK(reactor.run([this] { return agent.calls_; }) ==
        std::vector<std::string>{"restart gpu0.shared force"});
}

TEST_CASE_FIXTURE(Fixture, "an agent that throws is an answer, not an end") {
  reactor.run([this] { agent.broken_ = true; });
  Socket peer(path);
  peer.send("POST /v1/instances/gpu0.shared:drain HTTP/1.1\r\n\r\n");
  CHECK(peer.receive("}}") ==
        response("500 Internal Server Error\r\nContent-Type: application/json",
                 R"({"error":{"code":"internal","message":"broken"}})"));
  peer.send(k_get);
  CHECK(peer.receive("}}") == not_found());
}

TEST_CASE_FIXTURE(Fixture, "methods that are not there are named with those that are") {
  Socket peer(path);
  peer.send("PUT /v1/status HTTP/1.1\r\n\r\n");
  CHECK(
      peer.receive("}}") ==
      response(
          "405 Method Not Allowed\r\nContent-Type: application/json\r\nAllow: GET",
          R"({"error":{"code":"method_not_allowed","message":"PUT is not for /v1/status, use GET"}})"));
}

TEST_CASE_FIXTURE(CrowdedFixture, "hostile requests get an error") {
  {
    Socket peer(path);
    peer.send("rubbish\r\n\r\n");
    CHECK(peer.receive() ==
          error_response("400 Bad Request", "bad_request", "not an HTTP request: bad method"));
  }
  {
    Socket peer(path);
    peer.send("GET / HTTP/1.1\r\nX: " + std::string(1024 * 1024, 'x') + "\r\n\r\n");
    CHECK(peer.receive() == error_response("431 Request Header Fields Too Large",
                                           "header_too_large",
                                           "the request's header is too large"));
  }
  {
    Socket peer(path);
    peer.send("POST / HTTP/1.1\r\nContent-Length: 70000\r\n\r\n" + std::string(70000, 'x'));
    CHECK(peer.receive() == error_response("413 Payload Too Large", "body_too_large",
                                           "the request's body is too large"));
  }
  {
    Socket peer(path);
    peer.send("GET /a?b=%zz HTTP/1.1\r\nConnection: close\r\n\r\n");
    CHECK(peer.receive() ==
          error_response("400 Bad Request", "bad_request", "not a path that can be read"));
  }
}

TEST_CASE_FIXTURE(QuickFixture, "who does not say all of a request in time gets an end") {
  {
    Socket half(path);
    half.send("GET / HT");
    CHECK(half.receive() == "");
  }
  {
    Socket silent(path);
    CHECK(silent.receive() == "");
  }
  Socket gone(path);
  gone.send("GET / HT");
  gone.close();
  CHECK(wait_until([this] { return connections() == 0; }));
}

TEST_CASE_FIXTURE(CrowdedFixture, "connections that say nothing make room for others") {
  Socket served(path);
  served.send(k_get);
  CHECK(served.receive("}}") == not_found());
  Socket first(path);
  Socket second(path);
  second.send("GET /");
  Socket third(path);
  REQUIRE(wait_until([this] { return connections() == 4; }));
  Socket fourth(path);
  CHECK(first.receive() == "");
  fourth.send(k_get);
  CHECK(fourth.receive("}}") == not_found());
  Socket fifth(path);
  CHECK(second.receive() == "");
  Socket sixth(path);
  CHECK(third.receive() == "");
  CHECK(connections() == 4);
  served.send(k_get);
  CHECK(served.receive("}}") == not_found());
  for (auto* peer : {&fifth, &sixth}) {
    peer->send(k_get);
    CHECK(peer->receive("}}") == not_found());
  }
  Socket seventh(path);
  CHECK(fourth.receive() == "");  // all were served once, and it waits longest
  CHECK(connections() == 4);
}

TEST_CASE_FIXTURE(Fixture, "HEAD is answered without a body, and the connection goes on") {
  Socket peer(path);
  peer.send("HEAD /v1/status HTTP/1.1\r\n\r\n" + std::string(k_get));
  const std::string body =
      R"({"error":{"code":"method_not_allowed","message":"HEAD is not for /v1/status, use GET"}})";
  CHECK(peer.receive("}}") ==
        "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: application/json\r\nAllow: GET\r\n"
        "Content-Length: " +
            std::to_string(body.size()) + "\r\n\r\n" + not_found());
}

TEST_CASE("a listener that cannot be made closes its socket") {
  boost::asio::io_context io;
  mps::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int number = socket.get();
  // Known to the reactor already, it is refused there.
  boost::asio::posix::stream_descriptor other(io, number);
  CHECK_THROWS_AS(HttpListener(io.get_executor(), std::move(socket), AF_UNIX, {}, nullptr),
                  boost::system::system_error);
  CHECK(::fcntl(number, F_GETFD) == -1);
  other.release();
}

TEST_CASE_FIXTURE(CrowdedFixture,
                  "too many connections are told so, and those that stay are served") {
  std::vector<std::unique_ptr<Socket>> peers;
  for (int i = 0; i < 4; ++i) {
    peers.push_back(std::make_unique<Socket>(path));
    peers.back()->send("GET /v1/events?follow=1 HTTP/1.1\r\n\r\n");
    peers.back()->receive("\r\n\r\n");
  }
  Socket further(path);
  CHECK(further.receive() == error_response("503 Service Unavailable", "too_many_connections",
                                            "too many connections, try again"));
  std::vector<std::unique_ptr<Socket>> crowd;
  crowd.reserve(100);
  for (int i = 0; i < 100; ++i) crowd.push_back(std::make_unique<Socket>(path));
  crowd.clear();
  peers.clear();
  CHECK(wait_until([this] {
    Socket late(path);
    late.send(k_get);
    return late.receive("}}") == not_found();
  }));
}

TEST_CASE_FIXTURE(Fixture, "events are followed as chunks of lines") {
  append("first", "before");
  Socket peer(path);
  peer.send("GET /v1/events?follow=1&since=0 HTTP/1.1\r\n\r\n");
  const std::string first =
      R"({"data":{},"id":1,"instance":"gpu0.shared","kind":"first","message":"before",)"
      R"("time":"2026-11-20T10:00:00.000Z"})"
      "\n\r\n";
  CHECK(peer.receive(first) ==
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n"
        "Transfer-Encoding: chunked\r\n\r\n70\r\n" +
            first);
  append("second");
  CHECK(peer.receive("\n\r\n").find(R"("id":2)") != std::string::npos);
  reactor.run([this] { server->stop(); });
  CHECK(peer.receive() == "0\r\n\r\n");
}

TEST_CASE_FIXTURE(QuickFixture,
                  "a stream with nothing to say shows that it lives, and half-closers hear it") {
  Socket peer(path);
  peer.send("GET /v1/events?follow=1 HTTP/1.1\r\n\r\n");
  peer.end_of_requests();
  CHECK(peer.receive("1\r\n\n\r\n1\r\n\n\r\n").ends_with("1\r\n\n\r\n1\r\n\n\r\n"));
}

TEST_CASE_FIXTURE(Fixture, "a follower that goes away is noticed at once") {
  Socket peer(path);
  peer.send("GET /v1/events?follow=1 HTTP/1.1\r\n\r\n");
  peer.receive("\r\n\r\n");
  CHECK(connections() == 1);
  peer.close();
  CHECK(wait_until([this] { return connections() == 0; }));
  append("after");
}

TEST_CASE_FIXTURE(Fixture, "a reply that takes a while") {
  reactor.run([this] { agent.holds_ = true; });
  Socket peer(path);
  peer.send("POST /v1/clients/100:terminate HTTP/1.1\r\nContent-Length: 0\r\n\r\n" +
            std::string(k_get));
  const auto asked = [this] { return reactor.run([this] { return agent.told_.size(); }); };
  REQUIRE(wait_until([&] { return asked() == 1; }));
  reactor.run([this] { agent.told_[0](std::string("done")); });
  const auto said = peer.receive("no instance");  // the next request is served after it
  CHECK(said.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(said.find(R"({"message":"done","pid":100})") != std::string::npos);
  SUBCASE("its peer may have gone") {
    Socket other(path);
    other.send("POST /v1/clients/100:terminate HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    REQUIRE(wait_until([&] { return asked() == 2; }));
    other.close();
    reactor.run([this] { agent.told_[1](std::string("done")); });
  }
  SUBCASE("or the server") {
    Socket other(path);
    other.send("POST /v1/clients/100:terminate HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    REQUIRE(wait_until([&] { return asked() == 2; }));
    reactor.run([this] { server->stop(); });
    CHECK(other.receive().find("the supervisor is ending") != std::string::npos);
    reactor.run([this] { agent.told_[1](std::string("done")); });
  }
}

TEST_CASE("a reply that does not come") {
  auto limits = quick();
  limits.later_deadline = std::chrono::milliseconds(20);
  Fixture fixture(limits);
  fixture.reactor.run([&fixture] { fixture.agent.holds_ = true; });
  Socket peer(fixture.path);
  peer.send("POST /v1/clients/100:terminate HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
  CHECK(peer.receive("no answer in time").starts_with("HTTP/1.1 504 "));
}

TEST_CASE_FIXTURE(TwoStreamsFixture, "streams are bounded, and need HTTP/1.1") {
  Socket one(path);
  Socket two(path);
  for (auto* peer : {&one, &two}) {
    peer->send("GET /v1/events?follow=1 HTTP/1.1\r\n\r\n");
    REQUIRE(peer->receive("\r\n\r\n").starts_with("HTTP/1.1 200 "));
  }
  Socket three(path);
  three.send("GET /v1/events?follow=1 HTTP/1.1\r\nConnection: close\r\n\r\n");
  CHECK(three.receive() == error_response("503 Service Unavailable", "too_many_streams",
                                          "too many streams, try again"));
  Socket old(path);
  old.send("GET /v1/events?follow=1 HTTP/1.0\r\n\r\n");
  CHECK(old.receive().find("a stream needs HTTP/1.1") != std::string::npos);
}

TEST_CASE("a follower that does not read is ended by its write deadline") {
  auto limits = quick();
  limits.write_deadline = std::chrono::milliseconds(200);
  Fixture fixture(limits);
  Socket peer(fixture.path);
  peer.send("GET /v1/events?follow=1 HTTP/1.1\r\n\r\n");
  REQUIRE(wait_until([&] { return fixture.connections() == 1; }));
  const std::string big(1000, 'x');
  CHECK(wait_until([&] {
    for (int i = 0; i < 16; ++i) fixture.append("flood", big);
    return fixture.connections() == 0;
  }));
}

TEST_CASE("a stopped server is gone with its socket, whatever its peers do") {
  TempDir directory;
  mps::api::test::FakeAgent agent;
  auto log = std::move(EventLog::open({directory.path(), 16, 1 << 20}).value());
  const auto path = directory.path() / "s.sock";
  Reactor reactor;
  auto server = std::move(
      reactor.run([&] {
               return Server::open(reactor.executor(), {path, {}, {}}, agent, *log);
             })
          .value());
  Socket silent(path);
  Socket half(path);
  half.send("GET / HT");
  Socket follower(path);
  follower.send("GET /v1/events?follow=1 HTTP/1.1\r\n\r\n");
  follower.receive("\r\n\r\n");
  reactor.run([&] {
    server.reset();
    log.reset();  // nothing may touch it now
  });
  reactor.finish();
  CHECK(silent.receive() == "");
  CHECK(half.receive() == "");
  CHECK(follower.receive() == "0\r\n\r\n");
  CHECK(!std::filesystem::exists(path));
}

TEST_CASE("the socket's file: mode, stale ones, successors, errors") {
  TempDir directory;
  mps::api::test::FakeAgent agent;
  auto log = std::move(EventLog::open({directory.path(), 16, 1 << 20}).value());
  Reactor reactor;
  const auto path = directory.path() / "s.sock";
  const auto open = [&](const std::filesystem::path& at) {
    return reactor.run([&] {
      return Server::open(reactor.executor(), {at, getegid(), {}}, agent, *log);
    });
  };
  std::ofstream(path) << "stale";
  std::ofstream(path.string() + ".new") << "stale";
  auto first = std::move(open(path).value());
  struct ::stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0660U);
  CHECK(S_ISSOCK(status.st_mode));
  auto second = std::move(open(path).value());
  reactor.run([&] { first.reset(); });
  CHECK(std::filesystem::exists(path));  // the successor's
  reactor.run([&] { second.reset(); });
  CHECK(!std::filesystem::exists(path));

  const auto nowhere = open("/nonexistent/s.sock");
  REQUIRE(!nowhere);
  CHECK(nowhere.error().message == "bind /nonexistent/s.sock.new: No such file or directory");
  const auto far = open("/" + std::string(104, 'x'));
  REQUIRE(!far);
  CHECK(far.error().message == "socket path /" + std::string(104, 'x') +
                                   " is too long: 105 bytes, at most 103; choose a shorter run "
                                   "directory");
}
