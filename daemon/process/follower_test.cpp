#include "process/follower.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/text.h"
#include "process/child.h"
#include "process/proc.h"
#include "process/test_support.h"

using namespace mps;
using namespace mps::process;
using namespace mps::process::testing;
namespace asio = boost::asio;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool k_memory_is_ours = false;
#else
constexpr bool k_memory_is_ours = true;
#endif

std::uint64_t bytes_on_disk(const std::filesystem::path& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

bool can_punch(const TempFolder& folder) {
  const auto file = open_file(folder / "punch", O_RDWR | O_CREAT);
  return ::ftruncate(file.get(), 65536) == 0 &&
         (::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 65536) == 0 ||
          errno != EOPNOTSUPP);
}

void append(const UniqueFd& file, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(file.get(), text.data(), text.size());
    REQUIRE(written > 0);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// A log, its writer's descriptor, and what a follower said of it.
struct Log {
  explicit Log(const TempFolder& folder, std::string_view name = "log")
      : path(folder / name), writer(open_file(path, O_WRONLY | O_CREAT | O_APPEND)) {}

  void follow(Follower& follower, std::uint64_t offset = 0) {
    auto added = follower.follow(
        open_file(path, O_RDWR), offset,
        [this](std::span<const FollowedLine> batch) {
          for (const auto& line : batch) {
            lines.emplace_back(line.text);
            end = line.end_offset;
          }
        },
        [this](const Error& error) { errors.push_back(error.message); });
    REQUIRE(added);
    id = *added;
  }

  std::filesystem::path path;
  UniqueFd writer;
  Follower::Id id = 0;
  std::vector<std::string> lines;
  std::vector<std::string> errors;
  std::uint64_t end = 0;
};

using Lines = std::vector<std::string>;

struct Fixture {
  Fixture() {
    auto made = Follower::create(io.get_executor());
    REQUIRE(made);
    follower = std::move(*made);
  }
  bool until_lines(const Log& log, std::size_t count) {
    return run_until(io, [&] { return log.lines.size() >= count; });
  }

  TempFolder folder;
  asio::io_context io;
  std::unique_ptr<Follower> follower;
};

// Counts numbered lines without keeping them.
struct Sequence {
  void take(std::span<const FollowedLine> batch) {
    largest_batch = std::max(largest_batch, batch.size());
    for (const auto& line : batch) {
      in_order = in_order && parse_number<std::uint64_t>(line.text) == last + 1;
      ++last;
      end = line.end_offset;
    }
  }
  std::uint64_t last = 0;
  std::uint64_t end = 0;
  std::size_t largest_batch = 0;
  bool in_order = true;
};

void no_error(const Error& error) {
  FAIL(error.message);
}

Child start_writer(asio::io_context& io, const UniqueFd& log, std::string script) {
  auto spec = shell(std::move(script));
  spec.stdout_fd = log.get();
  auto child = Child::spawn(io.get_executor(), spec);
  REQUIRE(child);
  return std::move(*child);
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "what is there comes soon, but not from inside follow") {
  Log log(folder);
  append(log.writer, "one\ntwo\nunfin");
  log.follow(*follower);
  CHECK(log.lines.empty());
  CHECK(until_lines(log, 2));
  append(log.writer, "ished\n");
  CHECK(until_lines(log, 3));
  CHECK(log.lines == Lines{"one", "two", "unfinished"});
  CHECK(log.end == 19);
  CHECK(follower->counters(log.id).lines == 3);
}

TEST_CASE_FIXTURE(Fixture, "it begins where it is told") {
  Log log(folder);
  append(log.writer, "one\ntwo\n");
  log.follow(*follower, 4);
  CHECK(until_lines(log, 1));
  CHECK(log.lines == Lines{"two"});
}

TEST_CASE_FIXTURE(Fixture, "rename and unlink do not matter") {
  Log log(folder);
  log.follow(*follower);
  std::filesystem::rename(log.path, folder / "renamed");
  append(log.writer, "one\n");
  CHECK(until_lines(log, 1));
  std::filesystem::remove(folder / "renamed");
  append(log.writer, "two\n");
  CHECK(until_lines(log, 2));

  // What had no name to begin with.
  Log nameless(folder, "nameless");
  auto file = open_file(nameless.path, O_RDWR);
  std::filesystem::remove(nameless.path);
  bool seen = false;
  REQUIRE(follower->follow(
      std::move(file), 0, [&](std::span<const FollowedLine>) { seen = true; }, no_error));
  append(nameless.writer, "x\n");
  CHECK(run_until(io, [&] { return seen; }));
}

TEST_CASE_FIXTURE(Fixture, "a truncated file is read from its beginning, and counted") {
  Log log(folder);
  append(log.writer, "one\ntwo\n");
  log.follow(*follower);
  REQUIRE(until_lines(log, 2));
  REQUIRE(::ftruncate(log.writer.get(), 0) == 0);
  REQUIRE(run_until(io, [&] { return follower->counters(log.id).truncations == 1; }));
  append(log.writer, "three\n");
  CHECK(until_lines(log, 3));
  CHECK(log.lines.back() == "three");
  CHECK(log.end == 6);
}

TEST_CASE_FIXTURE(Fixture, "drain reads now, also what inotify never told") {
  Log log(folder);
  append(log.writer, "one\n");
  log.follow(*follower);
  append(log.writer, "two\nunfinished");
  follower->drain(log.id);  // the reactor has not run yet
  CHECK(log.lines == Lines{"one", "two"});
  follower->drain(log.id);
  CHECK(log.lines.size() == 2);
  follower->drain(log.id + 1);
}

TEST_CASE_FIXTURE(Fixture,
                  "100,000 lines while they are written: all once, in order, nothing kept") {
  Log log(folder);
  Sequence sequence;
  const auto added = follower->follow(
      open_file(log.path, O_RDWR), 0,
      [&](std::span<const FollowedLine> batch) { sequence.take(batch); }, no_error);
  REQUIRE(added);
  const auto memory = Proc{}.resident_bytes(::getpid()).value_or(0);
  // seq writes in blocks, so most writes end in the middle of a line.
  auto writer = start_writer(io, log.writer, "seq -f %020.0f 1 100000");
  REQUIRE(run_until(io, [&] { return sequence.last == 100'000; }));
  CHECK(finish(io, writer.wait()).success());
  CHECK(sequence.in_order);
  CHECK(sequence.largest_batch <= 1000);
  CHECK(sequence.end == 2'100'000);
  CHECK(std::filesystem::file_size(log.path) == 2'100'000);
  CHECK(follower->counters(*added).lines == 100'000);
  if (k_memory_is_ours) {
    CHECK(Proc{}.resident_bytes(::getpid()).value_or(0) < memory + (8U << 20));
  }
  if (can_punch(folder)) {
    CHECK(bytes_on_disk(log.path) < (1U << 20));
    CHECK(follower->counters(*added).punch_failures == 0);
  } else {
    MESSAGE("skipped: this file system cannot punch holes");
  }
}

TEST_CASE_FIXTURE(Fixture, "a burst that was there before comes in turns with the others") {
  Log flood(folder, "flood");
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += "some line of a flood\n";
  append(flood.writer, text);
  flood.follow(*follower);
  Log quiet(folder, "quiet");
  append(quiet.writer, "a word\n");
  quiet.follow(*follower);
  REQUIRE(until_lines(quiet, 1));
  CHECK(flood.lines.size() < 50'000);
  CHECK(until_lines(flood, 50'000));
}

TEST_CASE_FIXTURE(Fixture,
                  "a successor reads on where the first stopped, with the writer going on") {
  Log log(folder);
  auto writer =
      start_writer(io, log.writer, "i=1; while [ $i -le 30000 ]; do echo $i; i=$((i+1)); done");
  Sequence sequence;
  const auto take = [&](std::span<const FollowedLine> batch) { sequence.take(batch); };
  std::uint64_t target = 0;
  for (int life = 0; life < 5; ++life) {
    auto made = Follower::create(io.get_executor());
    REQUIRE(made);
    follower = std::move(*made);
    REQUIRE(follower->follow(open_file(log.path, O_RDWR), sequence.end, take, no_error));
    target += 5000;
    REQUIRE(run_until(io, [&] { return sequence.last >= target; }));
  }
  REQUIRE(run_until(io, [&] { return sequence.last >= 30'000; }));
  CHECK(finish(io, writer.wait()).success());
  CHECK(sequence.in_order);
  CHECK(sequence.last == 30'000);
  CHECK(sequence.end == std::filesystem::file_size(log.path));
}

TEST_CASE_FIXTURE(Fixture, "a successor that knows no offset skips the hole") {
  Log log(folder);
  log.follow(*follower);
  for (int i = 0; i < 20'000; ++i) append(log.writer, "something of some length\n");
  REQUIRE(until_lines(log, 20'000));
  append(log.writer, "fresh\n");
  REQUIRE(until_lines(log, 20'001));
  const auto first_end = log.end;
  log.lines.clear();
  auto second = Follower::create(io.get_executor());
  REQUIRE(second);
  log.follow(**second);
  REQUIRE(run_until(io, [&] {
    return log.end == first_end && !log.lines.empty() && log.lines.back() == "fresh";
  }));
  if (can_punch(folder)) CHECK(log.lines.size() < 10'000);
  for (const auto& line : log.lines) REQUIRE(line.find('\0') == std::string::npos);
}

TEST_CASE_FIXTURE(Fixture, "a line without end neither fills the disk nor hides the next") {
  Log log(folder);
  log.follow(*follower);
  const std::string block(1U << 20, 'x');
  for (int i = 0; i < 8; ++i) {
    append(log.writer, block);
    follower->drain(log.id);
  }
  if (can_punch(folder)) CHECK(bytes_on_disk(log.path) < (1U << 20));
  append(log.writer, "\nnext\n");
  REQUIRE(until_lines(log, 2));
  CHECK(log.lines[0] == std::string(Follower::k_line_limit, 'x'));
  CHECK(log.lines[1] == "next");
  CHECK(follower->counters(log.id).cut_lines == 1);
  CHECK(follower->counters(log.id).lines == 2);
}

TEST_CASE_FIXTURE(Fixture, "unfollow from inside of the callback, and two on one file") {
  Log log(folder);
  Log other = [&] {
    Log same(folder);
    same.follow(*follower);
    same.lines.reserve(16);
    follower->unfollow(same.id);
    return same;
  }();
  int calls = 0;
  Follower::Id id = 0;
  const auto added = follower->follow(
      open_file(log.path, O_RDWR), 0,
      [&](std::span<const FollowedLine> batch) {
        ++calls;
        follower->drain(id);  // nothing: we are inside
        follower->unfollow(id);
        CHECK(batch.front().text == "one");
      },
      no_error);
  REQUIRE(added);
  id = *added;
  log.follow(*follower);
  append(log.writer, "one\n");
  REQUIRE(until_lines(log, 1));
  append(log.writer, "two\n");
  REQUIRE(until_lines(log, 2));  // it still has its watch
  CHECK(calls == 1);
  CHECK(follower->counters(id).lines == 0);
  CHECK(other.lines.empty());
}

TEST_CASE_FIXTURE(Fixture, "a callback may drain another file") {
  Log first(folder, "first");
  Log second(folder, "second");
  append(first.writer, "one\ntwo\n");
  append(second.writer, "three\nfour\n");
  second.follow(*follower);
  Lines seen;
  REQUIRE(follower->follow(
      open_file(first.path, O_RDWR), 0,
      [&](std::span<const FollowedLine> batch) {
        follower->drain(second.id);
        for (const auto& line : batch) seen.emplace_back(line.text);
      },
      no_error));
  REQUIRE(run_until(io, [&] { return seen.size() == 2; }));
  CHECK(seen == Lines{"one", "two"});
  CHECK(second.lines == Lines{"three", "four"});
}

TEST_CASE_FIXTURE(Fixture, "a file that cannot be read says so, once") {
  Log log(folder);
  append(log.writer, "one\n");
  std::vector<std::string> errors;
  const auto added = follower->follow(
      open_file(log.path, O_WRONLY), 0, [](std::span<const FollowedLine>) { FAIL("no lines"); },
      [&](const Error& error) { errors.push_back(error.message); });
  REQUIRE(added);
  REQUIRE(run_until(io, [&] { return !errors.empty(); }));
  append(log.writer, "two\n");
  io.poll();
  CHECK(errors == Lines{"read a followed file: Bad file descriptor"});
  const auto closed = follower->follow(
      UniqueFd(), 0, [](auto) {}, no_error);
  REQUIRE_FALSE(closed);
  CHECK(closed.error().message == "follow a file: No such file or directory");
}

TEST_CASE_FIXTURE(Fixture, "a file that cannot be punched is still read") {
  Log log(folder);
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "something of some length\n";
  append(log.writer, text);
  std::size_t count = 0;
  const auto added = follower->follow(
      open_file(log.path, O_RDONLY), 0,
      [&](std::span<const FollowedLine> batch) { count += batch.size(); }, no_error);
  REQUIRE(added);
  REQUIRE(run_until(io, [&] { return count == 20'000; }));
  CHECK(follower->counters(*added).punch_failures == 1);
  CHECK(bytes_on_disk(log.path) >= text.size());
}

TEST_CASE_FIXTURE(Fixture, "when inotify overflows, every file is looked at") {
  Log log(folder, "log");
  Log other(folder, "other");
  log.follow(*follower);
  other.follow(*follower);
  io.poll();
  // Two files in turn, so that the kernel cannot merge the events; its queue holds 16384 of them
  // by default. Whatever it lost, nothing may be missing.
  for (int i = 0; i < 20'000; ++i) {
    append(log.writer, "a\n");
    append(other.writer, "b\n");
  }
  CHECK(until_lines(log, 20'000));
  CHECK(until_lines(other, 20'000));
}

TEST_CASE("a follower that goes leaves neither descriptors nor callbacks") {
  const TempFolder folder;
  asio::io_context io;
  Log log(folder);
  append(log.writer, "one\n");
  { REQUIRE(Follower::create(io.get_executor())); }
  io.poll();
  const auto before = open_descriptors();
  for (int i = 0; i < 20; ++i) {
    auto follower = Follower::create(io.get_executor());
    REQUIRE(follower);
    log.follow(**follower);
    if (i % 2 == 0) {
      io.restart();
      io.poll_one();
    }
    follower->reset();
    log.lines.clear();
    io.restart();
    io.poll();
    CHECK(log.lines.empty());
  }
  CHECK(open_descriptors() == before);
}
