#include "base/append_file.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/no_room_kit.h"

using namespace mps;

namespace {

struct File {
  File() {
    std::string name = "/tmp/append-file-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = std::filesystem::path(name) / "file";
  }
  ~File() { std::filesystem::remove_all(path.parent_path()); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] AppendFile open() const {
    auto opened = AppendFile::open(path, 1 << 20, "a test");
    REQUIRE(opened.has_value());
    return std::move(opened->file);
  }
  [[nodiscard]] AppendFile::Successor next() const {
    auto made = AppendFile::Successor::make(path, ".next");
    REQUIRE(made.has_value());
    return std::move(*made);
  }
  [[nodiscard]] std::string text() const {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  [[nodiscard]] std::string beside() const { return path.string() + ".next"; }

  std::filesystem::path path;
};

}  // namespace

TEST_CASE("a successor takes the file's place, and is appended to") {
  const File file;
  auto kept = file.open();
  REQUIRE(kept.append("old\n"));
  auto next = file.next();
  CHECK(next.append("new\n"));
  CHECK(next.sync());
  CHECK(file.text() == "old\n");
  const auto before = kept.handle();
  REQUIRE(before.has_value());
  CHECK(kept.succeed(std::move(next)));
  CHECK(kept.size() == 4);
  CHECK(kept.append("newer\n"));
  CHECK(file.text() == "new\nnewer\n");
  CHECK_FALSE(std::filesystem::exists(file.beside()));
  // Whoever has the one before reads on in it.
  CHECK(read_part(before->get(), 1, 3, "before").value() == "ld\n");
  CHECK(read_part(before->get(), 1, 4, "before").error().message == "before ends before 5");
}

TEST_CASE("a successor that is not used is gone, and what has its name makes room") {
  const File file;
  auto kept = file.open();
  std::filesystem::create_symlink("/nonexistent/elsewhere", file.beside());
  {
    const auto next = file.next();
    CHECK(std::filesystem::is_regular_file(file.beside()));
  }
  CHECK_FALSE(std::filesystem::exists(file.beside()));
  std::filesystem::create_directory(file.beside());
  CHECK(AppendFile::Successor::make(file.path, ".next").error().message ==
        "open " + file.beside() + ": File exists");
}

TEST_CASE("a successor that cannot take the place leaves the file as it is") {
  const File file;
  auto kept = file.open();
  REQUIRE(kept.append("old\n"));
  auto next = file.next();
  std::filesystem::remove(file.beside());
  CHECK(kept.succeed(std::move(next)).error().message ==
        "rename " + file.beside() + ": No such file or directory");
  CHECK(kept.append("on\n"));
  CHECK(file.text() == "old\non\n");
}

TEST_CASE("on a full disk the file is as it was") {
  const File file;
  auto kept = file.open();
  REQUIRE(kept.append("old\n"));
  {
    const test::NoRoom no_room(6);
    CHECK(kept.append("more\n").error().message ==
          "write " + file.path.string() + ": No space left on device");
    CHECK(kept.replace("too much\n").error().message ==
          "write " + file.path.string() + ".new: No space left on device");
  }
  CHECK(file.text() == "old\n");
  CHECK(kept.size() == 4);
  CHECK_FALSE(std::filesystem::exists(file.path.string() + ".new"));
}
