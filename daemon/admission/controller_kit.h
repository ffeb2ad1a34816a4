// For tests of the desk: real processes, and a node's /proc and cgroups of our own making, so that
// which cgroup a process is in is what the test says.
#pragma once

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "admission/controller.h"
#include "identity/identity.h"

namespace mps::admission::test {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

inline const char* const k_policies = R"(apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata: {namespace: "unit:*"}
spec:
  client: {activeThreadPercentage: 20, pinnedDeviceMemory: 2Gi}
  quota: {clients: 1}
)";

inline std::string slurp(const fs::path& path) {
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
        {std::make_shared<identity::Resolver>(resolver),
         [this] { return generation; },
         [this](const std::string& kind, const std::string& instance, const std::string& message) {
           said.push_back(kind + " " + instance + ": " + message);
         },
         [this](const std::string& instance, std::vector<share::Process> processes,
                std::function<void(const std::vector<Ended>&)> told) {
           terminations.push_back({instance, std::move(processes), std::move(told)});
         },
         {},
         {},
         [this](const std::string& instance, const share::Process& process) {
           left.push_back(instance + " " + std::to_string(process.pid));
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
  RequestId ask(const Program& program, bool may_wait = true, const std::string& share = "open") {
    Peer peer{"gpu0.shared", share, program.pid(), ::getuid(), ::getgid(), {}};
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
  // What a process of a container is told that wants its clients ended goes into `ended`.
  void terminate_own(const Program& program, Scope scope = Scope::container) {
    Peer peer{"gpu0.shared", "open", program.pid(), ::getuid(), ::getgid(), {}};
    peer.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, program.pid(), 0)));
    desk->terminate_own(std::move(peer), scope,
                        [this](const std::variant<Terminated, share::Refusal>& told) {
                          if (const auto* refusal = std::get_if<share::Refusal>(&told)) {
                            return ended.push_back(std::string(to_string(refusal->code)) + ": " +
                                                   refusal->sentence);
                          }
                          const auto& done = std::get<Terminated>(told);
                          std::string text = std::to_string(done.asked.size()) + " ended";
                          for (const auto& why : done.failed) text += "; " + why;
                          ended.push_back(text);
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
  std::vector<std::string> said, answers, ended, left;
  struct Termination {
    std::string instance;
    std::vector<share::Process> processes;
    std::function<void(const std::vector<Ended>&)> told;
  };
  std::vector<Termination> terminations;
  std::vector<share::SlotId> slots;
  std::uint64_t generations = 0;
};

}  // namespace mps::admission::test
