#include "base/unix_socket.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

using namespace mps;

TEST_CASE("a socket is bound at a path, and one that is too long says so") {
  std::string folder = "/tmp/mps-socket-XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  const auto path = folder + "/socket";
  const auto address = UnixAddress::of(path);
  REQUIRE(address.has_value());
  const auto socket = seqpacket_socket();
  REQUIRE(socket.has_value());
  CHECK(::bind(socket->get(), address->get(), address->size()) == 0);
  CHECK((::fcntl(socket->get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((::fcntl(socket->get(), F_GETFL) & O_NONBLOCK) != 0);
  ::unlink(path.c_str());
  ::rmdir(folder.c_str());

  const auto longest = "/" + std::string(106, 'x');
  CHECK(UnixAddress::of(longest).has_value());
  CHECK(UnixAddress::of(longest + "x").error().message ==
        longest +
            "x is too long for a socket address (108 of at most 107 bytes): use a shorter runDir");
}
