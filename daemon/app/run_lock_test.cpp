#include "app/run_lock.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>

using namespace mps;
using namespace mps::app;

TEST_CASE("one supervisor a run directory, and the second learns who it is") {
  std::string root = "/tmp/mps-lock-XXXXXX";
  REQUIRE(::mkdtemp(root.data()) != nullptr);
  const auto run_dir = std::filesystem::path(root) / "run";
  {
    const auto first = lock_run_directory(run_dir);
    REQUIRE(std::holds_alternative<UniqueFd>(first));
    const auto second = lock_run_directory(run_dir);
    REQUIRE(std::holds_alternative<LockHeld>(second));
    CHECK(std::get<LockHeld>(second).holder == ::getpid());
  }
  CHECK(std::holds_alternative<UniqueFd>(lock_run_directory(run_dir)));
  std::filesystem::remove_all(root);
}

// A child of a supervisor that was killed has its lock until it has become another program.
TEST_CASE("a lock whose holder is dead is waited for") {
  std::string root = "/tmp/mps-lock-XXXXXX";
  REQUIRE(::mkdtemp(root.data()) != nullptr);
  const auto run_dir = std::filesystem::path(root) / "run";
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const auto killed = ::fork();
  if (killed == 0) {
    const auto lock = lock_run_directory(run_dir);
    if (!std::holds_alternative<UniqueFd>(lock)) ::_exit(1);
    if (::fork() != 0) ::_exit(0);
    ::close(ends[1]);
    char byte = 0;
    (void)!::read(ends[0], &byte, 1);  // until it may let go
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(killed, &status, 0) == killed);
  REQUIRE(status == 0);
  CHECK(std::holds_alternative<LockHeld>(lock_run_directory(run_dir)));
  ::close(ends[1]);
  ::close(ends[0]);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  bool locked = false;  // by the first that comes after its end, each of which waits a moment
  while (!locked && std::chrono::steady_clock::now() < deadline) {
    locked = std::holds_alternative<UniqueFd>(lock_run_directory(run_dir));
  }
  CHECK(locked);
  std::filesystem::remove_all(root);
}

TEST_CASE("directories that others could change are refused") {
  std::string root = "/tmp/mps-lock-XXXXXX";
  REQUIRE(::mkdtemp(root.data()) != nullptr);
  const auto path = std::filesystem::path(root) / "run";
  REQUIRE(::mkdir(path.c_str(), 0700) == 0);
  REQUIRE(::chmod(path.c_str(), 0777) == 0);
  const auto lock = lock_run_directory(path);
  REQUIRE(std::holds_alternative<Error>(lock));
  CHECK(std::get<Error>(lock).message ==
        path.string() +
            " can be written by others than its owner: chmod go-w it, or choose another");
  CHECK_FALSE(make_private_directory(path).has_value());
  REQUIRE(::chmod(path.c_str(), 0755) == 0);
  REQUIRE(make_private_directory(path).has_value());
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0700);
  std::filesystem::remove_all(root);
}

TEST_CASE("a run directory that cannot be says why") {
  const auto lock = lock_run_directory("/proc/no/such");
  REQUIRE(std::holds_alternative<Error>(lock));
  CHECK(std::get<Error>(lock).message ==
        "cannot make the run directory /proc/no/such: No such file or directory");
}
