#include "app/policy_directory.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

using namespace mps;
using namespace mps::app;
namespace fs = std::filesystem;

namespace {

using Files = std::vector<PolicyFile>;

class TempFolder {
 public:
  TempFolder() {
    auto pattern = (fs::temp_directory_path() / "mps-policies-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }

  fs::path path;
};

void write(const fs::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw std::runtime_error("write " + path.string());
}

struct Fixture {
  [[nodiscard]] Files read() const {
    auto files = read_policy_directory(directory);
    if (!files) FAIL(files.error().message);
    return std::move(*files);
  }
  [[nodiscard]] std::string error() const {
    const auto files = read_policy_directory(directory);
    return files ? "no error" : files.error().message;
  }
  // The one file's.
  [[nodiscard]] std::string trouble() const {
    const auto files = read();
    REQUIRE(files.size() == 1);
    return files.front().trouble;
  }

  TempFolder folder;
  fs::path directory = folder.path;
};

PolicyFile good(std::string name, std::string text) {
  return {.name = std::move(name), .text = std::move(text), .trouble = {}};
}

// A ConfigMap's volume, each step as kubelet does it and in its order.
class Volume {
 public:
  explicit Volume(fs::path path) : path_(std::move(path)) {}

  void write_version(const std::string& version, const Files& files) {
    fs::create_directory(path_ / version);
    for (const auto& file : files) write(path_ / version / file.name, file.text);
  }
  void switch_to(const std::string& version) {
    fs::create_directory_symlink(version, path_ / "..data_tmp");
    fs::rename(path_ / "..data_tmp", path_ / "..data");
  }
  void link(const std::string& name) { fs::create_symlink("..data/" + name, path_ / name); }
  void publish(const std::string& version, const Files& files) {
    write_version(version, files);
    switch_to(version);
    for (const auto& file : files) {
      if (!fs::is_symlink(path_ / file.name)) link(file.name);
    }
    for (const auto& file : files_) {
      const bool stays = std::any_of(files.begin(), files.end(),
                                     [&](const auto& other) { return other.name == file.name; });
      if (!stays) fs::remove(path_ / file.name);
    }
    if (!version_.empty()) fs::remove_all(path_ / version_);
    version_ = version;
    files_ = files;
  }

 private:
  fs::path path_;
  std::string version_;
  Files files_;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "policy files are read in the order of their names, others are not") {
  write(directory / "b.yml", "two");
  write(directory / "a.yaml", "one");
  write(directory / "empty.yaml", "");
  write(directory / ".hidden.yaml", "hidden");
  write(directory / ".yaml", "no name");
  write(directory / "a.yaml~", "a backup");
  write(directory / "a.json", "{}");
  write(directory / "A.YAML", "not this either");
  fs::create_directory(directory / "below");
  write(directory / "below" / "c.yaml", "below");
  CHECK(read() == Files{good("a.yaml", "one"), good("b.yml", "two"), good("empty.yaml", "")});
}

TEST_CASE_FIXTURE(Fixture, "an empty directory has no files") {
  CHECK(read().empty());
}

TEST_CASE_FIXTURE(Fixture, "a directory that cannot be read says why") {
  directory = "/no/such/policies";
  CHECK(error() == "cannot read the policy directory /no/such/policies: No such file or directory");
  directory = folder.path / "file";
  write(directory, "text");
  CHECK(error() == "cannot read the policy directory " + directory.string() + ": Not a directory");
  directory = folder.path / "closed";
  fs::create_directory(directory);
  fs::permissions(directory, fs::perms::none);
  if (::geteuid() == 0) {
    CHECK(read().empty());  // nothing is closed to root
  } else {
    CHECK(error() ==
          "cannot read the policy directory " + directory.string() + ": Permission denied");
  }
  fs::permissions(directory, fs::perms::owner_all);
}

TEST_CASE_FIXTURE(Fixture, "what is not a regular file is a trouble and is never waited for") {
  const auto path = directory / "x.yaml";
  SUBCASE("a FIFO that nobody writes") {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  }
  SUBCASE("a directory") {
    fs::create_directory(path);
  }
  SUBCASE("a link to a directory") {
    fs::create_directory_symlink(".", path);
  }
  SUBCASE("a device") {
    fs::create_symlink("/dev/zero", path);
  }
  SUBCASE("a socket") {
    const UniqueFd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.string().size() < sizeof(address.sun_path));
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    const void* name = &address;
    REQUIRE(::bind(server.get(), static_cast<const sockaddr*>(name), sizeof(address)) == 0);
  }
  CHECK(trouble() == "is not a regular file");
}

TEST_CASE_FIXTURE(Fixture, "a file that cannot be read says why, and the others are read") {
  write(directory / "a.yaml", "one");
  write(directory / "c.yaml", "three");
  std::string reason;
  SUBCASE("closed") {
    write(directory / "b.yaml", "two");
    fs::permissions(directory / "b.yaml", fs::perms::none);
    if (::geteuid() != 0) reason = "cannot be read: Permission denied";
  }
  SUBCASE("a link to itself") {
    fs::create_symlink("b.yaml", directory / "b.yaml");
    reason = "cannot be read: Too many levels of symbolic links";
  }
  SUBCASE("a file that opens and does not read") {
    fs::create_symlink("/proc/self/mem", directory / "b.yaml");
    reason = "cannot be read: Input/output error";
  }
  const auto files = read();
  REQUIRE(files.size() == 3);
  CHECK(files[0] == good("a.yaml", "one"));
  CHECK(files[1].trouble == reason);
  CHECK(files[1].text == (reason.empty() ? "two" : ""));
  CHECK(files[2] == good("c.yaml", "three"));
}

TEST_CASE_FIXTURE(Fixture, "a file may have 262144 bytes and no more") {
  const auto path = directory / "x.yaml";
  write(path, std::string(262144, 'x'));
  CHECK(read() == Files{good("x.yaml", std::string(262144, 'x'))});
  write(path, std::string(262145, 'x'));
  CHECK(trouble() == "must not be larger than 262144 bytes: \"262145\"");
  fs::resize_file(path, 1000000);
  CHECK(trouble() == "must not be larger than 262144 bytes: \"1000000\"");
  // Its beginning says whom it is for.
  CHECK(read().front().text.size() == 262144);
  CHECK(read().front().text.starts_with("xxxx"));
  const auto named = read_policy_file(path);
  CHECK(named.name == path.string());
  CHECK(named.trouble == "must not be larger than 262144 bytes: \"1000000\"");
  CHECK(named.text.size() == 262144);
}

TEST_CASE_FIXTURE(Fixture, "a file that was named is read, or says why not") {
  write(directory / "x.yaml", "one");
  CHECK(read_policy_file(directory / "x.yaml") == good((directory / "x.yaml").string(), "one"));
  CHECK(read_policy_file("/no/such.yaml").trouble == "cannot be read: No such file or directory");
  CHECK(read_policy_file(directory).trouble == "cannot be read: Is a directory");
}

TEST_CASE_FIXTURE(Fixture, "all files together may have 16 MiB and no more") {
  for (int i = 0; i < 64; ++i) write(directory / (std::to_string(i) + ".yaml"), "");
  for (int i = 0; i < 64; ++i) fs::resize_file(directory / (std::to_string(i) + ".yaml"), 262144);
  CHECK(read().size() == 64);
  write(directory / "x.yaml", "x");
  const auto too_much =
      directory.string() + ": its policy files must not have more than 16777216 bytes in all";
  CHECK(error() == too_much);
  fs::create_directory(directory / "..data");
  fs::rename(directory / "x.yaml", directory / "..data" / "x.yaml");
  CHECK(error() == too_much);
}

TEST_CASE_FIXTURE(Fixture, "a file that does not say its size is read up to the limit") {
  // As one that grows while it is read: what counts is what comes.
  const fs::path status = "/proc/self/status";
  fs::create_symlink(status, directory / "small.yaml");
  CHECK(read().front().text.starts_with("Name:"));
  fs::remove(directory / "small.yaml");
  const fs::path symbols = "/proc/kallsyms";
  std::error_code missing;
  if (!fs::exists(symbols, missing) || fs::file_size(symbols, missing) != 0) {
    MESSAGE("skipped: no file here that is large and says that it is empty");
    return;
  }
  fs::create_symlink(symbols, directory / "large.yaml");
  CHECK(trouble() == "must not be larger than 262144 bytes: \"262145\"");
}

TEST_CASE_FIXTURE(Fixture, "a file that grows while it is read is a whole text or too large") {
  const auto path = directory / "x.yaml";
  write(path, "");
  const std::jthread writer([&](const std::stop_token& stop) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const std::string block(4096, 'x');
    for (int i = 0; !stop.stop_requested(); i = (i + 1) % 128) {
      if (i == 0 && ::ftruncate(file.get(), 0) != 0) return;
      if (::write(file.get(), block.data(), block.size()) < 0) return;
    }
  });
  for (int i = 0; i < 200; ++i) {
    const auto files = read_policy_directory(directory);
    REQUIRE(files.has_value());
    REQUIRE(files->size() == 1);
    const auto& file = files->front();
    CHECK(file.text.size() <= k_policy_file_bytes);
    if (!file.trouble.empty()) {
      CHECK(file.trouble.starts_with("must not be larger than 262144 bytes: \""));
    }
  }
}

TEST_CASE_FIXTURE(Fixture, "links are followed, and one that leads nowhere is a trouble") {
  const auto elsewhere = folder.path / "elsewhere";
  fs::create_directory(elsewhere);
  write(elsewhere / "a", "one");
  fs::create_symlink("elsewhere/a", directory / "x.yaml");
  CHECK(read() == Files{good("x.yaml", "one")});
  fs::remove(elsewhere / "a");
  CHECK(trouble() == "is a link to a file that does not exist: \"elsewhere/a\"");
}

TEST_CASE_FIXTURE(Fixture, "at most 4096 files") {
  for (int i = 0; i < 4096; ++i)
    fs::create_symlink("one", directory / (std::to_string(i) + ".yml"));
  write(directory / "one", "one");
  write(directory / ".dot.yaml", "not counted");
  CHECK(read().size() == 4096);
  fs::create_symlink("one", directory / "a.yml");
  CHECK(error() ==
        directory.string() + ": must not have more than 4096 policy files, and has 4097");
  fs::create_symlink("one", directory / "b.yml");
  CHECK(error() ==
        directory.string() + ": must not have more than 4096 policy files, and has 4098");
}

TEST_CASE_FIXTURE(Fixture, "a ConfigMap's files are those of its version") {
  Volume volume(directory);
  volume.publish("..2026_1", {good("a.yaml", "a1"), good("b.yaml", "b1"), good("notes", "n1")});
  CHECK(read() == Files{good("a.yaml", "a1"), good("b.yaml", "b1")});
  volume.publish("..2026_2", {good("a.yaml", "a2"), good("c.yaml", "c2")});
  CHECK(read() == Files{good("a.yaml", "a2"), good("c.yaml", "c2")});
  write(directory / "local.yaml", "beside it");
  CHECK(read() ==
        Files{good("a.yaml", "a2"), good("c.yaml", "c2"), good("local.yaml", "beside it")});
}

TEST_CASE_FIXTURE(Fixture, "a switched ConfigMap whose links are not there yet is whole already") {
  Volume volume(directory);
  volume.publish("..2026_1", {good("a.yaml", "same"), good("b.yaml", "b1")});
  volume.write_version("..2026_2", {good("b.yaml", "b2"), good("renamed.yaml", "same")});
  volume.switch_to("..2026_2");
  const Files second{good("b.yaml", "b2"), good("renamed.yaml", "same")};
  CHECK(read() == second);
  volume.link("renamed.yaml");
  CHECK(read() == second);
  fs::remove(directory / "a.yaml");
  CHECK(read() == second);
  fs::remove_all(directory / "..2026_1");
  CHECK(read() == second);
}

TEST_CASE_FIXTURE(Fixture, "links into ..data that are unlike kubelet's") {
  fs::create_directories(directory / "..data" / "sub");
  write(directory / "..data" / "sub" / "a.yaml", "a");
  write(directory / "..data" / "b.yaml", "b");
  write(directory / "outside", "outside");
  SUBCASE("a path, and another name") {
    fs::create_symlink("..data/sub/a.yaml", directory / "x.yaml");
    fs::create_symlink("..data/b.yaml", directory / "y.yaml");
    CHECK(read() == Files{good("x.yaml", "a"), good("y.yaml", "b")});
  }
  SUBCASE("one that leads out again is an ordinary link") {
    fs::create_symlink("..data/../outside", directory / "b.yaml");
    CHECK(read() == Files{good("b.yaml", "outside")});
    fs::remove(directory / "outside");
    CHECK(trouble() == "is a link to a file that does not exist: \"..data/../outside\"");
  }
}

TEST_CASE_FIXTURE(Fixture, "a version that is not there is no version without files") {
  Volume volume(directory);
  volume.publish("..2026_1", {good("a.yaml", "a1")});
  const auto cannot_read = "cannot read the policy directory " + directory.string();
  SUBCASE("its directory is gone") {
    fs::remove_all(directory / "..2026_1");
    CHECK(error() == cannot_read + "/..data: No such file or directory");
  }
  SUBCASE("it is not a directory") {
    fs::remove_all(directory / "..2026_1");
    write(directory / "..2026_1", "");
    CHECK(error() == cannot_read + "/..data: Not a directory");
  }
  SUBCASE("the link to it is gone") {
    fs::remove(directory / "..data");
    CHECK(error() == cannot_read + ": ..data is missing, and \"a.yaml\" leads into it");
  }
  SUBCASE("all of it is gone") {
    fs::remove(directory / "..data");
    fs::remove(directory / "a.yaml");
    CHECK(read().empty());
  }
}

TEST_CASE_FIXTURE(Fixture, "a version says what was removed, a plain directory does not") {
  write(directory / "a.yaml", "a");
  CHECK_FALSE(list_policy_directory(directory)->one_version);
  fs::create_directory(directory / "..data");
  CHECK(list_policy_directory(directory)->one_version);
}

TEST_CASE("names that are kubelet's own business change nothing") {
  for (const auto* name : {"a.yaml", "current", ".a.yaml.swp", "..data"})
    CHECK(may_be_policy(name));
  for (const auto* name : {"..2026_1", "..data_tmp"}) CHECK_FALSE(may_be_policy(name));
}

TEST_CASE_FIXTURE(Fixture, "what is not a file in a ConfigMap's version is a trouble") {
  fs::create_directories(directory / "..data" / "a.yaml");
  fs::create_symlink("..data/a.yaml", directory / "a.yaml");
  CHECK(trouble() == "is not a regular file");
}

TEST_CASE_FIXTURE(Fixture, "a ConfigMap that is switched all the time is read as one version") {
  Volume volume(directory);
  // Files that change, come and go: each says its version, and how many there are with it.
  const auto version_of = [](int number) {
    const int count = 3 + number % 5;
    Files files;
    for (int i = 0; i < count; ++i) {
      const auto name = std::to_string((number + i) % 11) + ".yaml";
      files.push_back(good(name, std::to_string(number) + " of " + std::to_string(count)));
    }
    return files;
  };
  volume.publish("..0", version_of(0));
  std::atomic<int> version = 0;
  const std::jthread kubelet([&](const std::stop_token& stop) {
    for (int i = 1; !stop.stop_requested(); ++i) {
      volume.publish(".." + std::to_string(i), version_of(i));
      version = i;
    }
  });
  int whole = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while ((whole < 300 || version < 300) && std::chrono::steady_clock::now() < deadline) {
    const auto files = read_policy_directory(directory);
    if (!files) {
      CHECK(files.error().message == "cannot read the policy directory " + directory.string() +
                                         ": it was replaced 20 times while it was read");
      continue;
    }
    REQUIRE_FALSE(files->empty());
    const auto& first = files->front().text;
    const auto count = first.substr(first.find(" of ") + 4);
    CHECK(std::to_string(files->size()) == count);
    for (const auto& file : *files) {
      CHECK(file.text == first);
      CHECK(file.trouble.empty());
    }
    ++whole;
  }
  CHECK(whole >= 300);
  CHECK(version >= 300);
}

TEST_CASE_FIXTURE(Fixture, "several threads read at once") {
  for (int i = 0; i < 50; ++i) write(directory / (std::to_string(i) + ".yaml"), "text");
  const auto expected = read();
  std::atomic<int> same = 0;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 20; ++k) {
        const auto files = read_policy_directory(directory);
        if (files && *files == expected) ++same;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(same == 80);
}

TEST_CASE_FIXTURE(Fixture, "reading leaves no descriptor open") {
  Volume volume(directory);
  volume.publish("..1", {good("a.yaml", "a")});
  fs::create_symlink("nowhere", directory / "b.yaml");
  const UniqueFd before(::dup(STDIN_FILENO));
  for (int i = 0; i < 10; ++i) CHECK(read().size() == 2);
  const UniqueFd after(::dup(STDIN_FILENO));
  CHECK(after.get() == before.get() + 1);
}
