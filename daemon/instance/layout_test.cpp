#include "instance/layout.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <set>

using namespace mps;
using namespace mps::instance;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string name = "/tmp/mps-layout-XXXXXX";
    path = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  fs::path path;
};

unsigned mode_of(const fs::path& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0 ? found.st_mode & 07777 : 0;
}

ino_t inode_of(const fs::path& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0 ? found.st_ino : 0;
}

std::set<std::string> names_in(const fs::path& path) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(path)) names.insert(entry.path().filename());
  return names;
}

}  // namespace

TEST_CASE("directories have the modes that keep tenants out, and stay the same ones") {
  Folder folder;
  const Layout layout(folder.path, "gpu0.shared");
  REQUIRE(layout.make().has_value());
  CHECK(mode_of(layout.root) == 0755);
  CHECK(mode_of(layout.pipe) == 0711);
  CHECK(mode_of(layout.private_) == 0700);
  CHECK(mode_of(layout.open_pipe) == 0755);
  const auto before = inode_of(layout.open_pipe);
  fs::permissions(layout.private_, fs::perms::all);
  REQUIRE(layout.make().has_value());
  CHECK(mode_of(layout.private_) == 0700);
  CHECK(inode_of(layout.open_pipe) == before);
}

TEST_CASE("a link or a file in a directory's place is refused") {
  Folder folder;
  const Layout layout(folder.path, "gpu0.shared");
  fs::create_directory(folder.path / "elsewhere");
  fs::create_directory_symlink(folder.path / "elsewhere", layout.root);
  const auto made = layout.make();
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().message ==
        "cannot use the directory " + layout.root.string() + ": Not a directory");
}

TEST_CASE("what a dead daemon left is swept, and the lock is nobody else's") {
  Folder folder;
  const Layout layout(folder.path, "gpu0.shared");
  REQUIRE(layout.make().has_value());
  for (const auto* name :
       {"control", "control_lock", "control_privileged", "log", "nvidia-cuda-mps-control.pid"}) {
    std::ofstream(layout.pipe / name) << "x";
  }
  fs::permissions(layout.pipe / "control_lock", fs::perms::all);
  const auto stale = inode_of(layout.pipe / "control_lock");
  UniqueFd waiter(::open((layout.pipe / "control_lock").c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(layout.sweep().has_value());
  CHECK(names_in(layout.pipe).empty());
  REQUIRE(layout.make_lock().has_value());
  CHECK(names_in(layout.pipe) == std::set<std::string>{"control_lock"});
  CHECK(mode_of(layout.pipe / "control_lock") == 0600);
  CHECK(inode_of(layout.pipe / "control_lock") != stale);
}

TEST_CASE("whether a daemon was here, and is no more, is seen by its lock") {
  Folder folder;
  const Layout layout(folder.path, "gpu0.shared");
  REQUIRE(layout.make().has_value());
  CHECK_FALSE(layout.is_left_by_daemon());
  SUBCASE("in the directory that all see") {
    REQUIRE(layout.make_lock().has_value());
  }
  SUBCASE("in its own") {
    REQUIRE(layout.keep_private_lock().has_value());
  }
  CHECK(layout.is_left_by_daemon());
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const auto daemon = ::fork();
  if (daemon == 0) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    const auto visible = layout.pipe / "control_lock";
    const auto& path = fs::exists(visible) ? visible : layout.private_lock;
    const int file = ::open(path.c_str(), O_RDWR);
    const bool locked = ::fcntl(file, F_SETLK, &lock) == 0;
    (void)!::write(ends[1], locked ? "y" : "n", 1);
    for (;;) ::pause();
  }
  char locked = 0;
  REQUIRE(::read(ends[0], &locked, 1) == 1);
  CHECK(locked == 'y');
  CHECK_FALSE(layout.is_left_by_daemon());
  CHECK(layout.lock_holder() == daemon);
  ::kill(daemon, SIGKILL);
  REQUIRE(::waitpid(daemon, nullptr, 0) == daemon);
  CHECK(layout.is_left_by_daemon());
  for (const int end : ends) ::close(end);
}

TEST_CASE("a log and its successor under the same name are told apart") {
  Folder folder;
  const Layout layout(folder.path, "gpu0.shared");
  REQUIRE(layout.make().has_value());
  const auto first = layout.open_log();
  const auto again = layout.open_log();
  REQUIRE(first.has_value());
  REQUIRE(again.has_value());
  CHECK(log_identity(first->get()).value() == log_identity(again->get()).value());
  CHECK(mode_of(layout.log) == 0600);
  fs::rename(layout.log, layout.private_ / "old.log");
  const auto second = layout.open_log();
  REQUIRE(second.has_value());
  CHECK(log_identity(first->get()).value() != log_identity(second->get()).value());
}

TEST_CASE("an unfinished last line is ended before the next daemon writes") {
  Folder folder;
  const Layout layout(folder.path, "gpu0.shared");
  REQUIRE(layout.make().has_value());
  const auto size = [&] { return fs::file_size(layout.log); };
  REQUIRE(layout.open_log().has_value());
  CHECK(size() == 0);
  std::ofstream(layout.log) << "half a li";
  REQUIRE(layout.open_log().has_value());
  CHECK(size() == 10);
  REQUIRE(layout.open_log().has_value());
  CHECK(size() == 10);
}

TEST_CASE("a missing parent is an error that names the directory") {
  const Layout layout("/proc/no/such", "gpu0.shared");
  const auto made = layout.make();
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().message ==
        "cannot make the directory /proc/no/such/gpu0.shared: No such file or directory");
}
