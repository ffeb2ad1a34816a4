#include "gate/learn.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdlib>

using namespace mps;
using namespace mps::gate;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

struct Scratch {
  Scratch() {
    std::string pattern = "/tmp/mps-learn-XXXXXX";
    path = ::mkdtemp(pattern.data());
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

template <typename T>
Result<T> done(boost::asio::awaitable<Result<T>> task) {
  boost::asio::io_context io;
  Result<T> result = Error{"not done"};
  co_spawn(io, std::move(task), [&result](const std::exception_ptr& error, Result<T> value) {
    REQUIRE(error == nullptr);
    result = std::move(value);
  });
  io.run_for(60s);
  return result;
}

LearnSettings settings_for(const fs::path& folder, const fs::path& libraries,
                           const fs::path& scratch) {
  LearnSettings settings;
  settings.control_program = folder / "bin/nvidia-cuda-mps-control";
  settings.client_program = MPS_CUINIT_PROGRAM;
  settings.environment = {
      "PATH=" + (folder / "bin").string() + ":" + (folder / "sbin").string() + ":/usr/bin:/bin",
      "LD_LIBRARY_PATH=" + libraries.string()};
  settings.scratch = scratch;
  settings.answer = 20s;
  settings.quiet = 1s;
  return settings;
}

// With 9 bytes of greeting, and openings of 9 and 4 bytes, on all versions seen.
void check_learnt(const Result<Opening>& opening, const fs::path& scratch) {
  const auto trouble = opening.has_value() ? std::string() : opening.error().message;
  CAPTURE(trouble);
  REQUIRE(opening.has_value());
  CHECK(opening->greeting.size() == 9);
  REQUIRE(opening->messages.size() == 2);
  CHECK(opening->messages[0].size() == 9);
  CHECK(opening->messages[1].size() == 4);
  CHECK(opening->driver.find("libcuda.so") != std::string::npos);
  if (::geteuid() == 0) CHECK(opening->why_not.empty());
  CHECK(opening->forwardable == opening->why_not.empty());
  CHECK(fs::is_empty(scratch));  // nothing is left
}

}  // namespace

TEST_CASE("NVIDIA's own programs tell the opening") {
  for (const char* version : {"535", "550"}) {
    CAPTURE(version);
    const auto folder = fs::path(MPS_REAL_FOLDER) / version / "usr";
    const auto libraries = folder / "lib/x86_64-linux-gnu/nvidia/current";
    if (!fs::exists(libraries / "libcuda.so.1")) {
      MESSAGE("skipped: no real MPS " << version << "; scripts/fetch-mps " << version
                                      << " gets it");
      continue;
    }
    const Scratch scratch;
    const auto settings = settings_for(folder, libraries, scratch.path);
    const auto opening = done(learn_opening(settings));
    check_learnt(opening, scratch.path);
    CHECK(*done(driver_identity(settings)) == opening->driver);
    const auto again = from_store(to_store(*opening));
    REQUIRE(again.has_value());
    CHECK((*again == *opening));
  }
}

TEST_CASE("each step that fails says so") {
  const Scratch scratch;
  auto settings = settings_for("/nonexistent", "/nonexistent", scratch.path);
  CHECK(done(learn_opening(settings)).error().message ==
        "stat /nonexistent/bin/nvidia-cuda-mps-control: No such file or directory");
  settings.control_program = "/bin/true";
  settings.environment = {"LD_LIBRARY_PATH=/nonexistent"};
  const auto where = done(driver_identity(settings));
  if (where.has_error()) CHECK(where.error().message == "no libcuda.so.1 can be loaded");
}
