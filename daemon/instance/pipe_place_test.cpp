#include "instance/pipe_place.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "base/unix_socket.h"
#include "process/child.h"

using namespace mps;
using namespace mps::instance;
namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

using Place = std::shared_ptr<const PipePlace>;

struct Folder {
  Folder() {
    std::string name = "/tmp/mps-place-XXXXXX";
    path = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  fs::path path;
};

struct Run {
  Run() { REQUIRE(layout.make().has_value()); }
  Folder folder;
  Layout layout{folder.path, "gpu0.shared"};
};

struct stat status_in(const Place& place, const char* name) {
  struct stat found {};
  const auto directory = place->directory();
  REQUIRE(directory.has_value());
  REQUIRE(::fstatat(directory->get(), name, &found, AT_SYMLINK_NOFOLLOW) == 0);
  return found;
}

process::Child sleeper_in(asio::io_context& io, std::shared_ptr<const process::MountSpace> space) {
  process::SpawnSpec spec{.program = "/bin/sleep", .arguments = {"600"}};
  spec.mount_space = std::move(space);
  auto child = process::Child::spawn(io.get_executor(), spec);
  REQUIRE(child.has_value());
  return std::move(*child);
}

void end(asio::io_context& io, process::Child& child) {
  CHECK(child.signal(SIGKILL).has_value());
  asio::co_spawn(io, child.wait(), [](const std::exception_ptr&, const process::ExitStatus&) {});
  io.run();
}

// Where the tests are not root, what they show is that it is said.
bool may_be_private(const Result<Place>& made) {
  if (made) return true;
  CHECK(::geteuid() != 0);
  CHECK(made.error().message == "make a mount namespace: Operation not permitted");
  return false;
}

bool is_mounted_here(const fs::path& path) {
  std::ifstream file("/proc/self/mountinfo");
  const std::string all{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return all.find(" " + path.string()) != std::string::npos;
}

}  // namespace

TEST_CASE("a private directory is empty outside, and has its lock and its modes inside") {
  Run run;
  const auto made = PipePlace::make_private(run.layout);
  if (!may_be_private(made)) return;
  const auto& place = *made;
  CHECK(place->is_private());
  CHECK(fs::is_empty(run.layout.pipe));
  CHECK_FALSE(is_mounted_here(run.layout.root));
  CHECK(status_in(place, ".").st_mode == (S_IFDIR | 0711));
  CHECK(status_in(place, ".").st_uid == ::geteuid());
  CHECK(status_in(place, "control_lock").st_mode == (S_IFREG | 0600));
  struct stat kept {};
  REQUIRE(::stat(run.layout.private_lock.c_str(), &kept) == 0);
  CHECK(status_in(place, "control_lock").st_ino == kept.st_ino);
  struct statfs limits {};
  const auto directory = place->directory();
  REQUIRE(directory.has_value());
  const auto through = "/proc/self/fd/" + std::to_string(directory->get());
  REQUIRE(::statfs(through.c_str(), &limits) == 0);
  CHECK(limits.f_files == 1024);
  CHECK(limits.f_blocks * static_cast<std::uint64_t>(limits.f_bsize) == 16U * 1024 * 1024);
}

TEST_CASE("of two daemons that are started in a row both mean the same lock") {
  Run run;
  const auto first = PipePlace::make_private(run.layout);
  if (!may_be_private(first)) return;
  const auto second = PipePlace::make_private(run.layout);
  REQUIRE(second.has_value());
  CHECK(status_in(*first, ".").st_dev != status_in(*second, ".").st_dev);
  CHECK(status_in(*first, "control_lock").st_ino == status_in(*second, "control_lock").st_ino);
}

TEST_CASE("a socket in it is reached through its descriptor, and by no path outside") {
  Run run;
  const auto made = PipePlace::make_private(run.layout);
  if (!may_be_private(made)) return;
  UniqueFd listener;
  const auto bound = (*made)->space()->run([&]() -> Result<void> {
    auto socket = seqpacket_socket();
    if (!socket) return socket.error();
    const auto address = UnixAddress::of(run.layout.control);
    if (!address) return address.error();
    listener = std::move(*socket);
    if (::bind(listener.get(), address->get(), address->size()) == 0 &&
        ::listen(listener.get(), 1) == 0) {
      return {};
    }
    return Error::from_errno("bind", errno);
  });
  REQUIRE(bound.has_value());
  const auto reaches = [](const fs::path& path) {
    const auto socket = seqpacket_socket();
    const auto address = UnixAddress::of(path);
    return socket && address && ::connect(socket->get(), address->get(), address->size()) == 0;
  };
  CHECK(reaches((*made)->control()));
  CHECK_FALSE(reaches(run.layout.control));
}

TEST_CASE("where a daemon's directory is, is told by the namespace that it is in") {
  Run run;
  asio::io_context io;
  const auto here = PipePlace::of(run.layout, ::getpid());
  REQUIRE(here.has_value());
  CHECK_FALSE((*here)->is_private());
  CHECK((*here)->control() == run.layout.control);
  CHECK((*here)->directory().has_value());
  auto made = PipePlace::make_private(run.layout);
  if (!may_be_private(made)) return;
  auto daemon = sleeper_in(io, (*made)->space());
  const auto lock = status_in(*made, "control_lock").st_ino;
  const auto device = status_in(*made, ".").st_dev;
  made = Error{"let go"};
  const auto found = PipePlace::of(run.layout, daemon.pid());
  REQUIRE(found.has_value());
  CHECK((*found)->is_private());
  CHECK(status_in(*found, ".").st_dev == device);
  CHECK(status_in(*found, "control_lock").st_ino == lock);
  end(io, daemon);
}

TEST_CASE("another namespace that shows the same directory makes no private one") {
  Run run;
  asio::io_context io;
  const auto space = process::MountSpace::make([]() -> Result<void> { return {}; });
  if (!space) {
    CHECK(::geteuid() != 0);
    return;
  }
  auto daemon = sleeper_in(io, *space);
  const auto found = PipePlace::of(run.layout, daemon.pid());
  REQUIRE(found.has_value());
  CHECK_FALSE((*found)->is_private());
  end(io, daemon);
}

TEST_CASE("where it cannot be private, it is an error, and nothing of it is left") {
  std::string said;
  std::thread([&] {
    // Of this thread alone; glibc's own would make it so of all.
    if (::geteuid() == 0) CHECK(::syscall(SYS_setresuid, 1235, 1235, 1235) == 0);
    Folder folder;
    const Layout layout(folder.path, "gpu0.shared");
    CHECK(layout.make().has_value());
    const auto made = PipePlace::make_private(layout);
    if (!made) said = made.error().message;
    CHECK(fs::is_empty(layout.pipe));
    CHECK(layout.make_lock().has_value());
  }).join();
  CHECK(said == "make a mount namespace: Operation not permitted");
}
