// With the machine's own cgroups, where it lets us make some.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <vector>

#include "base/file.h"
#include "base/unique_fd.h"
#include "identity/identity.h"
#include "identity/test_support.h"

using namespace mps::identity;
using namespace mps::identity::testing;

namespace {

namespace fs = std::filesystem;

constexpr std::array k_hierarchies{Hierarchy::unified, Hierarchy::systemd, Hierarchy::pids};

// A cgroup at the top of a hierarchy, with all that is made below it.
class RealCgroup {
 public:
  explicit RealCgroup(Hierarchy hierarchy) : hierarchy_(hierarchy) {
    top_ = "/mps-identity-" + std::to_string(::getpid());
    ok_ = make("");
  }
  RealCgroup(const RealCgroup&) = delete;
  RealCgroup& operator=(const RealCgroup&) = delete;
  ~RealCgroup() {
    for (auto made = made_.rbegin(); made != made_.rend(); ++made) ::rmdir(made->c_str());
  }

  explicit operator bool() const { return ok_; }
  [[nodiscard]] std::string path(const std::string& below) const { return top_ + below; }
  [[nodiscard]] fs::path directory(const std::string& below) const {
    return *CgroupFs().directory({hierarchy_, 0, path(below)});
  }
  // With the parents that are lacking.
  bool make(const std::string& below) {
    for (auto slash = below.find('/', 1); true; slash = below.find('/', slash + 1)) {
      const auto at = directory(below.substr(0, slash));
      if (::mkdir(at.c_str(), 0755) == 0) made_.push_back(at);
      if (!fs::is_directory(at)) return false;
      if (slash == std::string::npos) return true;
    }
  }
  void remove(const std::string& below) const { ::rmdir(directory(below).c_str()); }
  [[nodiscard]] bool put(pid_t pid, const std::string& below) const {
    const mps::UniqueFd file(
        ::open((directory(below) / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
    const auto text = std::to_string(pid);
    return file && ::write(file.get(), text.data(), text.size()) > 0;
  }

 private:
  Hierarchy hierarchy_;
  std::string top_;
  std::vector<fs::path> made_;
  bool ok_ = false;
};

class Sleeper {
 public:
  Sleeper() : pid_(::fork()) {
    if (pid_ == 0) {
      while (true) ::pause();
    }
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  ~Sleeper() { end(); }
  void end() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    pid_ = 0;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// Whether a process can be put into a cgroup of this hierarchy, and it is the one that counts.
bool usable(RealCgroup& cgroup, const Sleeper& sleeper) {
  if (!cgroup || !cgroup.put(sleeper.pid(), "")) return false;
  const auto text = mps::read_file("/proc/" + std::to_string(sleeper.pid()) + "/cgroup", 65536);
  const auto counts =
      text ? cgroup_that_counts(*text) : mps::Result<CgroupPath>(mps::Error{"none"});
  return counts && counts->levels_up == 0 && counts->path == cgroup.path("");
}

template <typename Body>
void with_real_cgroups(Body body) {
  int tried = 0;
  for (const auto hierarchy : k_hierarchies) {
    Sleeper sleeper;
    RealCgroup cgroup(hierarchy);
    if (usable(cgroup, sleeper)) {
      CAPTURE(cgroup.directory("").string());
      body(cgroup, sleeper);
      ++tried;
    }
    sleeper.end();
  }
  if (tried == 0) MESSAGE("skipped: no cgroup can be made here that would count");
}

std::string config(const std::string& cgroups_path) {
  return R"({"linux": {"cgroupsPath": ")" + cgroups_path + R"("}, "annotations": {
    "io.kubernetes.cri.sandbox-namespace": "team-a", "io.kubernetes.cri.sandbox-uid": ")" +
         k_uid + "\"}}";
}

ResolverSettings with_records(const TempFolder& folder) {
  ResolverSettings settings;
  settings.records.root = folder.path();
  settings.records.owner = ::geteuid();
  return settings;
}

std::string who(const Resolver& resolver, const Sleeper& sleeper) {
  const auto answer = resolver.identify({.pid = sleeper.pid(), .uid = ::geteuid()});
  if (const auto* identity = std::get_if<Identity>(&answer)) return identity->subject;
  return std::get<Unidentified>(answer).reason;
}

const std::string k_container = "/kubepods/pod" + k_uid + "/" + k_id_b;
const std::string k_record =
    "run/containerd/io.containerd.runtime.v2.task/k8s.io/" + k_id_b + "/config.json";

}  // namespace

TEST_CASE("real cgroups: the container that the record confirms, and no forged one") {
  with_real_cgroups([](RealCgroup& cgroup, const Sleeper& sleeper) {
    const TempFolder folder;
    folder.write(k_record, config(cgroup.path(k_container)));
    const Resolver resolver(with_records(folder));
    REQUIRE(cgroup.make(k_container + "/sub"));
    REQUIRE(cgroup.put(sleeper.pid(), k_container));
    CHECK(who(resolver, sleeper) == "team-a");
    REQUIRE(cgroup.put(sleeper.pid(), k_container + "/sub"));
    CHECK(who(resolver, sleeper) == "team-a");
    CHECK(resolver.remembered() == 1);

    // The same name under another roof, and a container that no runtime knows.
    REQUIRE(cgroup.make("/mine" + k_container));
    REQUIRE(cgroup.put(sleeper.pid(), "/mine" + k_container));
    CHECK(who(resolver, sleeper)
              .ends_with(" says that its cgroup is \"" + cgroup.path(k_container) + "\""));
    REQUIRE(cgroup.make("/docker-" + k_id_a + ".scope"));
    REQUIRE(cgroup.put(sleeper.pid(), "/docker-" + k_id_a + ".scope"));
    CHECK(who(resolver, sleeper) == "its cgroup " + cgroup.path("/docker-" + k_id_a + ".scope") +
                                        " names container aaaaaaaaaaaa, of which no runtime has "
                                        "a record");
  });
}

TEST_CASE("real cgroups: a process that moves is somebody else") {
  with_real_cgroups([](RealCgroup& cgroup, const Sleeper& sleeper) {
    const Resolver resolver;
    REQUIRE(cgroup.make("/a.service"));
    REQUIRE(cgroup.make("/b.service/sub"));
    REQUIRE(cgroup.put(sleeper.pid(), "/a.service"));
    CHECK(who(resolver, sleeper) == "unit:a.service");
    REQUIRE(cgroup.put(sleeper.pid(), "/b.service/sub"));
    CHECK(who(resolver, sleeper) == "unit:b.service");
  });
}

TEST_CASE("real cgroups: a name that a user could have given is not believed") {
  with_real_cgroups([](RealCgroup& cgroup, const Sleeper& sleeper) {
    const Resolver resolver;
    REQUIRE(cgroup.make("/lent/a.service"));
    REQUIRE(cgroup.put(sleeper.pid(), "/lent/a.service"));
    CHECK(who(resolver, sleeper) == "unit:a.service");
    // A unit with Delegate= and User= belongs to its user; its name is still systemd's.
    REQUIRE(::chown(cgroup.directory("/lent/a.service").c_str(), 1000, 1000) == 0);
    CHECK(who(Resolver(), sleeper) == "unit:a.service");
    REQUIRE(::chown(cgroup.directory("/lent").c_str(), 1000, 1000) == 0);
    CHECK(who(Resolver(), sleeper) ==
          "its cgroup " + cgroup.path("/lent/a.service") + " looks like unit a.service's, but " +
              cgroup.directory("/lent").string() + " is not root's alone");
  });
}

TEST_CASE("real cgroups: populated until the last process is gone, also from below") {
  with_real_cgroups([](RealCgroup& cgroup, Sleeper& sleeper) {
    const Resolver resolver;
    REQUIRE(cgroup.make("/a.service/deep/deeper"));
    REQUIRE(cgroup.put(sleeper.pid(), "/a.service/deep/deeper"));
    const auto answer = resolver.identify({.pid = sleeper.pid()});
    REQUIRE(std::holds_alternative<Identity>(answer));
    const auto found = std::get<Identity>(answer).cgroup;
    CHECK(found.inode != 0);
    CHECK(resolver.populated(found));
    sleeper.end();
    CHECK_FALSE(resolver.populated(found));
    CHECK(resolver.forget_dead() == 0);
    for (const auto* below : {"/a.service/deep/deeper", "/a.service/deep", "/a.service"}) {
      cgroup.remove(below);
    }
    CHECK_FALSE(resolver.populated(found));
    CHECK(resolver.forget_dead() == 1);
    CHECK(resolver.remembered() == 0);
  });
}
