// Who stands in the way where the daemon does not answer.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>

#include "base/unique_fd.h"
#include "control/channel.h"
#include "control/channel_kit.h"
#include "process/proc.h"

namespace mps::control {
namespace {

using namespace mps::control::test;

// A process of ours that waits for its end; what it does before comes from `prepare`, and once it
// is done it writes a byte for each thing that happened.
class Helper {
 public:
  explicit Helper(const std::function<void(int report)>& prepare) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    events_.reset(ends[0]);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      prepare(ends[1]);
      for (;;) ::pause();
    }
    ::close(ends[1]);
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  ~Helper() { end(); }

  void end() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  void await_event() const {
    char byte = 0;
    REQUIRE(::read(events_.get(), &byte, 1) == 1);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  UniqueFd events_;
  pid_t pid_ = 0;
};

sockaddr_un address_of(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.string().size());
  return address;
}

// Like the daemon: accepts on a socket, and says nothing.
std::function<void(int)> listener(const fs::path& path) {
  return [path](int report) {
    const int socket = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
    const auto address = address_of(path);
    (void)::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    ::listen(socket, 8);
    (void)!::write(report, "l", 1);
    while (::accept(socket, nullptr, nullptr) >= 0) (void)!::write(report, "a", 1);
  };
}

std::function<void(int)> silent_peer(const fs::path& path) {
  return [path](int) {
    const int socket = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
    const auto address = address_of(path);
    (void)::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  };
}

std::string own_name() {
  const auto stat = process::Proc().stat(::getpid());
  return stat ? stat->name : std::string();
}

TEST_CASE("a daemon that is stopped, or gone") {
  Bench bench("exec sleep 1000", 100ms);
  Helper daemon([](int) {});
  bench.channel->set_daemon(daemon.pid());
  CHECK(why(bench.run(k_one)) == "no answer within 100ms");
  REQUIRE(::kill(daemon.pid(), SIGSTOP) == 0);
  REQUIRE(bench.until([&] { return process::Proc().stat(daemon.pid())->state == 'T'; }));
  CHECK((bench.run(k_one) == Outcome(Stopped{})));
  daemon.end();
  CHECK(why(bench.run(k_one)) == "the control daemon has ended");
}

TEST_CASE("who holds the session, or is silent, is named") {
  for (const char* name : {"control", "control_privileged"}) {
    for (const bool hangs : {true, false}) {
      CAPTURE(name);
      CAPTURE(hangs);
      Bench bench(hangs ? "exec sleep 1000" : "exit 0", hangs ? 100ms : 30000ms);
      Helper daemon(listener(bench.dir / name));
      daemon.await_event();
      Helper peer(silent_peer(bench.dir / name));
      daemon.await_event();
      bench.channel->set_daemon(daemon.pid());
      const auto outcome = bench.run(k_one);
      const Outcome named =
          hangs ? Outcome(Blocked{peer.pid(), own_name()}) : Outcome(Busy{peer.pid(), own_name()});
      CHECK((outcome == named));
      bench.channel->set_friends({peer.pid()});
      const auto innocent = bench.run(k_one);
      if (hangs) {
        CHECK(why(innocent) == "no answer within 100ms");
      } else {
        CHECK((innocent == Outcome(Busy{})));
      }
    }
  }
}

TEST_CASE("the newest of several peers is who the daemon waits for") {
  Bench bench("exec sleep 1000", 100ms);
  Helper daemon(listener(bench.dir / "control"));
  daemon.await_event();
  Helper first(silent_peer(bench.dir / "control"));
  daemon.await_event();
  Helper second(silent_peer(bench.dir / "control"));
  daemon.await_event();
  bench.channel->set_daemon(daemon.pid());
  CHECK((bench.run(k_one) == Outcome(Blocked{second.pid(), own_name()})));
  second.end();
  CHECK((bench.run(k_one) == Outcome(Blocked{first.pid(), own_name()})));
}

TEST_CASE("a look without time finds nobody guilty, nor the daemon") {
  Bench bench;
  bench.look_limit = 0ms;
  Bench hanging("exec sleep 1000", 100ms);
  bench.make(hanging.dir / "front-end", 100ms);
  Helper daemon(listener(bench.dir / "control"));
  daemon.await_event();
  Helper peer(silent_peer(bench.dir / "control"));
  daemon.await_event();
  bench.channel->set_daemon(daemon.pid());
  CHECK((bench.run(k_one) == Outcome(Blocked{})));
}

TEST_CASE("we are never named ourselves") {
  Bench bench("exec sleep 1000", 100ms);
  Helper daemon(listener(bench.dir / "control"));
  daemon.await_event();
  const UniqueFd own(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const auto address = address_of(bench.dir / "control");
  REQUIRE(::connect(own.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  daemon.await_event();
  bench.channel->set_daemon(daemon.pid());
  CHECK((bench.run(k_one) == Outcome(Blocked{})));
}

}  // namespace
}  // namespace mps::control
