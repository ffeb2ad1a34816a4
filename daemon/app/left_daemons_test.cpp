#include "app/left_daemons.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/unique_fd.h"
#include "instance/layout.h"

using namespace mps;
namespace fs = std::filesystem;

TEST_CASE("only who holds the lock in a pipe directory can be its daemon") {
  std::string root = "/tmp/mps-left-XXXXXX";
  REQUIRE(::mkdtemp(root.data()) != nullptr);
  CHECK(app::find_left_daemons(fs::path(root) / "nothing", true).empty());
  const instance::Layout layout(root, "gpu0.shared");
  REQUIRE(layout.make().has_value());
  REQUIRE(layout.make_lock().has_value());
  CHECK(app::find_left_daemons(root, true).empty());

  // We hold it, and are no control daemon. (A process does not see locks of its own.)
  UniqueFd lock(::open((layout.pipe / "control_lock").c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(lock);
  struct flock wanted {};
  wanted.l_type = F_WRLCK;
  wanted.l_whence = SEEK_SET;
  REQUIRE(::fcntl(lock.get(), F_OFD_SETLK, &wanted) == 0);
  CHECK(app::find_left_daemons(root, true).empty());
  // Somebody who waits for the lock is no reason not to start.
  CHECK(layout.sweep().has_value());
  fs::remove_all(root);
}
