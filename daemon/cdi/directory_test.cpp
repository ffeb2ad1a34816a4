#include "cdi/directory.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/file.h"

using namespace mps;
using namespace mps::cdi;
namespace fs = std::filesystem;

namespace {

using Names = std::vector<std::string>;

struct Kit {
  Kit() {
    std::string pattern = "/tmp/mps-cdi-XXXXXX";
    root = ::mkdtemp(pattern.data());
    path = root / "cdi";
    fs::create_directories(root / "run/gpu0.shared/open");
    fs::create_directories(root / "other");
  }
  ~Kit() {
    std::error_code ignored;
    fs::remove_all(root, ignored);
  }
  Kit(const Kit&) = delete;
  Kit& operator=(const Kit&) = delete;

  [[nodiscard]] Spec share(const std::string& name) const {
    return {name, root / "run/gpu0.shared/shares" / name, share::Grant{25, 1024}, ""};
  }
  [[nodiscard]] Directory directory() const { return {path, root / "run"}; }
  [[nodiscard]] fs::path file(const std::string& name) const { return path / file_of(name); }
  [[nodiscard]] std::string text(const std::string& name) const {
    return *read_file(file(name), 65536);
  }
  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  [[nodiscard]] Names files() const {
    Names names;
    for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  fs::path root;
  fs::path path;
};

ino_t inode(const fs::path& path) {
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0644);
  return found.st_ino;
}

}  // namespace

TEST_CASE("files are what is wanted") {
  const Kit kit;
  auto directory = kit.directory();
  CHECK(directory.settle({}).empty());
  CHECK_FALSE(fs::exists(kit.path));  // not made for nothing
  REQUIRE(directory.settle({kit.share("s1"), kit.share("s2")}).empty());
  CHECK(kit.files() == Names{file_of("s1"), file_of("s2")});
  CHECK(kit.text("s1") == encode(kit.share("s1")));
  CHECK(directory.has("s1"));
  const auto before = inode(kit.file("s1"));
  CHECK(directory.settle({kit.share("s1")}).empty());
  CHECK(kit.files() == Names{file_of("s1")});
  CHECK(inode(kit.file("s1")) == before);
  CHECK_FALSE(directory.has("s2"));
  auto changed = kit.share("s1");
  changed.visible_devices = "GPU-1";
  CHECK(directory.settle({changed}).empty());
  CHECK(kit.text("s1") == encode(changed));
  CHECK(directory.remove("s1").has_value());
  CHECK(kit.files().empty());
  CHECK(directory.remove("s1").has_value());
}

TEST_CASE("what somebody did to a file is put right, and what a predecessor wrote is left") {
  const Kit kit;
  REQUIRE(kit.directory().settle({kit.share("s1")}).empty());
  const auto before = inode(kit.file("s1"));
  auto directory = kit.directory();
  REQUIRE(directory.settle({kit.share("s1")}).empty());
  CHECK(inode(kit.file("s1")) == before);
  SUBCASE("removed") {
    fs::remove(kit.file("s1"));
  }
  SUBCASE("changed") {
    Kit::write(kit.file("s1"), "{}");
  }
  SUBCASE("a link to elsewhere") {
    fs::remove(kit.file("s1"));
    Kit::write(kit.root / "elsewhere", "mine");
    fs::create_symlink(kit.root / "elsewhere", kit.file("s1"));
  }
  CHECK(directory.settle({kit.share("s1")}).empty());
  CHECK(kit.text("s1") == encode(kit.share("s1")));
  if (fs::exists(kit.root / "elsewhere")) CHECK(*read_file(kit.root / "elsewhere", 99) == "mine");
}

TEST_CASE("of what was there before, what is ours and not wanted goes; all else stays") {
  const Kit kit;
  fs::create_directory(kit.path);
  Kit::write(kit.file("s7"), encode(kit.share("s7")));
  Kit::write(kit.path / ("." + file_of("s7") + ".tmp"), "half");
  Kit::write(kit.file("s8"), encode({"s8", kit.root / "other/gpu0.shared/shares/s8"}));
  Kit::write(kit.file("s9"), "rubbish");
  Kit::write(kit.path / "nvidia.yaml", "x");
  auto directory = kit.directory();
  CHECK(directory.settle({kit.share("s1")}).empty());
  CHECK(kit.files() == Names{file_of("s1"), file_of("s8"), file_of("s9"), "nvidia.yaml"});
}

TEST_CASE("another supervisor's file of the same name is left, as long as its share is there") {
  const Kit kit;
  fs::create_directory(kit.path);
  const auto theirs = encode({"s1", kit.root / "other"});
  Kit::write(kit.file("s1"), theirs);
  auto directory = kit.directory();
  const auto why = kit.file("s1").string() + ": is of another supervisor, for " +
                   (kit.root / "other").string() + "; give one of the two a cdiDir of its own";
  CHECK(directory.settle({kit.share("s1"), kit.share("s2")}) == Names{why});
  CHECK(directory.why_not("s1") == why);
  CHECK_FALSE(directory.has("s1"));
  CHECK(directory.has("s2"));
  CHECK(kit.text("s1") == theirs);
  fs::remove(kit.root / "other");
  CHECK(directory.settle({kit.share("s1")}).empty());
  CHECK(kit.text("s1") == encode(kit.share("s1")));
}

TEST_CASE("what cannot be written is said, and tried again") {
  const Kit kit;
  auto directory = kit.directory();
  Kit::write(kit.path, "a file in its place");
  const auto why = kit.path.string() + ": Not a directory";
  CHECK(directory.settle({kit.share("s1")}) == Names{why});
  CHECK(directory.why_not("s1") == why);
  fs::remove(kit.path);
  CHECK(directory.settle({kit.share("s1")}).empty());
  CHECK(directory.why_not("s1").empty());
  fs::remove(kit.file("s1"));
  fs::create_directories(kit.file("s1") / "in-the-way");
  CHECK(directory.settle({kit.share("s1")}) == Names{kit.file("s1").string() + ": Is a directory"});
  CHECK_FALSE(directory.has("s1"));
}
