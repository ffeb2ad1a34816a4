#include "api/event_log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>
#include <random>

#include "api/test_support.h"
#include "base/no_room_kit.h"
#include "base/unique_fd.h"

using namespace mps::api;
using mps::api::test::TempDir;
using mps::test::NoRoom;

namespace {

std::unique_ptr<EventLog> open_in(const TempDir& directory, std::size_t ring = 4096,
                                  std::uint64_t limit = 16 * 1024 * 1024) {
  auto log = EventLog::open({directory.path(), ring, limit});
  REQUIRE_MESSAGE(log.has_value(), (log ? "" : log.error().message));
  return std::move(*log);
}

Event read_from_log(std::uint64_t end_offset, std::string instance = "gpu0.shared") {
  auto event = test::event("client_asked", "pid 100 asked", std::move(instance));
  event.position = LogPosition{"1:2", end_offset};
  return event;
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

void add(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::app) << text;
}

}  // namespace

TEST_CASE("the journal's lines are as documented, and its file is private") {
  const TempDir directory;
  auto log = open_in(directory);
  auto event = read_from_log(77);
  event.data = {{"pid", 100}};
  CHECK(log->append(event).id == 1);
  CHECK(contents(directory.path() / "journal.jsonl") ==
        R"({"checkpoint":{"lastId":0,"positions":{}}})"
        "\n"
        R"({"data":{"pid":100},"end":77,"id":1,"instance":"gpu0.shared","kind":"client_asked",)"
        R"("log":"1:2","message":"pid 100 asked","time":"2026-11-20T10:00:00.000Z"})"
        "\n");
  struct ::stat status {};
  REQUIRE(::stat((directory.path() / "journal.jsonl").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600U);
}

TEST_CASE("a new supervisor goes on where the old one stopped") {
  const TempDir directory;
  {
    auto log = open_in(directory);
    log->append(read_from_log(10));
    log->append(test::event("drained", "all gone"));
    log->append(read_from_log(30));
    log->append(read_from_log(20));  // a truncated log: the latest counts
  }
  auto log = open_in(directory, 3);
  CHECK(log->last_id() == 4);
  CHECK(log->position("gpu0.shared", "1:2") == 20);
  CHECK(!log->position("gpu0.shared", "another log"));
  CHECK(!log->position("gpu1.shared", "1:2"));
  REQUIRE(log->ring().size() == 3);
  CHECK(log->ring().front().id == 2);
  CHECK(log->ring().front().kind == "drained");
  CHECK(log->ring().front().message == "all gone");
  CHECK(log->ring().front().time == test::at("2026-11-20T10:00:00.000Z"));
  CHECK(log->append(read_from_log(40)).id == 5);
  CHECK(log->ring().size() == 3);
}

TEST_CASE("another log of the same instance begins anew") {
  const TempDir directory;
  auto log = open_in(directory);
  log->append(read_from_log(1000));
  auto event = read_from_log(5);
  event.position->log = "3:4";
  log->append(event);
  CHECK(log->position("gpu0.shared", "3:4") == 5);
  CHECK(!log->position("gpu0.shared", "1:2"));
}

TEST_CASE("a torn last line is cut off, and what makes no sense is skipped") {
  const TempDir directory;
  const auto file = directory.path() / "journal.jsonl";
  { open_in(directory)->append(read_from_log(10)); }
  add(file,
      "rubbish\n{\"id\":\"two\"}\n[1]\n\n{\"id\":1,\"kind\":\"again\",\"message\":\"\",\"time\":"
      "\"\"}\n");
  const auto good = contents(file);
  add(file, R"({"id":2,"kind":"torn)");
  auto log = open_in(directory);
  CHECK(log->torn_lines() == 1);
  CHECK(log->skipped_lines() == 5);
  CHECK(log->last_id() == 1);
  CHECK(contents(file) == good);
  CHECK(log->append(read_from_log(20)).id == 2);
  log.reset();
  CHECK(open_in(directory)->position("gpu0.shared", "1:2") == 20);
}

TEST_CASE("an endless line costs no memory") {
  const TempDir directory;
  const auto file = directory.path() / "journal.jsonl";
  { open_in(directory)->append(read_from_log(10)); }
  add(file, std::string(3 * 1024 * 1024, 'x') + "\n");
  auto log = open_in(directory);
  CHECK(log->skipped_lines() == 1);
  CHECK(log->torn_lines() == 0);
  CHECK(log->append(read_from_log(20)).id == 2);
}

TEST_CASE("positions and ids survive rotation") {
  const TempDir directory;
  {
    auto log = open_in(directory, 4096, 4096);
    log->append(read_from_log(10, "gpu1.shared"));  // rotated away, twice over
    for (std::uint64_t i = 0; i < 100; ++i) log->append(read_from_log(i * 10));
  }
  CHECK(std::filesystem::file_size(directory.path() / "journal.jsonl") < 5000);
  CHECK(std::filesystem::file_size(directory.path() / "journal.jsonl.1") < 5000);
  CHECK(contents(directory.path() / "journal.jsonl").starts_with(R"({"checkpoint":{"lastId":)"));
  auto log = open_in(directory, 4096, 4096);
  CHECK(log->last_id() == 101);
  CHECK(log->position("gpu1.shared", "1:2") == 10);
  CHECK(log->position("gpu0.shared", "1:2") == 990);
  CHECK(log->skipped_lines() == 0);
  CHECK(log->ring().size() > 20);
  CHECK(log->ring().size() < 100);
  CHECK(log->ring().back().id == 101);
}

TEST_CASE("a death in the middle of a rotation loses nothing") {
  const TempDir directory;
  { open_in(directory)->append(read_from_log(10)); }
  std::filesystem::rename(directory.path() / "journal.jsonl", directory.path() / "journal.jsonl.1");
  add(directory.path() / "journal.jsonl.new", "half a check");
  auto log = open_in(directory);
  CHECK(log->position("gpu0.shared", "1:2") == 10);
  CHECK(log->append(read_from_log(20)).id == 2);
  CHECK(contents(directory.path() / "journal.jsonl")
            .starts_with(R"({"checkpoint":{"lastId":1,"positions":{"gpu0.shared":{"end":10,)"));
}

TEST_CASE("what is too long is cut") {
  const TempDir directory;
  auto log = open_in(directory);
  auto event = test::event("k", std::string(1023, 'x') + "é");
  event.data = {{"blob", std::string(5000, 'y')}};
  const auto& recorded = log->append(event);
  CHECK(recorded.message == std::string(1023, 'x'));
  CHECK(recorded.data == nlohmann::json{{"omittedBytes", 5011}});
  event = test::event("k", "process \xff\xfe asked");
  log->append(event);
  log.reset();
  CHECK(open_in(directory)->ring().back().message == "process \xef\xbf\xbd\xef\xbf\xbd asked");
}

TEST_CASE("with a full disk events live in memory, and are written when there is room") {
  const TempDir directory;
  const auto file = directory.path() / "journal.jsonl";
  auto log = open_in(directory);
  log->append(read_from_log(10));
  const auto good = contents(file);
  {
    const NoRoom full(good.size() + 40);  // room for half a line
    log->append(read_from_log(20));
    log->append(read_from_log(30));
    CHECK(log->write_errors() == 2);
    CHECK(log->last_id() == 3);
    CHECK(log->ring().size() == 3);
    CHECK(log->position("gpu0.shared", "1:2") == 30);
    CHECK(contents(file) == good);  // nothing torn stays
  }
  log->append(read_from_log(40));
  CHECK(log->write_errors() == 2);
  log.reset();
  log = open_in(directory);
  CHECK(log->torn_lines() + log->skipped_lines() == 0);
  CHECK(log->ring().size() == 4);
  CHECK(log->last_id() == 4);
}

TEST_CASE("a rotation that finds no room changes nothing") {
  const TempDir directory;
  auto log = open_in(directory, 4096, 100);
  log->append(read_from_log(10));
  {
    const NoRoom full(10);
    log->append(read_from_log(20));
    CHECK(log->write_errors() == 2);  // neither the new file nor the old one took it
    CHECK(!std::filesystem::exists(directory.path() / "journal.jsonl.1"));
    CHECK(!std::filesystem::exists(directory.path() / "journal.jsonl.new"));
  }
  log->append(read_from_log(30));
  log.reset();
  log = open_in(directory);
  // So small a limit keeps an event in each file.
  CHECK(log->ring().size() == 2);
  CHECK(log->last_id() == 3);
  CHECK(log->position("gpu0.shared", "1:2") == 30);
  CHECK(log->skipped_lines() == 0);
}

TEST_CASE("a file that cannot be rotated grows to twice its limit and no further") {
  const TempDir directory;
  const auto file = directory.path() / "journal.jsonl";
  auto log = open_in(directory, 4096, 1000);
  // A directory in the place of the new file.
  std::filesystem::create_directory(file.string() + ".new");
  while (std::filesystem::file_size(file) < 2000) log->append(read_from_log(log->last_id() + 1));
  const auto full = contents(file);
  const auto errors = log->write_errors();
  CHECK(errors > 0);
  log->append(read_from_log(100));
  log->append(read_from_log(101));
  CHECK(contents(file) == full);
  CHECK(log->write_errors() == errors + 4);  // neither rotated nor written, twice
  CHECK(log->position("gpu0.shared", "1:2") == 101);
  const auto last = log->last_id();
  std::filesystem::remove(file.string() + ".new");
  log->append(read_from_log(102));
  log.reset();
  log = open_in(directory, 4096, 1000);
  CHECK(log->skipped_lines() == 0);
  CHECK(log->last_id() == last + 1);
  CHECK(log->ring().size() == last + 1);
  CHECK(log->position("gpu0.shared", "1:2") == 102);
}

TEST_CASE("a journal that cannot be opened is an error with its reason") {
  const auto log = EventLog::open({"/nonexistent/state", 10, 1000});
  REQUIRE(!log);
  CHECK(log.error().message == "open /nonexistent/state/journal.jsonl: No such file or directory");
  const TempDir directory;
  const auto file = (directory.path() / "journal.jsonl").string();
  std::filesystem::create_symlink("/dev/full", file);
  const auto link = EventLog::open({directory.path(), 10, 1000});
  REQUIRE(!link);
  CHECK(link.error().message == "open " + file + ": Too many levels of symbolic links");
  std::filesystem::remove(file);
  const NoRoom full(0);
  const auto no_room = EventLog::open({directory.path(), 10, 1000});
  REQUIRE(!no_room);
  CHECK(no_room.error().message == "write " + file + ": File too large");
}

TEST_CASE("listeners hear each event once, and may end themselves") {
  const TempDir directory;
  auto log = open_in(directory);
  std::vector<std::uint64_t> heard;
  std::uint64_t once = 0;
  log->subscribe([&heard](const Event& event) { heard.push_back(event.id); });
  once = log->subscribe([&](const Event& event) {
    heard.push_back(event.id + 100);
    log->unsubscribe(once);
  });
  log->append(test::event("a", ""));
  log->append(test::event("b", ""));
  CHECK(heard == std::vector<std::uint64_t>{1, 101, 2});
}

namespace {

// Tells through `told` once the first event is written.
[[noreturn]] void write_for_ever(const TempDir& directory, int told) {
  auto log = EventLog::open({directory.path(), 64, 16 * 1024});
  if (!log) _exit(1);
  const auto append = [&log] { (*log)->append(read_from_log(((*log)->last_id() + 1) * 10)); };
  append();
  if (write(told, "", 1) != 1) _exit(1);
  for (;;) append();
}

}  // namespace

TEST_CASE("kill -9 at any moment leaves no hole, no repetition, and the right position") {
  const TempDir directory;
  std::mt19937 random(20261120);  // NOLINT: the same each time
  std::uint64_t last = 0;
  for (int round = 0; round < 25; ++round) {
    std::array<int, 2> ends{};
    REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
    const mps::UniqueFd hears(ends[0]);
    mps::UniqueFd tells(ends[1]);
    const pid_t writer = fork();
    REQUIRE(writer >= 0);
    if (writer == 0) write_for_ever(directory, tells.get());
    tells.reset();
    char written = 0;
    REQUIRE(read(hears.get(), &written, 1) == 1);
    const auto pause = std::chrono::microseconds(random() % 8000);
    std::this_thread::sleep_for(pause);  // a random moment is what is tested
    kill(writer, SIGKILL);
    REQUIRE(waitpid(writer, nullptr, 0) == writer);

    auto log = open_in(directory);
    CHECK(log->skipped_lines() == 0);
    CHECK(log->last_id() > last);
    last = log->last_id();
    CHECK(log->position("gpu0.shared", "1:2") == last * 10);
    REQUIRE(!log->ring().empty());
    CHECK(log->ring().back().id == last);
    CHECK(log->ring().back().id - log->ring().front().id + 1 == log->ring().size());
  }
}
