#include "app/run_lock.h"

#include <doctest/doctest.h>
#include <unistd.h>

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

TEST_CASE("a run directory that cannot be says why") {
  const auto lock = lock_run_directory("/proc/no/such");
  REQUIRE(std::holds_alternative<Error>(lock));
  CHECK(std::get<Error>(lock).message ==
        "cannot make the run directory /proc/no/such: No such file or directory");
}
