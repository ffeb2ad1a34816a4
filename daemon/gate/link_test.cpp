// The supervisor's end together with the real program.
#include "gate/link.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>

using namespace mps;
using namespace mps::gate;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

const std::string k_greeting = "greeting!";
const std::vector<std::string> k_opening{"an opening", "four"};

sockaddr_un address_of(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.native().size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  return address;
}

UniqueFd listening(const fs::path& path) {
  UniqueFd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const auto address = address_of(path);
  ::unlink(path.c_str());
  REQUIRE(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  const int passes = 1;
  ::setsockopt(made.get(), SOL_SOCKET, SO_PASSCRED, &passes, sizeof(passes));
  REQUIRE(::listen(made.get(), 64) == 0);
  return made;
}

UniqueFd connected(const fs::path& path) {
  UniqueFd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const auto address = address_of(path);
  REQUIRE(::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return made;
}

// "": nothing yet; "(end)".
std::string heard(const UniqueFd& socket) {
  std::array<char, 256> buffer{};
  const auto got = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got == 0) return "(end)";
  if (got < 0) return errno == EAGAIN ? "" : "(reset)";
  return {buffer.data(), static_cast<std::size_t>(got)};
}

void say(const UniqueFd& socket, const std::string& text) {
  CHECK(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
        static_cast<ssize_t>(text.size()));
}

struct Recorder : Handler {
  std::vector<std::string> said;
  std::vector<Peer> asking, inside;
  std::set<std::uint64_t> in;
  pid_t gate = 0;

  void gate_stands(pid_t pid, bool adopted) override {
    gate = pid;
    said.push_back(adopted ? "adopted" : "started");
  }
  void gate_lost(const std::string& how) override {
    gate = 0;
    asking.clear();
    said.push_back("lost: " + how);
  }
  void is_inside(Peer peer) override { inside.push_back(std::move(peer)); }
  void all_listed() override { said.push_back("listed"); }
  void asks(Peer peer) override { asking.push_back(std::move(peer)); }
  void entered(std::uint64_t peer) override { in.insert(peer); }
  void not_entered(std::uint64_t, int error) override {
    said.push_back(std::string("not entered: ") + std::strerror(error));
  }
  void gone(std::uint64_t) override { said.push_back("gone"); }
  void left(std::uint64_t peer) override {
    in.erase(peer);
    said.push_back("left");
  }
  void refused(pid_t, uid_t, Refusal why, unsigned) override {
    said.push_back(std::string("refused: ") + to_string(why));
  }
  [[nodiscard]] bool has(const std::string& line) const {
    return std::find(said.begin(), said.end(), line) != said.end();
  }
};

struct Kit {
  Kit() {
    std::string pattern = "/tmp/mps-link-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    fs::create_directories(folder / "daemon");
    share = listening(folder / "share");
  }
  ~Kit() {
    for (auto& link : links) link->close();
    if (recorder.gate != 0) ::kill(recorder.gate, SIGKILL);
    io.restart();
    io.run_for(200ms);
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }

  Link& link() { return *links.back(); }
  void make_link() {
    links.push_back(std::make_shared<Link>(
        io.get_executor(),
        Link::Settings{"gpu0.shared", MPS_GATE_PROGRAM, folder / "gate.sock", {}}, recorder));
    links.back()->start();
  }
  void until(const std::function<bool()>& what) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (!what()) {
      REQUIRE(std::chrono::steady_clock::now() < limit);
      io.restart();
      io.run_one_for(20ms);
    }
  }
  void stand() {
    make_link();
    until([this] { return recorder.has("listed"); });
    link().set_up(k_greeting, k_opening);
    link().listen("open", UniqueFd(::fcntl(share.get(), F_DUPFD_CLOEXEC, 0)));
  }
  void start_daemon() {
    daemon = listening(folder / "daemon/control");
    link().serve(UniqueFd(::open((folder / "daemon").c_str(), O_PATH | O_CLOEXEC)));
  }
  UniqueFd client() {
    auto made = connected(folder / "share");
    until([&] { return heard(made) == k_greeting; });
    for (const auto& text : k_opening) say(made, text);
    return made;
  }
  // The daemon's end of the next connection, after the opening.
  UniqueFd taken() {
    UniqueFd socket;
    until([&] {
      socket.reset(::accept4(daemon.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      return static_cast<bool>(socket);
    });
    say(socket, k_greeting);
    for (const auto& text : k_opening) until([&] { return heard(socket) == text; });
    return socket;
  }

  boost::asio::io_context io;
  fs::path folder;
  UniqueFd share, daemon;
  Recorder recorder;
  std::vector<std::shared_ptr<Link>> links;
};

}  // namespace

TEST_CASE("a program is asked for, let in, relayed, and its leaving is told") {
  Kit kit;
  kit.stand();
  kit.start_daemon();
  auto client = kit.client();
  kit.until([&] { return kit.recorder.asking.size() == 1; });
  const auto& peer = kit.recorder.asking.front();
  CHECK(peer.share == "open");
  CHECK(peer.pid == ::getpid());
  CHECK(peer.uid == ::getuid());
  CHECK(peer.pidfd);
  kit.link().let_in(peer.id);
  auto daemon = kit.taken();
  kit.until([&] { return kit.recorder.in.size() == 1; });
  say(client, "a question");
  kit.until([&] { return heard(daemon) == "a question"; });
  say(daemon, "an answer");
  kit.until([&] { return heard(client) == "an answer"; });
  client.reset();
  kit.until([&] { return kit.recorder.has("left"); });
  kit.until([&] { return heard(daemon) == "(end)"; });
}

TEST_CASE("who is refused reads an end, and the daemon never hears of it") {
  Kit kit;
  kit.stand();
  kit.start_daemon();
  auto client = kit.client();
  kit.until([&] { return kit.recorder.asking.size() == 1; });
  kit.link().refuse(kit.recorder.asking.front().id);
  kit.until([&] { return heard(client) == "(end)"; });
  CHECK(::accept4(kit.daemon.get(), nullptr, nullptr, SOCK_NONBLOCK) == -1);
}

TEST_CASE("another opening is refused without asking") {
  Kit kit;
  kit.stand();
  auto client = connected(kit.folder / "share");
  kit.until([&] { return heard(client) == k_greeting; });
  say(client, "a command");
  kit.until([&] { return heard(client) == "(end)"; });
  kit.until([&] { return kit.recorder.has("refused: unknown_opening"); });
  CHECK(kit.recorder.asking.empty());
}

TEST_CASE("a gate that dies is followed by another, and who comes meanwhile waits") {
  Kit kit;
  kit.stand();
  kit.start_daemon();
  const auto first = kit.recorder.gate;
  ::kill(first, SIGKILL);
  auto client = connected(kit.folder / "share");  // nobody accepts, and it is not refused
  kit.until([&] { return kit.recorder.gate != 0 && kit.recorder.gate != first; });
  kit.until([&] { return heard(client) == k_greeting; });
  for (const auto& text : k_opening) say(client, text);
  kit.until([&] { return kit.recorder.asking.size() == 1; });
  kit.link().let_in(kit.recorder.asking.front().id);
  const auto inside = kit.taken();
}

TEST_CASE("a gate outlives its supervisor, holds newcomers, and says to the next who is inside") {
  Kit kit;
  kit.stand();
  kit.start_daemon();
  auto inside = kit.client();
  kit.until([&] { return kit.recorder.asking.size() == 1; });
  kit.link().let_in(kit.recorder.asking.front().id);
  auto daemon = kit.taken();
  kit.until([&] { return kit.recorder.in.size() == 1; });
  const auto gate = kit.recorder.gate;

  kit.link().close();
  kit.recorder = Recorder{};
  kit.share.reset();
  auto newcomer = connected(kit.folder / "share");
  say(inside, "still relayed");
  kit.until([&] { return heard(daemon) == "still relayed"; });

  kit.make_link();
  kit.until([&] { return kit.recorder.has("listed"); });
  CHECK(kit.recorder.has("adopted"));
  CHECK(kit.recorder.gate == gate);
  CHECK(kit.link().listens("open"));  // the socket came back from the gate
  REQUIRE(kit.recorder.inside.size() == 1);
  CHECK(kit.recorder.inside.front().pid == ::getpid());
  CHECK(kit.recorder.inside.front().pidfd);
  kit.until([&] { return heard(newcomer) == k_greeting; });
  for (const auto& text : k_opening) say(newcomer, text);
  kit.until([&] { return kit.recorder.asking.size() == 1; });
}

TEST_CASE("while the daemon is away, who is let in waits, and is let in when it is back") {
  Kit kit;
  kit.stand();
  kit.start_daemon();
  kit.daemon.reset();  // it dies
  auto client = kit.client();
  kit.until([&] { return kit.recorder.asking.size() == 1; });
  const auto id = kit.recorder.asking.front().id;
  kit.link().let_in(id);
  kit.until([&] { return kit.recorder.has("not entered: Connection refused"); });
  CHECK(heard(client).empty());
  kit.start_daemon();
  kit.link().let_in(id);
  const auto inside = kit.taken();
  kit.until([&] { return kit.recorder.in.size() == 1; });
}

TEST_CASE("asked to end, it refuses who waits and goes") {
  Kit kit;
  kit.stand();
  auto client = kit.client();
  kit.until([&] { return kit.recorder.asking.size() == 1; });
  const auto gate = kit.recorder.gate;
  kit.link().end();
  kit.until([&] { return heard(client) == "(end)"; });
  kit.until([&] { return ::kill(gate, 0) != 0; });
  kit.recorder.gate = 0;
}

TEST_CASE("what is at the socket and is no gate is let go, and said") {
  Kit kit;
  auto stranger = listening(kit.folder / "gate.sock");
  kit.make_link();
  UniqueFd socket;
  kit.until([&] {
    socket.reset(::accept4(stranger.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    return static_cast<bool>(socket);
  });
  say(socket, "hello");
  kit.until([&] { return kit.recorder.has("lost: it says a message that is too short"); });
}
