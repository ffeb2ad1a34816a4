// On a real clock, with a reactor, and with the client that docs/admission-protocol.md shows.
#include "admission/server.h"

#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "admission/hall_kit.h"

using namespace mps;
using namespace mps::admission;
using namespace mps::admission::testing;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

struct Office {
  explicit Office(Limits limits = {})
      : server(std::in_place, io.get_executor(), desk, limits), listener(listening()) {
    REQUIRE(server->start());
    REQUIRE(server->add_listener("gpu0.shared", "open", UniqueFd(::dup(listener.get()))));
  }
  template <typename Predicate>
  void until(Predicate done) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (!done()) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      io.restart();
      io.run_one_for(50ms);
    }
  }
  std::string next(const UniqueFd& program) {
    std::string got;
    until([&] { return !(got = heard(program)).empty(); });
    return got;
  }

  boost::asio::io_context io;
  FakeDesk desk;
  std::optional<AdmissionServer> server;
  UniqueFd listener;
};

// What a command prints, both of its streams, and its status.
struct Outcome {
  std::string text;
  int status = -1;
};

Outcome run(const std::string& command) {
  Outcome outcome;
  auto* pipe = ::popen((command + " 2>&1").c_str(), "re");
  if (pipe == nullptr) return outcome;
  std::array<char, 256> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) outcome.text += part.data();
  outcome.status = WEXITSTATUS(::pclose(pipe));
  return outcome;
}

class Folder {
 public:
  Folder() {
    std::string pattern = "/tmp/mps-admission-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

UniqueFd listening_at(const std::string& path) {
  UniqueFd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(::listen(made.get(), 64) == 0);
  return made;
}

// The program of the page, as a reader would copy it.
std::string build_client(const Folder& folder) {
  std::ifstream page(MPS_ADMISSION_PAGE);
  const std::string text{std::istreambuf_iterator<char>(page), std::istreambuf_iterator<char>()};
  const std::string begins = "\n```c\n";
  const auto first = text.find(begins);
  REQUIRE(first != std::string::npos);
  const auto from = first + begins.size();
  std::ofstream(folder.path() + "/mps-ask.c")
      << text.substr(from, text.find("\n```\n", from) - from) << '\n';
  auto program = folder.path() + "/mps-ask";
  const auto built =
      run("cc -std=c99 -Wall -Wextra -Werror -O2 -o " + program + " " + program + ".c");
  CHECK(built.text == "");
  REQUIRE(built.status == 0);
  return program;
}

}  // namespace

TEST_CASE("a reactor, a request, its answer, and the end") {
  Office office;
  const auto program = connected(office.listener.get());
  CHECK(office.next(program).starts_with("hello\n"));
  REQUIRE(say(program, "ask\n"));
  office.until([&] { return office.desk.asked.size() == 1; });
  CHECK(office.server->connections() == 1);
  office.desk.asked[0].told(granted(5));
  CHECK(office.next(program).starts_with("granted\nslot=5\n"));
  office.server->stop();
  CHECK(office.next(program) == error("closed", "gpu0.shared/open is served here no longer"));
  CHECK(office.desk.closed == std::vector<share::SlotId>{5});
  CHECK(office.server->connections() == 0);
  CHECK(office.server->counts().accepted == 0);
  CHECK(office.server->add_listener("a", "b", listening()).error().message ==
        "the admission server was stopped");
  office.io.restart();
  office.io.run();  // and nothing is left that keeps a reactor busy
}

TEST_CASE("deadlines come by themselves") {
  Limits limits;
  limits.silence = 20ms;
  Office office(limits);
  const auto silent = connected(office.listener.get());
  CHECK(office.next(silent).starts_with("hello\n"));
  CHECK(office.next(silent) == error("too_slow", "nothing was asked for 20ms"));
}

TEST_CASE("also those that an answer sets") {
  Limits limits;
  limits.silence = 2s;  // within which the question is to be heard
  Office office(limits);
  const auto refused = connected(office.listener.get());
  REQUIRE(say(refused, "ask\n"));
  CHECK(office.next(refused).starts_with("hello\n"));
  office.until([&] { return office.desk.asked.size() == 1; });
  office.desk.asked[0].told(share::Refused{share::draining("gpu0.shared")});
  CHECK(office.next(refused).starts_with("refused\n"));
  CHECK(office.next(refused) == error("too_slow", "nothing was asked for 2s"));
}

TEST_CASE("more than one turn hears is heard all the same") {
  Office office;
  std::vector<UniqueFd> programs;
  for (int i = 0; i < 200; ++i) {
    programs.push_back(connected(office.listener.get()));
    REQUIRE(say(programs.back(), "standing\n"));
    if (i % 50 == 49) {
      office.until([&] { return office.desk.standings.size() == programs.size(); });
    }
  }
  office.server.reset();
  CHECK(heard(programs[0]).starts_with("hello\n"));
  CHECK(heard(programs[0]) == "(end)");
  office.io.restart();
  office.io.run();
}

TEST_CASE("the client of the page") {
  const Folder folder;
  const auto program = build_client(folder);
  const auto socket = folder.path() + "/admission.sock";
  Office office;
  REQUIRE(office.server->add_listener("gpu1.shared", "open", listening_at(socket)));
  const auto script =
      "sh -c 'echo $CUDA_MPS_ACTIVE_THREAD_PERCENTAGE "
      "$CUDA_MPS_PINNED_DEVICE_MEM_LIMIT $$; exit 7'";
  std::optional<Outcome> outcome;
  std::thread client;
  const auto start = [&](const std::string& words) {
    client = std::thread([&, words] {
      auto done = run("env -u CUDA_MPS_PINNED_DEVICE_MEM_LIMIT " + program + " " + words);
      boost::asio::post(office.io, [&, done] { outcome = done; });
    });
  };
  SUBCASE("waits, is let in, and becomes the program, with the same pid") {
    start(socket + " 30 " + script);
    office.until([&] { return office.desk.asked.size() == 1; });
    auto& asked = office.desk.asked[0];
    REQUIRE(asked.wish.wait);
    CHECK(*asked.wish.wait > 20s);
    CHECK(*asked.wish.wait <= 30s);
    asked.told(share::Waits{share::not_ready("gpu1.shared", "starting")});
    asked.told(share::LetIn{{12.5, 2048}, 5, 1, false});
    office.until([&] { return outcome.has_value(); });
    CHECK(outcome->text ==
          "mps-ask: waiting: gpu1.shared is not ready: it is starting\n12.5 0=2048M " +
              std::to_string(asked.peer.pid) + "\n");
    CHECK(outcome->status == 7);
    office.until([&] { return !office.desk.closed.empty(); });  // at the exec
  }
  SUBCASE("without a memory limit") {
    start(socket + " 0 " + script);
    office.until([&] { return office.desk.asked.size() == 1; });
    CHECK(!office.desk.asked[0].wish.may_wait);
    office.desk.asked[0].told(granted(5));
    office.until([&] { return outcome.has_value(); });
    CHECK(outcome->text == "100.0 " + std::to_string(office.desk.asked[0].peer.pid) + "\n");
  }
  SUBCASE("is refused") {
    start(socket + " 1 " + script);
    office.until([&] { return office.desk.asked.size() == 1; });
    office.desk.asked[0].told(share::Refused{share::draining("gpu1.shared")});
    office.until([&] { return outcome.has_value(); });
    CHECK(outcome->text == "mps-ask: gpu1.shared takes no new clients: it is draining\n");
    CHECK(outcome->status == 125);
  }
  SUBCASE("the agent goes while it waits") {
    start(socket + " 1 " + script);
    office.until([&] { return office.desk.asked.size() == 1; });
    office.server->stop();
    office.until([&] { return outcome.has_value(); });
    CHECK(outcome->text == "mps-ask: gpu1.shared/open is served here no longer\n");
    CHECK(outcome->status == 125);
  }
  SUBCASE("there is no agent") {
    start(folder.path() + "/none 1 " + script);
    office.until([&] { return outcome.has_value(); });
    CHECK(outcome->text == "mps-ask: " + folder.path() + "/none: No such file or directory\n");
    CHECK(outcome->status == 125);
  }
  client.join();
}
