#include "process/directory_watch.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "process/test_support.h"

using namespace mps;
using namespace mps::process;
using namespace mps::process::testing;
using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

// So long that what a test sees came from inotify, or so short that it need not wait.
const DirectoryWatchSettings k_inotify_alone{.poll = 1h, .refresh = 1h};
const DirectoryWatchSettings k_polling{.poll = 2ms, .refresh = 1h};

void write(const fs::path& path, std::string_view text = "text") {
  std::ofstream file(path);
  file << text;
  REQUIRE(file.flush());
}

// As kubelet does it: a new directory, a link to it renamed over `..data`, the files' links, and
// the old directory removed.
void publish(const fs::path& volume, const std::string& version) {
  const auto data = volume / "..data";
  const auto old = fs::is_symlink(data) ? fs::read_symlink(data) : fs::path();
  fs::create_directory(volume / version);
  write(volume / version / "a.yaml", version);
  fs::create_directory_symlink(version, volume / "..data_tmp");
  fs::rename(volume / "..data_tmp", data);
  if (!fs::is_symlink(volume / "a.yaml")) fs::create_symlink("..data/a.yaml", volume / "a.yaml");
  if (!old.empty()) fs::remove_all(volume / old);
}

class DescriptorLimit {
 public:
  explicit DescriptorLimit(int limit) {
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
    auto lower = before_;
    lower.rlim_cur = static_cast<rlim_t>(limit);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &lower) == 0);
  }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  ~DescriptorLimit() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

struct Fixture {
  Fixture() {
    fs::create_directory(path);
    const asio::steady_timer first(io);  // opens what the reactor itself needs
  }

  void start(const DirectoryWatchSettings& settings) {
    watch = DirectoryWatch::create(
        io.get_executor(), path, [this] { ++calls; }, settings);
    CHECK(calls == 0);
  }
  // Calls that come of what has been done, without waiting: inotify queues before a change returns.
  int noticed() {
    calls = 0;
    io.restart();
    io.poll();
    return calls;
  }
  // Whether inotify watches the directory that the path is now. The first call may be that of the
  // poll which took up the watch.
  bool is_watched() {
    noticed();
    write(path / "probe");
    if (!run_until(io, [&] { return calls > 0; })) return false;
    noticed();
    write(path / "probe");
    return noticed() == 1 && watch->trouble().empty();
  }
  bool called() {
    calls = 0;
    return run_until(io, [&] { return calls > 0; });
  }

  TempFolder folder;
  fs::path path = folder / "policies";
  asio::io_context io;
  int calls = 0;
  std::unique_ptr<DirectoryWatch> watch;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "what is there already calls nobody") {
  write(path / "a.yaml");
  start(k_inotify_alone);
  CHECK(noticed() == 0);
  CHECK(watch->trouble().empty());
}

TEST_CASE_FIXTURE(Fixture, "every way of changing a file is noticed, once") {
  write(path / "a.yaml");
  write(folder / "elsewhere");
  start(k_inotify_alone);
  write(path / "a.yaml", "in place");
  CHECK(noticed() == 1);
  write(path / "new.yaml");
  CHECK(noticed() == 1);
  fs::rename(path / "new.yaml", path / "a.yaml");
  CHECK(noticed() == 1);
  fs::rename(folder / "elsewhere", path / "b.yaml");
  CHECK(noticed() == 1);
  fs::rename(path / "b.yaml", folder / "elsewhere");
  CHECK(noticed() == 1);
  fs::permissions(path / "a.yaml", fs::perms::owner_all);
  CHECK(noticed() == 1);
  fs::create_symlink("a.yaml", path / "link.yaml");
  CHECK(noticed() == 1);
  fs::create_hard_link(path / "a.yaml", path / "hard.yaml");
  CHECK(noticed() == 1);
  fs::create_directory(path / "directory.yaml");
  CHECK(noticed() == 1);
  fs::remove(path / "a.yaml");
  CHECK(noticed() == 1);
  CHECK(noticed() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a file that is being written is noticed when it is closed") {
  write(path / "old.yaml");
  start(k_inotify_alone);
  for (const auto* name : {"old.yaml", "new.yaml"}) {
    auto file = open_file(path / name, O_WRONLY | O_CREAT | O_TRUNC);
    for (int i = 0; i < 3; ++i) {
      REQUIRE(::write(file.get(), "half", 4) == 4);
      CHECK(noticed() == 0);
    }
    file.reset();
    CHECK(noticed() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "a new file that nobody closes is noticed at the poll") {
  start(k_polling);
  const auto file = open_file(path / "new.yaml", O_WRONLY | O_CREAT);
  CHECK(called());
}

TEST_CASE_FIXTURE(Fixture, "reading calls nobody") {
  write(path / "a.yaml");
  start(k_inotify_alone);
  CHECK(read_text(path / "a.yaml") == "text");
  for (const auto& entry : fs::directory_iterator(path)) CHECK(entry.exists());
  CHECK(noticed() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a ConfigMap's new version is noticed") {
  publish(path, "..2026_1");
  start(k_inotify_alone);
  for (int i = 2; i < 5; ++i) {
    publish(path, "..2026_" + std::to_string(i));
    CHECK(noticed() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "a burst of 500 renames is few calls, and one after the last") {
  write(path / "0");
  start(k_inotify_alone);
  const auto rename = [&](int i) {
    fs::rename(path / std::to_string(i), path / std::to_string(i + 1));
  };
  SUBCASE("all at once") {
    for (int i = 0; i < 500; ++i) rename(i);
    CHECK(noticed() == 1);
  }
  SUBCASE("with turns of the reactor between them") {
    for (int i = 0; i < 500; ++i) {
      rename(i);
      if (i % 10 == 9) CHECK(noticed() == 1);
    }
  }
  CHECK(noticed() == 0);
}

TEST_CASE_FIXTURE(Fixture, "more events than inotify queues lose nothing") {
  write(path / "a");
  write(path / "b");
  start(k_inotify_alone);
  for (int i = 0; i < 20'000; ++i) {
    REQUIRE(::chmod((path / (i % 2 == 0 ? "a" : "b")).c_str(), 0600) == 0);
  }
  const int calls_of_all = noticed();
  CHECK(calls_of_all >= 1);
  CHECK(calls_of_all < 100);
  write(path / "a");
  CHECK(noticed() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a directory that is missing is noticed when it is made") {
  fs::remove(path);
  start(k_polling);
  CHECK(watch->trouble().empty());
  fs::create_directory(path);
  CHECK(called());
  CHECK(is_watched());
}

TEST_CASE_FIXTURE(Fixture, "a directory that is removed and made again is watched again") {
  start(k_polling);
  for (int i = 0; i < 20; ++i) {
    fs::remove_all(path);
    // Half of the time it is there again before anything was noticed, often with its old number.
    if (i % 2 == 0) CHECK(called());
    fs::create_directory(path);
    CHECK(called());
    CHECK(is_watched());
  }
}

TEST_CASE_FIXTURE(Fixture, "a directory that is moved away and made again is watched again") {
  start(k_polling);
  fs::rename(path, folder / "old");
  CHECK(called());
  fs::create_directory(path);
  CHECK(called());
  CHECK(is_watched());
  noticed();
  write(folder / "old" / "a.yaml");
  CHECK(noticed() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a directory that takes the other's place at once is watched") {
  fs::create_directory(folder / "new");
  start(k_inotify_alone);
  fs::rename(path, folder / "old");
  fs::rename(folder / "new", path);
  CHECK(noticed() == 1);
  CHECK(is_watched());
}

TEST_CASE_FIXTURE(Fixture, "a link to a directory that is switched is followed") {
  fs::create_directory(folder / "one");
  fs::create_directory(folder / "two");
  fs::remove(path);
  fs::create_directory_symlink("one", path);
  start(k_polling);
  for (const auto* next : {"two", "one", "two"}) {
    fs::create_directory_symlink(next, folder / "tmp");
    fs::rename(folder / "tmp", path);
    CHECK(called());
    CHECK(is_watched());
  }
  noticed();
  write(folder / "one" / "a.yaml");
  CHECK(noticed() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a file in the directory's place is a missing directory") {
  fs::remove(path);
  write(path);
  start(k_polling);
  CHECK(watch->trouble().empty());
  fs::remove(path);
  fs::create_directory(path);
  CHECK(called());
  CHECK(is_watched());
}

TEST_CASE_FIXTURE(Fixture, "it calls now and then whether anything was noticed or not") {
  start({.poll = 1ms, .refresh = 2ms});
  CHECK(run_until(io, [&] { return calls >= 3; }));
}

TEST_CASE_FIXTURE(Fixture, "without inotify every poll calls, until there is one") {
  std::string trouble;
  bool polled = false;
  {
    // The first descriptor that is free is one too many.
    const DescriptorLimit none(open_file(folder / "probe", O_RDWR | O_CREAT).get());
    start(k_polling);
    trouble = watch->trouble();
    polled = run_until(io, [&] { return calls >= 3; });
  }
  CHECK(polled);
  CHECK(trouble == "changes in " + path.string() +
                       " are only looked for every 2ms: inotify_init1: Too many open files; raise "
                       "fs.inotify.max_user_instances (or the limit of open files)");
  CHECK(run_until(io, [&] { return watch->trouble().empty(); }));
  CHECK(is_watched());
}

TEST_CASE("the trouble names the setting that helps") {
  CHECK(describe_watch_trouble("/x", 1s, "inotify_add_watch", ENOSPC) ==
        "changes in /x are only looked for every 1s: inotify_add_watch: No space left on device; "
        "raise fs.inotify.max_user_watches");
  CHECK(describe_watch_trouble("/x", 1s, "inotify_add_watch", EACCES) ==
        "changes in /x are only looked for every 1s: inotify_add_watch: Permission denied");
}

TEST_CASE_FIXTURE(Fixture, "destroyed, it calls nobody any more and leaves nothing open") {
  const auto before = open_descriptors();
  start({.poll = 1ms, .refresh = 1ms});
  REQUIRE(called());
  calls = 0;
  SUBCASE("with changes that nobody has looked at") {
    write(path / "a.yaml");
  }
  SUBCASE("with handlers queued") {
    write(path / "a.yaml");
    io.restart();
    io.poll_one();
    calls = 0;
  }
  SUBCASE("with its directory gone") {
    fs::remove(path);
  }
  watch.reset();
  CHECK(noticed() == 0);
  CHECK(open_descriptors() == before);
  io.restart();
  CHECK(io.run_for(1s) == 0);  // out of work
}

TEST_CASE_FIXTURE(Fixture, "a callback may destroy it") {
  for (const auto& settings :
       {k_inotify_alone, DirectoryWatchSettings{.poll = 1ms, .refresh = 1ms}}) {
    calls = 0;
    watch = DirectoryWatch::create(
        io.get_executor(), path,
        [this] {
          ++calls;
          watch.reset();
        },
        settings);
    write(path / "a.yaml");
    CHECK(run_until(io, [&] { return calls == 1; }));
    CHECK(noticed() == 0);
  }
}

TEST_CASE_FIXTURE(Fixture, "names that are of no concern call nobody") {
  auto settings = k_inotify_alone;
  settings.concerns = [](std::string_view name) { return name != "other"; };
  start(settings);
  write(path / "other");
  fs::remove(path / "other");
  fs::create_symlink("nowhere", path / "other");
  CHECK(noticed() == 0);
  write(path / "a.yaml");
  CHECK(noticed() == 1);
  fs::remove_all(path);
  CHECK(noticed() == 1);
}

namespace {

// Looks that wait until they are let.
struct Elsewhere : Fixture {
  void start_elsewhere(DirectoryWatchSettings settings) {
    settings.elsewhere = [this](DirectoryWatchSettings::Job job) {
      jobs.push_back(std::move(job));
    };
    start(settings);
  }
  // All looks, as a thread would do them, and what follows from them.
  void look() {
    while (!jobs.empty()) {
      auto all = std::exchange(jobs, {});
      for (auto& job : all) asio::post(io, job());
      all.clear();
      io.restart();
      io.poll();
    }
  }
  std::vector<DirectoryWatchSettings::Job> jobs;
};

}  // namespace

TEST_CASE_FIXTURE(Elsewhere, "a path that hangs when it is looked at hangs only where it is") {
  write(path / "a.yaml");
  start_elsewhere(k_polling);
  REQUIRE(jobs.size() == 1);
  // Polls come and go, and make no more of them.
  io.restart();
  for (int i = 0; i < 3; ++i) REQUIRE(io.run_one_for(60s) == 1);
  CHECK(jobs.size() == 1);
  CHECK(calls == 0);
  look();
  CHECK(calls == 0);  // what is there already
  CHECK(watch->trouble().empty());
  SUBCASE("what was closed is told without a look") {
    write(path / "a.yaml");
    noticed();
    CHECK(calls == 1);
  }
  SUBCASE("what was made is looked at") {
    calls = 0;
    fs::create_symlink("a.yaml", path / "link.yaml");
    REQUIRE(run_until(io, [&] { return !jobs.empty(); }));
    CHECK(calls == 0);
    look();
    CHECK(calls == 1);
  }
  SUBCASE("a file that was closed meanwhile is told once") {
    calls = 0;
    watch.reset();
    jobs.clear();
    start_elsewhere(k_inotify_alone);
    look();
    auto file = open_file(path / "new.yaml", O_WRONLY | O_CREAT);
    io.restart();
    io.poll();
    REQUIRE(jobs.size() == 1);
    file.reset();
    io.restart();
    io.poll();
    CHECK(calls == 1);
    look();
    CHECK(calls == 1);
  }
  SUBCASE("another directory is taken up") {
    fs::rename(path, folder / "old");
    fs::create_directory(path);
    calls = 0;
    REQUIRE(run_until(io, [&] {
      look();
      return calls > 0;
    }));
    calls = 0;
    write(path / "b.yaml");
    REQUIRE(run_until(io, [&] {
      look();
      return calls > 0;
    }));
    CHECK(watch->trouble().empty());
  }
  SUBCASE("destroyed while it hangs, it leaves nothing") {
    REQUIRE(run_until(io, [&] { return !jobs.empty(); }));
    calls = 0;
    watch.reset();
    look();
    CHECK(calls == 0);
  }
}
