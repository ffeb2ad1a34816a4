#include "share/checkpoint_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/no_room_kit.h"

using namespace mps;
using namespace mps::share;
using mps::test::NoRoom;

namespace {

struct Folder {
  Folder() {
    std::string name = "/tmp/checkpoint-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::filesystem::path file() const { return path / "checkpoint"; }
  std::filesystem::path path;
};

Change slot(SlotId id) {
  return SlotMade{{id, 0, "gpu0.shared", "GPU-0", {static_cast<pid_t>(id), 7}, 0, {}}};
}

Result<void> record(CheckpointFile& file, const Change& change) {
  return file.record(std::span(&change, 1));
}

CheckpointFile open(const Folder& folder, CheckpointBounds bounds = {}) {
  auto opened = CheckpointFile::open(folder.file(), bounds);
  REQUIRE(opened.has_value());
  return std::move(opened->file);
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("what was recorded is there for the next one") {
  const Folder folder;
  {
    auto file = open(folder);
    CHECK(record(file, slot(1)));
    const std::vector<Change> both = {slot(2), SlotEnded{1}};
    CHECK(file.record(both));
    CHECK(file.record({}));
    CHECK(file.size() == std::filesystem::file_size(folder.file()));
  }
  struct stat status {};
  CHECK(::stat(folder.file().c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600U);
  const auto again = CheckpointFile::open(folder.file());
  REQUIRE(again.has_value());
  CHECK(again->replay.changes.size() == 3);
  CHECK(again->file.state().slots.size() == 1);
  CHECK(again->file.state().counters == Counters{1, 1, 3});
}

TEST_CASE("half a line is not built upon") {
  const Folder folder;
  std::ofstream(folder.file()) << encode(slot(1)) << "123";
  auto opened = CheckpointFile::open(folder.file());
  REQUIRE(opened.has_value());
  CHECK(opened->replay.torn);
  CHECK(opened->file.behind());
  CHECK(record(opened->file, slot(2)));
  CHECK_FALSE(opened->file.behind());
  const auto read = replay(contents(folder.file()));
  CHECK_FALSE(read.torn);
  CHECK(read.problems.empty());
  CHECK(read.state == opened->file.state());
}

TEST_CASE("counters that went ahead because of damage stay there") {
  const Folder folder;
  std::ofstream(folder.file()) << encode(slot(1)) << "damage\n";
  auto file = open(folder);
  CHECK(record(file, slot(file.state().counters.slot)));
  CHECK(replay(contents(folder.file())).state.counters.slot == 2 + 1048576 + 1);
  CHECK(replay(contents(folder.file())).problems.empty());
}

TEST_CASE("it is written anew when most of it is of the past") {
  const Folder folder;
  auto file = open(folder, {4096, 1U << 20U});
  std::uint64_t largest = 0;
  for (SlotId id = 1; id <= 1000; ++id) {
    REQUIRE(record(file, slot(id)));
    REQUIRE(record(file, SlotEnded{id}));
    largest = std::max(largest, file.size());
  }
  CHECK(largest < 4096 + 512);
  CHECK(file.size() == std::filesystem::file_size(folder.file()));
  CHECK_FALSE(std::filesystem::exists(folder.file().string() + ".new"));
  const auto read = replay(contents(folder.file()));
  CHECK(read.state == file.state());
  CHECK(read.state.counters.slot == 1001);
}

TEST_CASE("what is alive is not written again and again") {
  const Folder folder;
  auto file = open(folder, {1024, 1U << 20U});
  unsigned fresh = 0;
  for (SlotId id = 1; id <= 2000; ++id) {
    const auto before = file.size();
    REQUIRE(record(file, slot(id)));
    if (file.size() < before + 20) ++fresh;
  }
  CHECK(replay(contents(folder.file())).state == file.state());
  CHECK(fresh < 12);
}

TEST_CASE("a failed write is said, and made good with the next change") {
  const Folder folder;
  auto file = open(folder);
  CHECK(record(file, slot(1)));
  {
    const NoRoom full(file.size() + 10);
    const auto failed = record(file, slot(2));
    REQUIRE_FALSE(failed);
    CHECK(failed.error().message ==
          "write " + folder.file().string() + ": No space left on device");
    CHECK(file.behind());
    CHECK(file.state().slots.size() == 2);
    const auto again = record(file, slot(3));
    REQUIRE_FALSE(again);
    CHECK(again.error().message ==
          "write " + folder.file().string() + ".new: No space left on device");
  }
  CHECK(replay(contents(folder.file())).state.slots.size() == 1);  // the old one stays readable
  CHECK(record(file, slot(4)));
  CHECK_FALSE(file.behind());
  CHECK(replay(contents(folder.file())).state == file.state());
  CHECK(file.state().slots.size() == 4);
}

TEST_CASE("it never grows beyond its bound") {
  const Folder folder;
  auto file = open(folder, {1024, 4096});
  bool failed = false;
  for (SlotId id = 1; id <= 100 && !failed; ++id) {
    const auto done = record(file, slot(id));
    failed = !done;
    if (failed) {
      CHECK(done.error().message ==
            folder.file().string() + ": what is alive does not fit into 0Mi");
    }
    REQUIRE(std::filesystem::file_size(folder.file()) <= 4096);
  }
  CHECK(failed);
  CHECK(record(file, SlotEnded{1}));
  CHECK_FALSE(file.behind());
  CHECK(replay(contents(folder.file())).state == file.state());
}

TEST_CASE("what is not ours to use") {
  const Folder folder;
  std::ofstream(folder.file()) << std::string(5000, 'x');
  const auto large = CheckpointFile::open(folder.file(), {1024, 4096});
  REQUIRE(large.has_error());
  CHECK(large.error().message ==
        folder.file().string() + ": too large for a checkpoint, more than 0Mi");
  const auto link = folder.path / "link";
  std::filesystem::create_symlink(folder.file(), link);
  const auto linked = CheckpointFile::open(link);
  REQUIRE(linked.has_error());
  CHECK(linked.error().message == "open " + link.string() + ": Too many levels of symbolic links");
  const auto nowhere = CheckpointFile::open(folder.path / "no" / "checkpoint");
  REQUIRE(nowhere.has_error());
}
