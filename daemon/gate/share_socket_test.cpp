#include "gate/share_socket.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

using namespace mps;
using namespace mps::gate;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string pattern = "/tmp/mps-share-XXXXXX";
    path = ::mkdtemp(pattern.data());
    fs::create_directories(path / "pipe");
    fs::create_directories(path / "private");
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  [[nodiscard]] SharePlace place() const { return {path / "pipe", path / "private/open"}; }
  fs::path path;
};

int connect_to(const fs::path& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

}  // namespace

TEST_CASE("what is listened at is in the share, for everybody, and known again") {
  const Folder folder;
  CHECK_FALSE(is_in_place(folder.place()));
  const auto socket = listen_in(folder.place());
  REQUIRE(socket.has_value());
  CHECK(is_in_place(folder.place()));
  CHECK(connect_to(folder.path / "pipe/control") == 0);
  struct stat there {};
  REQUIRE(::stat((folder.path / "pipe/control").c_str(), &there) == 0);
  CHECK((there.st_mode & 0777) == 0666);
}

TEST_CASE("the socket that listens for a share is told from one that did, and from others") {
  const Folder folder;
  const auto first = listen_in(folder.place());
  REQUIRE(first.has_value());
  CHECK(listens_for(folder.place(), first->get()));
  CHECK_FALSE(listens_for(folder.place(), -1));
  const UniqueFd other(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  CHECK_FALSE(listens_for(folder.place(), other.get()));
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK_FALSE(listens_for(folder.place(), file.get()));
  SUBCASE("another took its place, at the same path") {
    const auto second = listen_in(folder.place());
    REQUIRE(second.has_value());
    CHECK_FALSE(listens_for(folder.place(), first->get()));
    CHECK(listens_for(folder.place(), second->get()));
  }
  SUBCASE("somebody took it away") {
    const auto control = folder.path / "pipe/control";
    fs::remove(control);
    CHECK(listens_for(folder.place(), first->get()));
    CHECK_FALSE(is_in_place(folder.place()));
    std::ofstream(control) << "x";
    REQUIRE(put_in_place(folder.place()).has_value());
    CHECK(is_in_place(folder.place()));
    CHECK(connect_to(control) == 0);
  }
}

TEST_CASE("whatever somebody put there gives way, and is noticed") {
  const Folder folder;
  const auto first = listen_in(folder.place());
  const auto control = folder.path / "pipe/control";
  fs::remove(control);
  CHECK_FALSE(is_in_place(folder.place()));
  SUBCASE("a file") {
    std::ofstream(control) << "x";
  }
  SUBCASE("a directory") {
    fs::create_directory(control);
  }
  SUBCASE("a link") {
    fs::create_symlink("/etc/passwd", control);
  }
  SUBCASE("nothing") {}
  CHECK_FALSE(is_in_place(folder.place()));
  const auto second = listen_in(folder.place());
  REQUIRE(second.has_value());
  CHECK(is_in_place(folder.place()));
  CHECK(connect_to(control) == 0);
}

TEST_CASE("a share that is a link is not followed") {
  const Folder folder;
  fs::remove(folder.path / "pipe");
  fs::create_directory_symlink("/etc", folder.path / "pipe");
  CHECK(listen_in(folder.place()).error().message ==
        "cannot open " + (folder.path / "pipe").string() + ": Not a directory");
}
