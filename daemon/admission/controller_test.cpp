// With real processes, and a node's /proc and cgroups of our own making: which cgroup a process is
// in is what the test says.
#include "admission/controller.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>

#include "identity/identity.h"

using namespace mps;
using namespace mps::admission;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

const char* const k_policies = R"(apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata: {namespace: "unit:*"}
spec:
  client: {activeThreadPercentage: 20, pinnedDeviceMemory: 2Gi}
  quota: {clients: 1}
)";

std::string slurp(const fs::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// A program that does nothing until it is killed.
class Program {
 public:
  Program() : pid_(::fork()) {
    if (pid_ != 0) return;
    for (;;) ::pause();
  }
  ~Program() { end(); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  void end() {
    if (std::exchange(ended_, true)) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_;
  bool ended_ = false;
};

struct Kit {
  Kit() {
    ::umask(022);
    std::string pattern = "/tmp/mps-desk-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    fs::create_directories(folder / "cgroup/unified");
    generation = policy::next_generation({}, {{"all.yaml", k_policies, ""}}, {});
    open();
  }
  ~Kit() {
    desk->close();
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }

  void open() {
    identity::ResolverSettings resolver;
    resolver.proc = folder / "proc";
    resolver.cgroups = identity::CgroupFs(folder / "cgroup", ::geteuid());
    ControllerSettings settings;
    settings.checkpoint = folder / "admissions.log";
    auto opened = Controller::open(
        io.get_executor(), settings,
        {std::make_shared<identity::Resolver>(resolver), [this] { return generation; },
         [this](const std::string& kind, const std::string& instance, const std::string& message) {
           said.push_back(kind + " " + instance + ": " + message);
         }});
    REQUIRE(opened.has_value());
    desk = *opened;
  }
  void reopen() {
    desk->close();
    open();
  }
  void door(share::Door to) {
    share::InstanceFacts facts;
    facts.id = "gpu0.shared";
    facts.device = "GPU-0";
    facts.device_name = "gpu0";
    facts.door = std::move(to);
    facts.generation = ++generations;
    desk->instance_changed({"gpu0.shared", "shared", {.name = "gpu0", .uuid = "GPU-0"}}, facts);
  }

  void until(const std::function<bool()>& what) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (!what()) {
      REQUIRE(std::chrono::steady_clock::now() < limit);
      io.restart();
      io.run_one_for(20ms);
    }
  }
  // The process is in this unit's cgroup.
  void put(const Program& program, const std::string& unit) {
    const auto cgroup = "/system.slice/" + unit;
    const auto proc = folder / "proc" / std::to_string(program.pid());
    fs::create_directories(folder / ("cgroup/unified" + cgroup));
    fs::create_directories(proc);
    std::ofstream(folder / ("cgroup/unified" + cgroup) / "cgroup.events") << "populated 1\n";
    std::ofstream(proc / "cgroup") << "0::" << cgroup << "\n";
    std::ofstream(proc / "stat") << slurp("/proc/" + std::to_string(program.pid()) + "/stat");
  }
  void empty(const std::string& unit) {
    std::ofstream(folder / "cgroup/unified/system.slice" / unit / "cgroup.events")
        << "populated 0\n";
  }
  RequestId ask(const Program& program, bool may_wait = true) {
    Peer peer{"gpu0.shared", "open", program.pid(), ::getuid(), ::getgid(), {}};
    peer.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, program.pid(), 0)));
    Wish wish;
    wish.may_wait = may_wait;
    const auto turn = answers.size();
    answers.emplace_back();
    return desk->ask(std::move(peer), wish, [this, turn](const Verdict& verdict) {
      auto& answer = answers[turn];
      if (const auto* in = std::get_if<share::LetIn>(&verdict)) {
        answer = "in";
        slots.push_back(in->slot);
      } else if (const auto* refused = std::get_if<share::Refused>(&verdict)) {
        answer = std::string("refused ") + to_string(refused->code);
      } else {
        answer = std::string("waits ") + to_string(std::get<share::Waits>(verdict).code);
      }
    });
  }
  void until_told(std::size_t turn, const std::string& what) {
    until([&] { return !answers[turn].empty(); });
    CHECK(answers[turn] == what);
  }

  boost::asio::io_context io;
  fs::path folder;
  std::shared_ptr<const policy::Generation> generation;
  std::shared_ptr<Controller> desk;
  std::vector<std::string> said, answers;
  std::vector<share::SlotId> slots;
  std::uint64_t generations = 0;
};

}  // namespace

TEST_CASE("within its quota it is let in; its end lets the next one in") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  first.end();
  kit.until([&] { return kit.answers[1] == "in"; });
  CHECK(kit.desk->ledger().slot_count() == 1);
}

TEST_CASE("who may not wait is refused, and it is said whom") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.ask(second, false);
  kit.until_told(1, "refused quota_clients");
  REQUIRE(kit.said.size() == 1);
  CHECK(kit.said[0] ==
        "refused gpu0.shared: unit:a.service was refused, quota_clients: unit:a.service has 1 of "
        "1 clients on gpu0");
}

TEST_CASE("who cannot be told is refused") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.ask(program);
  kit.until_told(0, "refused unidentified");
}

TEST_CASE("an instance that is not known yet makes nobody wait for nothing") {
  Kit kit;
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "refused not_ready");
}

TEST_CASE("while the instance starts it waits, and is let in when that serves") {
  Kit kit;
  kit.door(share::NotReady{"starting"});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "waits not_ready");
  kit.door(share::Serving{});
  kit.until([&] { return kit.answers[0] == "in"; });
}

TEST_CASE("who leaves while it waits is forgotten; who leaves when just let in has its slot") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  const auto request = kit.ask(first);
  kit.until([&] { return kit.desk->ledger().slot_count() == 1; });
  kit.desk->withdraw(request);
  const auto waiting = kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  kit.desk->withdraw(waiting);
  CHECK(kit.desk->ledger().waiting_count() == 0);
  CHECK(kit.answers[0].empty());
}

TEST_CASE("a supervisor that comes later goes on from what was recorded") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.reopen();
  kit.door(share::Serving{});
  CHECK(kit.desk->found_inside("gpu0.shared", first.pid(), ::getuid()) == kit.slots[0]);
  kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  first.end();
  kit.until([&] { return kit.answers[1] == "in"; });
}

TEST_CASE("who ended while no supervisor was there has no slot any more") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.desk->close();
  first.end();
  kit.open();
  kit.door(share::Serving{});
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
  kit.ask(second);
  kit.until_told(1, "in");
}

TEST_CASE("a client that nothing explains counts, and is adopted") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  const auto slot = kit.desk->found_inside("gpu0.shared", program.pid(), ::getuid());
  REQUIRE(slot);
  CHECK(kit.desk->ledger().slots(10).front().slot.admission == 0);
  const auto pid = program.pid();
  program.end();
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
  CHECK_FALSE(kit.desk->found_inside("gpu0.shared", pid, ::getuid()));
}

TEST_CASE("an admission ends when nobody is in its cgroup, and not before") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "in");
  program.end();
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
  CHECK(kit.desk->ledger().admissions(10).size() == 1);
  kit.empty("a.service");
  kit.until([&] { return kit.desk->ledger().admissions(10).empty(); });
}

TEST_CASE("a process that cannot be watched for want of descriptors keeps its slot") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.desk->close();
  kit.open();
  // Before the executor gets to watch it.
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  std::vector<UniqueFd> all;
  const rlimit few{64, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  for (int made = ::dup(0); made >= 0; made = ::dup(0)) all.emplace_back(made);
  kit.io.restart();
  kit.io.poll();
  CHECK(kit.desk->ledger().slot_count() == 1);
  all.clear();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  first.end();
  kit.until([&] { return kit.desk->ledger().slot_count() == 0; });
}

TEST_CASE("a new policy counts for who waits") {
  Kit kit;
  kit.door(share::Serving{});
  Program first, second;
  kit.put(first, "a.service");
  kit.put(second, "a.service");
  kit.ask(first);
  kit.until_told(0, "in");
  kit.ask(second);
  kit.until_told(1, "waits quota_clients");
  auto text = std::string(k_policies);
  text.replace(text.find("clients: 1"), 10, "clients: 2");
  kit.generation = policy::next_generation(*kit.generation, {{"all.yaml", text, ""}}, {});
  kit.desk->policies_changed();
  kit.until([&] { return kit.answers[1] == "in"; });
}

TEST_CASE("what it has, and what it would get") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "in");
  Peer peer{"gpu0.shared", "open", program.pid(), ::getuid(), ::getgid(), {}};
  std::optional<Standing> standing;
  kit.desk->standing(std::move(peer), [&standing](const auto& answer) {
    if (const auto* known = std::get_if<Standing>(&answer)) standing = *known;
  });
  kit.until([&] { return standing.has_value(); });
  CHECK(standing->subject == "unit:a.service");
  CHECK(standing->container == "unit a.service");
  CHECK(standing->clients == 1);
  CHECK(standing->grant.active_thread_percentage == 20.0);
  CHECK(standing->grant.pinned_memory_mebibytes == 2048);
}

TEST_CASE("a damaged checkpoint is said, and what can be read of it counts") {
  Kit kit;
  kit.door(share::Serving{});
  Program program;
  kit.put(program, "a.service");
  kit.ask(program);
  kit.until_told(0, "in");
  kit.desk->close();
  std::ofstream(kit.folder / "admissions.log", std::ios::app) << "rubbish\n";
  kit.open();
  REQUIRE(kit.said.size() == 1);
  CHECK(kit.said[0] == "admissions_damaged : " + (kit.folder / "admissions.log").string() +
                           ": 1 damaged line, the first in line 3 (is damaged); clients "
                           "that they spoke of go on, and count as adopted");
  CHECK(kit.desk->ledger().slot_count() == 1);
}
