// The door, met by peers that do what CUDA does: a probe that reads the greeting and closes, then
// a connection that speaks.
#include "instance/door.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/unique_fd.h"

using namespace mps;
using namespace mps::instance;
namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

struct Fixture {
  Fixture() {
    std::string name = "/tmp/mps-door-XXXXXX";
    root = ::mkdtemp(name.data());
    folder = root / "open";
    staging = root / "private";
    fs::create_directory(folder);
    fs::create_directory(staging);
  }
  ~Fixture() { fs::remove_all(root); }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  // Runs what is ready, until the condition holds.
  template <typename Condition>
  bool until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      io.run_for(std::chrono::milliseconds{1});
      io.restart();
    }
    return true;
  }

  asio::io_context io;
  fs::path root;
  fs::path folder;
  fs::path staging;
};

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

sockaddr_un address_of(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  return address;
}

UniqueFd listen_at(const fs::path& path) {
  auto made = make_socket();
  const auto address = address_of(path);
  REQUIRE(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(::listen(made.get(), 16) == 0);
  return made;
}

UniqueFd connect_to(const fs::path& path) {
  auto made = make_socket();
  const auto address = address_of(path);
  REQUIRE(::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return made;
}

bool readable(const UniqueFd& socket) {
  pollfd watched{socket.get(), POLLIN, 0};
  return ::poll(&watched, 1, 0) == 1;
}

std::string receive(const UniqueFd& socket) {
  std::array<char, 64> bytes{};
  const auto got = ::recv(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  return got < 0 ? "(error)" : std::string(bytes.data(), static_cast<std::size_t>(got));
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "an open door is the daemon's own socket") {
  const auto daemon = listen_at(folder / "daemon");
  Door door(io.get_executor(), folder, staging);
  CHECK_FALSE(door.leads_to(folder / "daemon"));
  CHECK(door.open(folder / "daemon").value());
  CHECK_FALSE(door.open(folder / "daemon").value());  // twice is once
  CHECK(door.leads_to(folder / "daemon"));
  const auto peer = connect_to(folder / "control");
  CHECK(::accept(daemon.get(), nullptr, nullptr) >= 0);
  CHECK(fs::is_empty(staging));
}

TEST_CASE_FIXTURE(Fixture, "a closed door greets, listens, and only then closes") {
  Door door(io.get_executor(), folder, staging);
  door.greeting("greeting!");
  REQUIRE(door.close().has_value());
  struct stat socket {};
  REQUIRE(::stat((folder / "control").c_str(), &socket) == 0);
  CHECK((socket.st_mode & 0777) == 0666);

  auto probe = connect_to(folder / "control");
  REQUIRE(until([&] { return readable(probe); }));
  CHECK(receive(probe) == "greeting!");
  probe.reset();

  const auto client = connect_to(folder / "control");
  REQUIRE(until([&] { return readable(client); }));
  CHECK(receive(client) == "greeting!");
  io.run_for(std::chrono::milliseconds{5});
  CHECK_FALSE(readable(client));  // still open: it has not spoken
  REQUIRE(::send(client.get(), "opening", 7, MSG_NOSIGNAL) == 7);
  io.restart();
  REQUIRE(until([&] { return readable(client); }));
  CHECK(receive(client).empty());  // closed
}

TEST_CASE_FIXTURE(Fixture, "without a greeting nobody is answered, and nobody is turned away") {
  Door door(io.get_executor(), folder, staging);
  REQUIRE(door.close().has_value());
  const auto peer = connect_to(folder / "control");
  io.run_for(std::chrono::milliseconds{5});
  io.restart();
  CHECK_FALSE(readable(peer));
  door.greeting("late");
  REQUIRE(until([&] { return readable(peer); }));
  CHECK(receive(peer) == "late");
}

TEST_CASE_FIXTURE(Fixture, "those who wait when the door opens are refused, not dropped") {
  const auto daemon = listen_at(folder / "daemon");
  Door door(io.get_executor(), folder, staging);
  REQUIRE(door.close().has_value());
  const auto waiting = connect_to(folder / "control");
  door.greeting("hello");
  REQUIRE(door.open(folder / "daemon").has_value());
  REQUIRE(until([&] { return readable(waiting); }));
  CHECK(receive(waiting) == "hello");
  CHECK(::send(waiting.get(), "opening", 7, MSG_NOSIGNAL) == 7);
  REQUIRE(until([&] { return readable(waiting); }));
  CHECK(receive(waiting).empty());
}

TEST_CASE_FIXTURE(Fixture, "silent peers are bounded, never closed, and keep nobody from waiting") {
  Door door(io.get_executor(), folder, staging);
  door.greeting("hello");
  REQUIRE(door.close().has_value());
  std::vector<UniqueFd> silent;
  for (std::size_t i = 0; i < Door::k_peers; ++i) silent.push_back(connect_to(folder / "control"));
  for (const auto& peer : silent) {
    REQUIRE(until([&] { return readable(peer); }));
    CHECK(receive(peer) == "hello");
  }
  const auto next = connect_to(folder / "control");
  io.run_for(std::chrono::milliseconds{5});
  io.restart();
  CHECK_FALSE(readable(next));
  silent.pop_back();
  REQUIRE(until([&] { return readable(next); }));
  CHECK(receive(next) == "hello");
}

TEST_CASE_FIXTURE(Fixture, "what cannot be linked or bound says so") {
  Door door(io.get_executor(), folder, staging);
  const auto opened = door.open(folder / "nobody");
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().message == "cannot link " + (folder / "nobody").string() + " to " +
                                      (staging / "control.new").string() +
                                      ": No such file or directory");
  const fs::path long_folder = root / std::string(90, 'x');
  fs::create_directory(long_folder);
  Door cramped(io.get_executor(), folder, long_folder);
  const auto closed = cramped.close();
  REQUIRE_FALSE(closed.has_value());
  CHECK(closed.error().message ==
        (long_folder / "control.new").string() + " is too long for a socket address (" +
            std::to_string((long_folder / "control.new").native().size()) +
            " of at most 107 bytes): use a shorter runDir");
}

TEST_CASE_FIXTURE(Fixture, "what uid 0 in a container can put in the share leads nowhere") {
  const auto daemon = listen_at(root / "daemon");
  fs::create_directory(root / "elsewhere");
  Door door(io.get_executor(), folder, staging);
  SUBCASE("a directory in the socket's place is replaced") {
    fs::create_directory(folder / "control");
    CHECK(door.open(root / "daemon").value());
    CHECK(door.leads_to(root / "daemon"));
  }
  SUBCASE("a link in the socket's place is replaced, not followed") {
    fs::create_symlink(root / "elsewhere", folder / "control");
    CHECK(door.open(root / "daemon").value());
    CHECK(door.leads_to(root / "daemon"));
    CHECK(fs::is_empty(root / "elsewhere"));
  }
  SUBCASE("a link in the directory's place is an error") {
    fs::remove(folder);
    fs::create_directory_symlink(root / "elsewhere", folder);
    const auto opened = door.open(root / "daemon");
    REQUIRE_FALSE(opened.has_value());
    CHECK(opened.error().message == "cannot open " + folder.string() + ": Not a directory");
    CHECK(fs::is_empty(root / "elsewhere"));
  }
}

TEST_CASE_FIXTURE(Fixture, "the daemon's greeting is asked for, within a deadline") {
  const auto daemon = listen_at(folder / "daemon");
  Result<std::string> answer = Error{"none"};
  bool done = false;
  const auto ask = [&](std::chrono::milliseconds deadline) {
    done = false;
    asio::co_spawn(io, ask_greeting(folder / "daemon", deadline),
                   [&](const std::exception_ptr&, const Result<std::string>& got) {
                     answer = got;
                     done = true;
                   });
  };
  ask(std::chrono::minutes{1});
  UniqueFd accepted;
  REQUIRE(until([&] {
    accepted.reset(::accept(daemon.get(), nullptr, nullptr));
    return static_cast<bool>(accepted);
  }));
  ::send(accepted.get(), "greeting!", 9, MSG_NOSIGNAL);
  REQUIRE(until([&] { return done; }));
  CHECK(answer.value() == "greeting!");

  ask(std::chrono::milliseconds{20});  // a daemon that says nothing
  REQUIRE(until([&] { return done; }));
  CHECK(answer.error().message == "no greeting from " + (folder / "daemon").string());
}

TEST_CASE_FIXTURE(Fixture, "a greeting is waited for, however late, while it is wanted") {
  const auto daemon = listen_at(folder / "daemon");
  bool wanted = true;
  std::string said;
  std::vector<std::string> failed;
  bool over = false;
  AwaitedGreeting greeting{folder / "daemon", [&] { return wanted; },
                           [&](std::string bytes) { said = std::move(bytes); },
                           [&](const Error& error) { failed.push_back(error.message); },
                           std::chrono::milliseconds{20}};
  const auto silent = "no greeting from " + (folder / "daemon").string();
  SUBCASE("until it comes") {
    greeting.deadline = std::chrono::minutes{1};
    std::vector<UniqueFd> peers;
    const auto takes_one = [&] {
      UniqueFd peer(::accept(daemon.get(), nullptr, nullptr));
      if (peer) peers.push_back(std::move(peer));
      return !peers.empty();
    };
    asio::co_spawn(io, await_greeting(greeting), [&](const std::exception_ptr&) { over = true; });
    REQUIRE(until(takes_one));
    peers.clear();  // it hangs up on the first
    REQUIRE(until(takes_one));
    CHECK(failed == std::vector{silent});
    ::send(peers[0].get(), "greeting!", 9, MSG_NOSIGNAL);
    REQUIRE(until([&] { return over; }));
    CHECK(said == "greeting!");
  }
  SUBCASE("until nobody wants it") {
    asio::co_spawn(io, await_greeting(greeting), [&](const std::exception_ptr&) { over = true; });
    REQUIRE(until([&] { return failed.size() >= 2; }));
    CHECK(failed[1] == silent);
    wanted = false;
    REQUIRE(until([&] { return over; }));
    CHECK(said.empty());
  }
}
