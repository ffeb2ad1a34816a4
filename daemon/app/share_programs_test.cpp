#include "app/share_programs.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

using namespace mps;
using namespace mps::app;
namespace fs = std::filesystem;

namespace {

using Paths = std::vector<std::string>;

struct Kit {
  Kit() {
    ::umask(022);  // the supervisor's own
    std::string pattern = "/tmp/mps-programs-XXXXXX";
    root = ::mkdtemp(pattern.data());
    fs::create_directory(root / "share");
    write(root / "run", "the launcher");
    write(root / "shim", std::string(200000, 's'));
  }
  ~Kit() {
    std::error_code ignored;
    fs::remove_all(root, ignored);
  }
  Kit(const Kit&) = delete;
  Kit& operator=(const Kit&) = delete;

  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::string read(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  [[nodiscard]] SharePrograms programs() {
    return SharePrograms(
        {{"bin", "mps-run", root / "run"}, {"lib", "libmps-shim.so", root / "shim"}}, missing);
  }
  void are_right() const {
    CHECK(read(share / "bin/mps-run") == read(root / "run"));
    CHECK(read(share / "lib/libmps-shim.so") == read(root / "shim"));
    for (const auto* name : {"bin", "lib", "bin/mps-run", "lib/libmps-shim.so"}) {
      struct stat found {};
      REQUIRE(::lstat((share / name).c_str(), &found) == 0);
      CHECK((found.st_mode & 07777) == 0755);
      CHECK(S_ISDIR(found.st_mode) == (std::string(name).size() == 3));
    }
    CHECK(std::distance(fs::directory_iterator(share / "bin"), {}) == 1);
  }

  fs::path root;
  fs::path share;
  std::vector<Error> missing;
};

struct Put : Kit {
  Put() : kept((share = root / "share", programs())) {
    const auto looked = kept.keep(share);
    CHECK(looked.replaced.empty());
    CHECK_FALSE(looked.trouble);
    are_right();
  }
  void is_replaced(const Paths& which) {
    const auto looked = kept.keep(share);
    CHECK(looked.replaced == which);
    CHECK_FALSE(looked.trouble);
    are_right();
    CHECK(kept.keep(share).replaced.empty());
  }
  SharePrograms kept;
};

}  // namespace

TEST_CASE("copies, and no links: what is done to one is not done to another") {
  Put kit;
  fs::create_directory(kit.root / "other");
  kit.kept.keep(kit.root / "other");
  struct stat one {};
  struct stat other {};
  REQUIRE(::stat((kit.root / "share/bin/mps-run").c_str(), &one) == 0);
  REQUIRE(::stat((kit.root / "other/bin/mps-run").c_str(), &other) == 0);
  CHECK(one.st_ino != other.st_ino);
  CHECK(one.st_nlink == 1);
}

TEST_CASE("what is as it was put there is left alone") {
  Put kit;
  struct stat before {};
  struct stat after {};
  REQUIRE(::stat((kit.share / "bin/mps-run").c_str(), &before) == 0);
  CHECK(kit.kept.keep(kit.share).replaced.empty());
  // Also by the next supervisor.
  CHECK(kit.programs().keep(kit.share).replaced.empty());
  REQUIRE(::stat((kit.share / "bin/mps-run").c_str(), &after) == 0);
  CHECK(before.st_ino == after.st_ino);
}

TEST_CASE("what somebody changed is replaced, however they did it") {
  Put kit;
  const auto program = kit.share / "bin/mps-run";
  SUBCASE("its content, of the same length and time") {
    struct stat before {};
    REQUIRE(::stat(program.c_str(), &before) == 0);
    Kit::write(program, "THE LAUNCHER");
    const timespec times[2] = {before.st_atim, before.st_mtim};
    REQUIRE(::utimensat(AT_FDCWD, program.c_str(), times, 0) == 0);
  }
  SUBCASE("its mode") {
    REQUIRE(::chmod(program.c_str(), 04755) == 0);
  }
  SUBCASE("removed") {
    fs::remove(program);
  }
  SUBCASE("a link in its place") {
    fs::remove(program);
    fs::create_symlink("/bin/true", program);
  }
  SUBCASE("a folder in its place") {
    fs::remove(program);
    fs::create_directory(program);
  }
  SUBCASE("a fifo in its place") {
    fs::remove(program);
    REQUIRE(::mkfifo(program.c_str(), 0755) == 0);
  }
  SUBCASE("the folder is away") {
    fs::remove_all(kit.share / "bin");
  }
  SUBCASE("the folder is a link") {
    fs::rename(kit.share / "bin", kit.root / "elsewhere");
    fs::create_symlink(kit.root / "elsewhere", kit.share / "bin");
  }
  kit.is_replaced({"bin/mps-run"});
}

TEST_CASE("one of an earlier version is replaced") {
  Put kit;
  Kit::write(kit.root / "shim", "a newer one");
  auto next = kit.programs();
  CHECK(next.keep(kit.share).replaced == Paths{"lib/libmps-shim.so"});
  kit.are_right();
}

TEST_CASE("a source that is not there is said, and the other one goes on") {
  Kit kit;
  fs::remove(kit.root / "run");
  auto kept = kit.programs();
  REQUIRE(kit.missing.size() == 1);
  CHECK(kit.missing[0].message ==
        "cannot read " + (kit.root / "run").string() + ": No such file or directory");
  CHECK_FALSE(kept.keep(kit.root / "share").trouble);
  CHECK(fs::exists(kit.root / "share/lib/libmps-shim.so"));
  CHECK_FALSE(fs::exists(kit.root / "share/bin"));
}

TEST_CASE("what cannot be put there is said") {
  Put kit;
  const auto program = kit.share / "bin/mps-run";
  fs::remove(program);
  fs::create_directories(program / "in-the-way");
  const auto looked = kit.kept.keep(kit.share);
  REQUIRE(looked.trouble);
  CHECK(looked.trouble->message.starts_with(program.string() + ": cannot put it there: "));
  CHECK(std::distance(fs::directory_iterator(kit.share / "bin"), {}) == 1);
  const auto gone = kit.kept.keep(kit.root / "nowhere");
  REQUIRE(gone.trouble);
  CHECK(gone.trouble->message ==
        "cannot open " + (kit.root / "nowhere").string() + ": No such file or directory");
}
