#include "app/notify.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include "base/unique_fd.h"

using namespace mps;
using namespace std::chrono_literals;

namespace {

std::pair<std::string, UniqueFd> receive(int manager) {
  std::array<char, 64> bytes{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> beside{};
  iovec text{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  message.msg_control = beside.data();
  message.msg_controllen = beside.size();
  const auto size = ::recvmsg(manager, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  REQUIRE(size > 0);
  int descriptor = -1;
  if (const auto* header = CMSG_FIRSTHDR(&message)) {
    std::memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
  }
  return {std::string(bytes.data(), static_cast<std::size_t>(size)), UniqueFd(descriptor)};
}

}  // namespace

TEST_CASE("readiness reaches the manager's socket; without one nothing happens") {
  CHECK_FALSE(app::notify("READY=1"));

  std::string folder = "/tmp/mps-notify-XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  const auto path = folder + "/notify";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd manager(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(manager.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  app::notify("READY=1\nSTATUS=2 instances");
  std::array<char, 64> got{};
  const auto size = ::recv(manager.get(), got.data(), got.size(), MSG_DONTWAIT);
  REQUIRE(size > 0);
  CHECK(std::string(got.data(), static_cast<std::size_t>(size)) == "READY=1\nSTATUS=2 instances");

  // With a descriptor, which is the same file there.
  UniqueFd ours(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  CHECK(app::notify("FDSTORE=1\nFDNAME=a", ours.get()));
  const auto [text, theirs] = receive(manager.get());
  CHECK(text == "FDSTORE=1\nFDNAME=a");
  struct stat here {};
  struct stat there {};
  REQUIRE(::fstat(ours.get(), &here) == 0);
  REQUIRE(::fstat(theirs.get(), &there) == 0);
  CHECK(here.st_ino == there.st_ino);
  CHECK(here.st_dev == there.st_dev);

  // Never waited for: a manager that reads nothing, or has gone.
  bool told = true;
  for (int i = 0; told && i < 100000; ++i) told = app::notify("STATUS=busy");
  CHECK_FALSE(told);
  manager.reset();
  CHECK_FALSE(app::notify("READY=1"));
  ::unsetenv("NOTIFY_SOCKET");
  std::filesystem::remove_all(folder);
}

TEST_CASE("the watchdog is fed four times as often as it bites, if it is ours") {
  CHECK_FALSE(app::watchdog_interval());
  ::setenv("WATCHDOG_USEC", "20000000", 1);
  CHECK(app::watchdog_interval() == 5s);
  ::setenv("WATCHDOG_PID", "1", 1);
  CHECK_FALSE(app::watchdog_interval());
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  CHECK(app::watchdog_interval() == 5s);
  ::setenv("WATCHDOG_USEC", "soon", 1);
  CHECK_FALSE(app::watchdog_interval());
  ::unsetenv("WATCHDOG_USEC");
  ::unsetenv("WATCHDOG_PID");
}
