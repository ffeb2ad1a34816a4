#include "process/mount_space.h"

#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <csignal>
#include <string>
#include <thread>

#include "process/child.h"
#include "process/test_support.h"

using namespace mps;
using namespace mps::process;
using namespace mps::process::testing;
namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

Result<void> mount_on(const fs::path& folder) {
  if (::mount("test", folder.c_str(), "tmpfs", 0, "mode=0755,size=64k") == 0) return {};
  return Error::from_errno("mount " + folder.string(), errno);
}

bool is_mounted(const fs::path& folder) {
  return read_text("/proc/thread-self/mountinfo").find(" " + folder.string() + " ") !=
         std::string::npos;
}

std::string own_space() {
  std::array<char, 64> link{};
  const auto length = ::readlink("/proc/thread-self/ns/mnt", link.data(), link.size());
  return {link.data(), length < 0 ? 0 : static_cast<std::size_t>(length)};
}

// Where the tests are not root, what they show is that it is said.
bool may_make_one(const Result<std::shared_ptr<const MountSpace>>& made) {
  if (made) return true;
  CHECK(::geteuid() != 0);
  CHECK(made.error().message == "make a mount namespace: Operation not permitted");
  return false;
}

}  // namespace

TEST_CASE("what is mounted in a space is seen in it alone, by us and by its programs") {
  const TempFolder root;
  const auto folder = root / "pipe";
  fs::create_directory(folder);
  const auto before = own_space();
  const auto made = MountSpace::make([&]() -> Result<void> {
    if (auto mounted = mount_on(folder); !mounted) return mounted;
    std::ofstream(folder / "within") << "here";
    return {};
  });
  if (!may_make_one(made)) return;
  CHECK(own_space() == before);
  CHECK_FALSE(is_mounted(folder));
  CHECK(fs::is_empty(folder));
  std::string seen;
  CHECK((*made)->run([&]() -> Result<void> {
    seen = read_text(folder / "within");
    return {};
  }));
  CHECK(seen == "here");
  CHECK(own_space() == before);

  asio::io_context io;
  auto spec = shell("test \"$(cat " + (folder / "within").string() + ")\" = here && " +
                    "test \"$PWD\" = /");
  spec.mount_space = *made;
  auto child = Child::spawn(io.get_executor(), spec);
  REQUIRE(child);
  CHECK(finish(io, child->wait()).describe() == "exited with status 0");
}

TEST_CASE("a space is found again by a process in it, and lives as long as that") {
  const TempFolder root;
  const auto folder = root / "pipe";
  fs::create_directory(folder);
  auto made = MountSpace::make([&] { return mount_on(folder); });
  if (!may_make_one(made)) return;
  asio::io_context io;
  SpawnSpec spec{.program = "/bin/sleep", .arguments = {"600"}};
  spec.mount_space = std::move(*made);
  auto child = Child::spawn(io.get_executor(), spec);
  REQUIRE(child);
  spec.mount_space.reset();
  auto found = MountSpace::of(child->pid());
  REQUIRE(found);
  CHECK_FALSE((*found)->is_ours());
  bool mounted = false;
  CHECK((*found)->run([&]() -> Result<void> {
    mounted = is_mounted(folder);
    return {};
  }));
  CHECK(mounted);
  CHECK(child->signal(SIGKILL));
  finish(io, child->wait());
  const auto gone = MountSpace::of(child->pid());
  REQUIRE_FALSE(gone);
  CHECK(gone.error().message ==
        "open /proc/" + std::to_string(child->pid()) + "/ns/mnt: No such file or directory");
}

TEST_CASE("a mount gets in from outside and none gets out, also where mounts are shared") {
  const TempFolder root;
  const auto shared = root / "shared";
  fs::create_directory(shared);
  // A stage of its own, so that nothing of this happens to the machine.
  const auto stage = MountSpace::make([&] { return mount_on(shared); });
  if (!may_make_one(stage)) return;
  CHECK((*stage)->run([&]() -> Result<void> {
    CHECK(::mount(nullptr, shared.c_str(), nullptr, MS_SHARED, nullptr) == 0);
    fs::create_directory(shared / "pipe");
    fs::create_directory(shared / "later");
    const auto made = MountSpace::make([&] { return mount_on(shared / "pipe"); });
    if (!made) return made.error();
    CHECK_FALSE(is_mounted(shared / "pipe"));
    CHECK(mount_on(shared / "later"));
    return (*made)->run([&]() -> Result<void> {
      CHECK(is_mounted(shared / "pipe"));
      CHECK(is_mounted(shared / "later"));
      return {};
    });
  }));
}

TEST_CASE("our own space is known without any rights") {
  const auto ours = MountSpace::of(::getpid());
  REQUIRE(ours);
  CHECK((*ours)->is_ours());
}

TEST_CASE("where there are no rights to, it is an error and we stay where we are") {
  std::string said;
  bool furnished = false;
  std::thread([&] {
    // Of this thread alone; glibc's own would make it so of all.
    if (::geteuid() == 0) CHECK(::syscall(SYS_setresuid, 1235, 1235, 1235) == 0);
    const auto made = MountSpace::make([&]() -> Result<void> {
      furnished = true;
      return {};
    });
    if (!made) said = made.error().message;
  }).join();
  CHECK(said == "make a mount namespace: Operation not permitted");
  CHECK_FALSE(furnished);
}

TEST_CASE("what goes wrong while it is furnished is said, and a program that is missing in it") {
  const auto failed = MountSpace::make([]() -> Result<void> { return mount_on("/proc/no/such"); });
  REQUIRE_FALSE(failed);
  if (::geteuid() != 0) return;
  CHECK(failed.error().message == "mount /proc/no/such: No such file or directory");
  const auto made = MountSpace::make([]() -> Result<void> { return {}; });
  REQUIRE(made);
  asio::io_context io;
  const auto child = Child::spawn(io.get_executor(), {.program = "/no/such", .mount_space = *made});
  REQUIRE_FALSE(child);
  CHECK(child.error().message == "exec /no/such: No such file or directory");
}
