#include "ask.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace mps::client;
namespace fs = std::filesystem;

namespace {

const std::string k_hello =
    "hello\nprotocol=1\ncapabilities=ask standing terminate-own\nagent=1\ninstance=gpu0.shared\n"
    "share=open\ndevice=GPU-1\ndevice-name=gpu0\nclock=5000000\nlongest-wait=86400000\n";
const std::string k_granted = "granted\nslot=1\nagain=no\nactive-thread-percentage=25.0\n";

// An agent that says what it was told to: on each connection what comes first, and then, when it
// was asked something, the rest; then it closes.
class FakeAgent {
 public:
  using Connections = std::vector<std::vector<std::string>>;

  explicit FakeAgent(Connections connections, int backlog = 8) {
    std::string name = (fs::temp_directory_path() / "mps-ask-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder_ = name;
    path = (folder_ / "admission.sock").string();
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    listener_ = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
    REQUIRE(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listener_, backlog) == 0);
    thread_ = std::thread([this, connections = std::move(connections)] {
      for (const auto& words : connections) serve(words);
    });
  }
  ~FakeAgent() {
    thread_.join();
    ::close(listener_);
    fs::remove_all(folder_);
  }
  FakeAgent(const FakeAgent&) = delete;
  FakeAgent& operator=(const FakeAgent&) = delete;

  std::vector<std::string> requests() {
    thread_.join();
    thread_ = std::thread([] {});
    return requests_;
  }

  std::string path;

 private:
  void serve(const std::vector<std::string>& words) {
    pollfd look{listener_, POLLIN, 0};
    if (::poll(&look, 1, 20'000) != 1) return;
    const int peer = ::accept(listener_, nullptr, nullptr);
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (i == 1) {
        char buffer[600];
        const auto size = ::recv(peer, buffer, sizeof buffer, 0);
        if (size > 0) requests_.emplace_back(buffer, static_cast<std::size_t>(size));
      }
      ::send(peer, words[i].data(), words[i].size(), MSG_NOSIGNAL);
    }
    ::close(peer);
  }

  fs::path folder_;
  int listener_ = -1;
  std::thread thread_;
  std::vector<std::string> requests_;
};

std::vector<std::string> waited_for;
void note_waiting(const char* sentence) {
  waited_for.emplace_back(sentence);
}

std::string described(const Answer& answer, Waited waited = Waited::no) {
  Text<1400> line;
  describe(answer, waited, line);
  return line.c_str();
}

constexpr long long k_long_ms = 20'000;

}  // namespace

TEST_CASE("granted, without waiting") {
  FakeAgent agent({{k_hello, k_granted}});
  const auto answer = ask(agent.path.c_str(), 0, nullptr);
  CHECK(answer.verdict == Verdict::granted);
  CHECK(std::string(answer.grant.percentage.c_str()) == "25.0");
  CHECK(agent.requests() == std::vector<std::string>{"ask\n"});
}

TEST_CASE("a deadline is on the agent's clock") {
  FakeAgent agent({{k_hello, k_granted}});
  CHECK(ask(agent.path.c_str(), k_long_ms, nullptr).verdict == Verdict::granted);
  const auto requests = agent.requests();
  REQUIRE(requests.size() == 1);
  REQUIRE(requests[0].starts_with("ask\ndeadline="));
  const auto deadline = std::stoll(requests[0].substr(13));
  CHECK(deadline > 5'000'000);
  CHECK(deadline <= 5'000'000 + k_long_ms);
}

TEST_CASE("waiting is told, and refused is said with what can be done") {
  waited_for.clear();
  FakeAgent agent({{k_hello, "waiting\ncode=quota_clients\nsentence=team-a has 4 of 4\n",
                    "waiting\ncode=not_ready\nsentence=it restarts\n",
                    "refused\ncode=quota_clients\nsentence=team-a has 4 of 4 clients\n"}});
  const auto answer = ask(agent.path.c_str(), k_long_ms, note_waiting);
  CHECK(answer.verdict == Verdict::refused);
  CHECK(std::string(answer.code.c_str()) == "quota_clients");
  CHECK(waited_for == std::vector<std::string>{"team-a has 4 of 4", "it restarts"});
  CHECK(described(answer) ==
        "refused (quota_clients): team-a has 4 of 4 clients; wait with --wait 60s, or end another "
        "program of yours");
  CHECK(described(answer, Waited::yes) ==
        "refused (quota_clients): team-a has 4 of 4 clients; wait longer with --wait, or end "
        "another program of yours");
  CHECK(described(answer, Waited::cannot) ==
        "refused (quota_clients): team-a has 4 of 4 clients; end another program of yours");
}

TEST_CASE("a code that is not known is a refusal all the same") {
  FakeAgent agent({{k_hello, "refused\ncode=full_moon\nsentence=not today\x1b[1m\n"}});
  CHECK(described(ask(agent.path.c_str(), 0, nullptr)) == "refused (full_moon): not today?[1m");
}

TEST_CASE("while the agent is away it is tried again, until the deadline") {
  FakeAgent agent({{},
                   {k_hello},
                   {"error\ncode=closed\nsentence=the agent ends\n"},
                   {k_hello, "error\ncode=unanswered\nsentence=stuck\n"},
                   {k_hello, k_granted}});
  CHECK(ask(agent.path.c_str(), k_long_ms, nullptr).verdict == Verdict::granted);
}

TEST_CASE("who does not wait is told that nobody is there") {
  {
    FakeAgent agent(FakeAgent::Connections{{}});
    const auto answer = ask(agent.path.c_str(), 0, nullptr);
    CHECK(answer.verdict == Verdict::away);
    CHECK(described(answer) ==
          "mps-supervisor does not answer: no greeting: Connection reset by peer; wait with "
          "--wait 60s");
  }
  const auto answer = ask("/nowhere/admission.sock", 0, nullptr);
  CHECK(answer.verdict == Verdict::away);
  CHECK(described(answer) ==
        "mps-supervisor does not answer: /nowhere/admission.sock: No such file or directory; wait "
        "with --wait 60s");
}

TEST_CASE("what does not speak this protocol is not asked again") {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{"greeting!"}, "what answers is not mps-supervisor"},
      {{std::string(5000, 'a')}, "what answers is not mps-supervisor"},
      {{"hello\nprotocol=2\n"}, "mps-supervisor speaks another protocol than this program"},
      {{"granted\n"}, "mps-supervisor speaks another protocol than this program"},
      {{k_hello, "granted\n"}, "mps-supervisor's answer is not understood"},
      {{k_hello, "maybe\n"}, "mps-supervisor's answer is not understood"},
      {{k_hello, "error\ncode=bad_message\nsentence=that is no request\n"}, "that is no request"}};
  for (const auto& one : cases) {
    CAPTURE(one.second);
    FakeAgent agent({one.first});
    const auto answer = ask(agent.path.c_str(), k_long_ms, nullptr);
    CHECK(answer.verdict == Verdict::broken);
    CHECK(described(answer) == one.second);
  }
}

TEST_CASE("a path that is too long is said, and not tried again") {
  const std::string path = "/" + std::string(120, 'd') + "/admission.sock";
  const auto answer = ask(path.c_str(), k_long_ms, nullptr);
  CHECK(answer.verdict == Verdict::broken);
  CHECK(answer.error == ENAMETOOLONG);
}

TEST_CASE("a look takes no place") {
  const std::string standing =
      "standing\nnamespace=team-a\nclients=1\nactive-thread-percentage=25.0\n"
      "pinned-memory-mib=512\n";
  const auto look_at = [&](const std::string& rest) {
    FakeAgent agent({{k_hello, standing + rest}});
    const auto answer = look(agent.path.c_str(), now_ms() + k_long_ms);
    CHECK(agent.requests() == std::vector<std::string>{"standing\n"});
    return answer;
  };
  CHECK(look_at("next=granted\n").verdict == Verdict::granted);
  CHECK(look_at("next=granted\n").grant.memory_mib == 512);
  const auto waiting = look_at("next=waiting\ncode=quota_clients\nsentence=full\n");
  CHECK(waiting.verdict == Verdict::waiting);
  CHECK(waiting.grant.memory_mib == 512);
  const auto refused = look_at("next=refused\ncode=draining\nsentence=it drains\n");
  CHECK(refused.verdict == Verdict::refused);
  CHECK(described(refused) ==
        "refused (draining): it drains; take another device, or ask this node's operators");
  // An agent that does not say what comes next has not refused.
  CHECK(look_at("").verdict == Verdict::granted);
}

TEST_CASE("an agent says who it is") {
  FakeAgent agent({{k_hello}});
  Connection connection;
  Agent who;
  CHECK(meet(connection, agent.path.c_str(), now_ms() + k_long_ms, who).verdict ==
        Verdict::granted);
  CHECK(std::string(who.instance.c_str()) == "gpu0.shared");
  CHECK(std::string(who.device_name.c_str()) == "gpu0");
  CHECK(who.clock == 5'000'000);
  CHECK(connection.descriptor() > 2);
}

TEST_CASE("a full backlog is waited for, until the deadline") {
  FakeAgent agent({{k_hello}}, 0);
  Connection first;
  Connection second;
  Connection third;
  Message message;
  REQUIRE(first.dial(agent.path.c_str(), now_ms() + k_long_ms) == 0);
  REQUIRE(first.hear(message, now_ms() + k_long_ms) == 0);
  REQUIRE(second.dial(agent.path.c_str(), now_ms() + k_long_ms) == 0);
  CHECK(third.dial(agent.path.c_str(), now_ms()) == ETIMEDOUT);
  CHECK(third.descriptor() == -1);
}
