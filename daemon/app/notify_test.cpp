#include "app/notify.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/unique_fd.h"

using namespace mps;
using namespace std::chrono_literals;

TEST_CASE("readiness reaches the manager's socket; without one nothing happens") {
  app::notify("READY=1");

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
