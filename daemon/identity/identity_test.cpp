#include "identity/identity.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "identity/test_support.h"

using namespace mps::identity;
using namespace mps::identity::testing;

namespace {

constexpr pid_t k_pid = 42;
const std::string k_kubernetes = "run/containerd/io.containerd.runtime.v2.task/k8s.io/";
const std::string k_moby = "run/containerd/io.containerd.runtime.v2.task/moby/";
const std::string k_storage = "run/containers/storage/overlay-containers/";
const std::string k_pod_cgroup = "/kubepods/pod" + k_uid + "/" + k_id_b;

std::optional<std::string> alice(uid_t uid) {
  return uid == 1000 ? std::optional<std::string>("alice") : std::nullopt;
}

std::string config(const std::string& cgroups_path, const std::string& annotations = "") {
  return R"({"linux": {"cgroupsPath": ")" + cgroups_path + R"("}, "annotations": {)" + annotations +
         "}}";
}

std::string cri(const std::string& name_space, const std::string& uid = k_uid) {
  return R"("io.kubernetes.cri.container-name": "trainer", "io.kubernetes.cri.sandbox-name":
    "train-0", "io.kubernetes.cri.sandbox-namespace": ")" +
         name_space + R"(", "io.kubernetes.cri.sandbox-uid": ")" + uid + "\"";
}

// What CRI-O writes; Podman writes it too for whoever asks it to.
std::string crio() {
  return R"("io.container.manager": "cri-o", "io.kubernetes.pod.namespace": "team-b",
    "io.kubernetes.pod.name": "web-1", "io.kubernetes.container.name": "web",
    "io.kubernetes.pod.uid": ")" +
         k_uid + "\"";
}

// A node of our own making, with one process.
class Node {
 public:
  Node() { folder.make("cgroup/unified"); }

  void process(std::string_view cgroup_line) const {
    folder.write("proc/42/stat",
                 "42 (x) S 1 42 42 0 -1 0 1 2 3 4 11 22 5 6 20 0 1 0 98765 1000 200 1 1 1 0\n");
    folder.write("proc/42/cgroup", cgroup_line);
  }
  // The process is in this cgroup, whose directory is there.
  void in(const std::string& cgroup) const {
    folder.make("cgroup/unified" + cgroup);
    process("0::" + cgroup + "\n");
  }
  std::string record(const std::string& name, const std::string& text) const {
    return folder.write(name + "/config.json", text).string();
  }
  [[nodiscard]] std::string cgroup_path(const std::string& name) const {
    return (folder / ("cgroup/unified" + name)).string();
  }
  [[nodiscard]] ResolverSettings settings() const {
    ResolverSettings settings;
    settings.proc = folder / "proc";
    settings.cgroups = CgroupFs(folder / "cgroup", ::geteuid());
    settings.records.root = folder.path();
    settings.records.owner = ::geteuid();
    settings.login = alice;
    return settings;
  }

  TempFolder folder{};
};

std::string reason(const Answer& answer) {
  const auto* unidentified = std::get_if<Unidentified>(&answer);
  return unidentified == nullptr ? "identified" : unidentified->reason;
}

Identity identity(const Answer& answer) {
  CHECK(reason(answer) == "identified");
  REQUIRE(std::holds_alternative<Identity>(answer));
  return std::get<Identity>(answer);
}

Answer ask(const Node& node, uid_t uid = 1000) {
  return Resolver(node.settings()).identify({.pid = k_pid, .uid = uid, .gid = uid, .pidfd = -1});
}

std::string key(const std::string& cgroup, const Identity& identity) {
  return cgroup + "#" + std::to_string(identity.cgroup.inode);
}

}  // namespace

TEST_CASE("a pod by containerd's record") {
  const Node node;
  node.in(k_pod_cgroup + "/sub/group");
  node.record(k_kubernetes + k_id_b, config(k_pod_cgroup, cri("team-a")));
  const auto found = identity(ask(node));
  CHECK(found.subject == "team-a");
  CHECK(found.cgroup.at.path == k_pod_cgroup);
  CHECK(found.cgroup.inode != 0);
  CHECK(found.container == key(k_pod_cgroup, found));
  CHECK(found.runtime == Runtime::containerd);
  CHECK(found.container_id == k_id_b);
  CHECK(found.pod_uid == k_uid);
  CHECK(found.pod == "train-0");
  CHECK(found.container_name == "trainer");
  CHECK_FALSE(found.labels);
  CHECK(found.uid == 1000);
}

TEST_CASE("a container's name without a record of that cgroup is nobody") {
  const Node node;
  node.in(k_pod_cgroup);
  const auto claim = "its cgroup " + k_pod_cgroup + " names container 0123456789ab";
  CHECK(reason(ask(node)) == claim + ", of which no runtime has a record");
  const auto file = node.record(k_kubernetes + k_id_b, config("/elsewhere", cri("team-a")));
  CHECK(reason(ask(node)) == claim + ", but " + file + " says that its cgroup is \"/elsewhere\"");
  node.record(k_kubernetes + k_id_b, config("", cri("team-a")));
  CHECK(reason(ask(node)) == claim + ", but " + file + " says that its cgroup is \"\"");
  node.record(k_kubernetes + k_id_b, "x");
  CHECK(reason(ask(node)) == claim + ": " + file + " is not JSON");
}

TEST_CASE("another's container named somewhere else is nobody") {
  const Node node;
  node.record(k_kubernetes + k_id_b, config(k_pod_cgroup, cri("team-a")));
  node.in("/evil" + k_pod_cgroup);
  CHECK(reason(ask(node)).ends_with("says that its cgroup is \"" + k_pod_cgroup + "\""));
  node.in("/system.slice/docker-" + k_id_b + ".scope");
  CHECK(reason(ask(node)).ends_with("says that its cgroup is \"" + k_pod_cgroup + "\""));
}

TEST_CASE("a record of another pod, or of none, is not believed") {
  const Node node;
  node.in(k_pod_cgroup);
  const auto file =
      node.record(k_kubernetes + k_id_b, config(k_pod_cgroup, cri("team-a", "other")));
  CHECK(reason(ask(node)) == "its cgroup " + k_pod_cgroup + " is of pod " + k_uid + ", but " +
                                 file + " is of pod \"other\"");
  node.record(k_kubernetes + k_id_b, config(k_pod_cgroup));
  CHECK(reason(ask(node)) ==
        "its cgroup " + k_pod_cgroup + " is a pod's, but " + file + " names no pod");
  node.record(k_kubernetes + k_id_b, config(k_pod_cgroup, cri("*")));
  CHECK(reason(ask(node)) == file + ": \"*\" is no namespace");
}

TEST_CASE("a pod's cgroup that names no container is nobody") {
  const Node node;
  node.in("/kubepods/pod" + k_uid);
  CHECK(reason(ask(node)) ==
        "its cgroup /kubepods/pod" + k_uid + " is a pod's, but names no container");
  node.in("/kubepods/x");
  CHECK(reason(ask(node)) == "its cgroup /kubepods/x is for containers, but names none");
}

TEST_CASE("CRI-O, with the pod's labels") {
  const Node node;
  const auto cgroup = "/kubepods.slice/kubepods-pod" + k_uid_ + ".slice/crio-" + k_id_b + ".scope";
  node.in(cgroup + "/container");
  node.record(k_storage + k_id_b + "/userdata",
              config("kubepods-pod" + k_uid_ + ".slice:crio:" + k_id_b,
                     crio() + R"(, "io.kubernetes.cri-o.SandboxID": ")" + k_id_a + "\""));
  node.record(k_storage + k_id_a + "/userdata",
              R"({"annotations": {"io.kubernetes.cri-o.Labels": "{\"app\": \"web\"}"}})");
  const auto found = identity(ask(node));
  CHECK(found.subject == "team-b");
  CHECK(found.cgroup.at.path == cgroup);
  CHECK(found.pod == "web-1");
  CHECK(found.labels == Labels{{"app", "web"}});
}

TEST_CASE("a container with a pod's annotations, but outside of pods, is no pod") {
  const Node node;
  node.in("/machine.slice/libpod-" + k_id_b + ".scope");
  node.record(k_storage + k_id_b + "/userdata", config("machine.slice:libpod:" + k_id_b, crio()));
  CHECK(identity(ask(node)).subject == "docker:0123456789ab");
}

TEST_CASE("what a cgroup namespace hides is in the record") {
  const Node node;
  node.process("0::/../crio-" + k_id_b + ".scope\n");
  node.record(k_storage + k_id_b + "/userdata",
              config("kubepods-pod" + k_uid_ + ".slice:crio:" + k_id_b, crio()));
  const auto found = identity(ask(node));
  CHECK(found.subject == "team-b");
  CHECK(found.pod_uid == k_uid);
  CHECK(found.container == "/../crio-" + k_id_b + ".scope");
  CHECK(found.cgroup.inode == 0);
}

TEST_CASE("with our own root known, paths are the node's") {
  const Node node;
  node.in(k_pod_cgroup);
  node.process("0::/../../pod" + k_uid + "/" + k_id_b + "\n");
  node.record(k_kubernetes + k_id_b, config(k_pod_cgroup, cri("team-a")));
  auto settings = node.settings();
  settings.own_root = "/kubepods/pod1/c1";
  const auto found = identity(Resolver(settings).identify({.pid = k_pid}));
  CHECK(found.subject == "team-a");
  CHECK(found.container == key(k_pod_cgroup, found));
  CHECK(found.cgroup.inode != 0);
}

TEST_CASE("Docker and Podman, by name") {
  const Node node;
  node.in("/system.slice/docker-" + k_id_b + ".scope");
  node.record(k_moby + k_id_b, config("system.slice:docker:" + k_id_b));
  CHECK(identity(ask(node)).subject == "docker:0123456789ab");
  const auto file = "var/lib/docker/containers/" + k_id_b + "/config.v2.json";
  node.folder.write(file, R"({"Name": "/web"})");
  const auto found = identity(ask(node));
  CHECK(found.subject == "docker:web");
  CHECK(found.container_name == "web");
  CHECK(found.runtime == Runtime::docker);
  node.folder.write(file, R"({"Name": "/a b"})");
  CHECK(reason(ask(node)).ends_with(": \"a b\" is no name that a policy can have"));
}

TEST_CASE("systemd's units, where root alone could have named them") {
  const Node node;
  node.in("/system.slice/train@a.service/worker");
  const auto found = identity(ask(node));
  CHECK(found.subject == "unit:train@a.service");
  CHECK(found.container_name == "train@a.service");
  CHECK(found.container == key("/system.slice/train@a.service", found));
  REQUIRE(::chmod(node.cgroup_path("/system.slice").c_str(), 0777) == 0);
  CHECK(reason(ask(node)) ==
        "its cgroup /system.slice/train@a.service/worker looks like unit train@a.service's, but " +
            node.cgroup_path("/system.slice") + " is not root's alone");
  const auto longest = std::string(150, 'a') + ".service";
  node.in("/gpu.slice/" + longest);
  CHECK(reason(ask(node)) == "its cgroup /gpu.slice/" + longest + " is a unit's, and \"" + longest +
                                 "\" is no name that a policy can have");
}

TEST_CASE("users: by the slice's uid, whatever the process's is") {
  const Node node;
  node.in("/user.slice/user-1000.slice/session-3.scope");
  auto found = identity(ask(node, 100999));
  CHECK(found.subject == "user:alice");
  CHECK(found.container == key("/user.slice/user-1000.slice/session-3.scope", found));
  CHECK(found.container_name == "session-3.scope");
  CHECK(found.uid == 100999);
  node.in("/user.slice/user-1001.slice/user@1001.service/user.slice/libpod-" + k_id_b + ".scope");
  found = identity(ask(node, 0));
  CHECK(found.subject == "user:1001");
  CHECK(found.container == key("/user.slice/user-1001.slice/user@1001.service", found));
  CHECK(found.container_id.empty());
  REQUIRE(::chmod(node.cgroup_path("/user.slice/user-1001.slice").c_str(), 0777) == 0);
  CHECK(reason(ask(node)).ends_with(" looks like uid 1001's, but " +
                                    node.cgroup_path("/user.slice/user-1001.slice") +
                                    " is not root's alone"));
  node.in("/user.slice/user-1001.slice");
  CHECK(reason(ask(node)) == "its cgroup /user.slice/user-1001.slice looks like uid 1001's, but " +
                                 node.cgroup_path("/user.slice/user-1001.slice") +
                                 " is not root's alone");
}

TEST_CASE("a process of no container, unit or session is its user's") {
  const Node node;
  node.process("9:name=systemd:/\n8:pids:/\n0::/\n");
  auto found = identity(ask(node));
  CHECK(found.subject == "user:alice");
  CHECK(found.container == "user:1000");
  CHECK(found.cgroup.at.path.empty());
  CHECK_FALSE(Resolver(node.settings()).populated(found.cgroup));
  found = identity(ask(node, 77));
  CHECK(found.subject == "user:77");
  CHECK(found.container == "user:77");
}

TEST_CASE("who cannot be seen is nobody") {
  const Node node;
  const Resolver resolver(node.settings());
  CHECK(reason(resolver.identify({.pid = 0})) ==
        "its process cannot be seen from here: the supervisor needs the node's pid namespace "
        "(hostPID: true)");
  CHECK(reason(resolver.identify({.pid = k_pid})) == "the process ended while it was looked at");
  node.process("0::/a/../b\n");
  CHECK(reason(resolver.identify({.pid = k_pid})) == "its cgroup /a/../b is no path");
  node.process("0::/" + std::string(70000, 'a') + "\n");
  CHECK(reason(resolver.identify({.pid = k_pid})) ==
        "its cgroup cannot be read: " + (node.folder / "proc/42/cgroup").string() +
            ": too large for what it should hold");
}

TEST_CASE("an administrator's word, in cgroups that root alone could have named") {
  const Node node;
  node.in(k_pod_cgroup);
  auto settings = node.settings();
  settings.overrides = node.folder.write(
      "overrides.json", R"({")" + k_id_b + R"(": {"namespace": "team-a", "pod": "p",
        "container": "c", "owner": "Job/x", "labels": {"app": "x"}}})");
  const auto found = identity(Resolver(settings).identify({.pid = k_pid}));
  CHECK(found.subject == "team-a");
  CHECK(found.pod == "p");
  CHECK(found.container_name == "c");
  CHECK(found.pod_uid == k_uid);
  CHECK(found.owner == "Job/x");
  CHECK(found.labels == Labels{{"app", "x"}});
  REQUIRE(::chmod(node.cgroup_path("/kubepods").c_str(), 0777) == 0);
  CHECK(reason(Resolver(settings).identify({.pid = k_pid})) ==
        "its cgroup " + k_pod_cgroup + " could be anybody's: " + node.cgroup_path("/kubepods") +
            " is not root's alone");
  REQUIRE(::chmod(settings.overrides.c_str(), 0666) == 0);
  CHECK(reason(Resolver(settings).identify({.pid = k_pid})) ==
        "its cgroup " + k_pod_cgroup + " cannot be looked up: " + settings.overrides.string() +
            " can be written by others");
}

TEST_CASE("a good answer is kept as long as the cgroup, a bad one is asked again") {
  const Node node;
  const Resolver resolver(node.settings());
  node.in(k_pod_cgroup);
  CHECK(reason(resolver.identify({.pid = k_pid})).ends_with("of which no runtime has a record"));
  CHECK(resolver.remembered() == 0);
  const auto file = node.record(k_kubernetes + k_id_b, config(k_pod_cgroup, cri("team-a")));
  const auto first = identity(resolver.identify({.pid = k_pid, .uid = 5}));
  std::filesystem::remove(file);
  const auto second = identity(resolver.identify({.pid = k_pid, .uid = 6}));
  CHECK(second.subject == "team-a");
  CHECK(second.container == first.container);
  CHECK(second.uid == 6);
  CHECK(resolver.remembered() == 1);
  CHECK(resolver.forget_dead() == 0);

  std::filesystem::rename(node.cgroup_path(k_pod_cgroup), node.cgroup_path("/kubepods/old"));
  node.in(k_pod_cgroup);
  CHECK(reason(resolver.identify({.pid = k_pid})).ends_with("of which no runtime has a record"));
  CHECK(resolver.forget_dead() == 1);
  CHECK(resolver.remembered() == 0);
}

TEST_CASE("only so many answers are kept") {
  const Node node;
  auto settings = node.settings();
  settings.cache_limit = 3;
  const Resolver resolver(settings);
  for (int number = 0; number < 10; ++number) {
    node.in("/system.slice/a" + std::to_string(number) + ".service");
    CHECK(identity(resolver.identify({.pid = k_pid})).subject ==
          "unit:a" + std::to_string(number) + ".service");
  }
  CHECK(resolver.remembered() == 3);
}

TEST_CASE("several threads may ask at once") {
  const Node node;
  auto settings = node.settings();
  settings.cache_limit = 1;
  const Resolver resolver(settings);
  node.in("/system.slice/a.service");
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&resolver] {
      for (int round = 0; round < 50; ++round) {
        static_cast<void>(resolver.identify({.pid = k_pid}));
        static_cast<void>(resolver.forget_dead());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(identity(resolver.identify({.pid = k_pid})).subject == "unit:a.service");
}

namespace {

// A real process that does nothing.
class Sleeper {
 public:
  Sleeper() : pid_(::fork()) {
    if (pid_ == 0) {
      while (true) ::pause();
    }
    pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  ~Sleeper() { end(); }

  void kill() const {
    ::kill(pid_, SIGKILL);
    pollfd ended{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    ::poll(&ended, 1, 60000);
  }
  void end() {
    if (!running_) return;
    running_ = false;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] Peer peer() const {
    return {.pid = pid_, .uid = ::geteuid(), .gid = ::getegid(), .pidfd = pidfd_.get()};
  }

 private:
  pid_t pid_;
  mps::UniqueFd pidfd_;
  bool running_ = true;
};

constexpr const char* k_ended = "the process ended while it was looked at";

}  // namespace

TEST_CASE("a process that has ended is nobody, reaped or not") {
  Sleeper sleeper;
  const Resolver resolver;
  CHECK(reason(resolver.identify(sleeper.peer())) != k_ended);
  sleeper.kill();
  CHECK(reason(resolver.identify(sleeper.peer())) == k_ended);
  auto without_pidfd = sleeper.peer();
  without_pidfd.pidfd = -1;
  CHECK(reason(resolver.identify(without_pidfd)) == k_ended);
  sleeper.end();
  CHECK(reason(resolver.identify(sleeper.peer())) == k_ended);
  CHECK(reason(resolver.identify(without_pidfd)) == k_ended);
}

TEST_CASE("a pid that another has now is noticed by the pidfd") {
  Sleeper first;
  Sleeper second;
  first.end();
  auto peer = first.peer();
  peer.pid = second.pid();
  CHECK(reason(Resolver().identify(peer)) == k_ended);
  // Also where the pidfd's process lives, but is not the one that is asked for.
  peer.pidfd = second.peer().pidfd;
  peer.pid = ::getpid();
  CHECK(reason(Resolver().identify(peer)) == k_ended);
}

TEST_CASE("a process that ends between the two looks is noticed") {
  for (const bool with_pidfd : {true, false}) {
    Sleeper sleeper;
    const Node node;
    const auto peer = sleeper.peer();
    auto settings = node.settings();
    settings.proc = "/proc";
    if (with_pidfd) {
      settings.proc = node.folder / "proc";
      node.folder.write("proc/" + std::to_string(peer.pid) + "/cgroup", "0::/\n");
    }
    settings.login = [&sleeper](uid_t) {
      sleeper.end();
      return std::optional<std::string>("alice");
    };
    const auto answer = Resolver(settings).identify(
        {.pid = peer.pid, .uid = 1000, .gid = 1000, .pidfd = with_pidfd ? peer.pidfd : -1});
    if (with_pidfd || reason(answer) == k_ended) {
      CHECK(reason(answer) == k_ended);
    } else {
      MESSAGE("skipped: the tests run in a container or a unit here, where no login is asked for");
    }
  }
}

TEST_CASE("logins") {
  CHECK(login_of(0) == "root");
  CHECK_FALSE(login_of(4294967000U));
}
