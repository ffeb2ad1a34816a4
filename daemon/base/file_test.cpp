#include "base/file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

using namespace mps;

namespace {

struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "mps-file-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

}  // namespace

TEST_CASE("a file is replaced whole, with nothing left beside it") {
  const Folder folder;
  const auto file = folder.path / "state.json";
  CHECK(*read_file(file, 100) == "");
  REQUIRE(replace_file(file, "one"));
  REQUIRE(replace_file(file, "two"));
  CHECK(*read_file(file, 100) == "two");
  struct stat found {};
  REQUIRE(::stat(file.c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0600);
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path)) {
    ++entries;
  }
  CHECK(entries == 1);
}

TEST_CASE("what cannot be read or written says which file") {
  const Folder folder;
  const auto file = folder.path / "state.json";
  REQUIRE(replace_file(file, std::string(101, 'x')));
  CHECK(read_file(file, 100).error().message ==
        file.string() + ": too large for what it should hold");
  const auto nowhere = folder.path / "no" / "state.json";
  CHECK(replace_file(nowhere, "x").error().message ==
        nowhere.string() + ".new: No such file or directory");
  CHECK(read_file(folder.path, 100).error().message == folder.path.string() + ": Is a directory");
}
