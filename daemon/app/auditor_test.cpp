// Processes are of the test's own: what NVML and MPS say of them is made up.
#include "app/auditor.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <csignal>
#include <thread>

using namespace mps;
using namespace mps::app;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

constexpr auto k_deadline = 60s;
using Told = std::vector<device::DeviceProcesses>;

// A process whose parent is not this one, as a tenant's is.
class Stranger {
 public:
  Stranger() {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const auto between = ::fork();
    if (between == 0) {
      pid_ = ::fork();
      if (pid_ == 0) {
        for (;;) ::pause();
      }
      (void)!::write(ends[1], &pid_, sizeof pid_);
      ::_exit(0);
    }
    ::waitpid(between, nullptr, 0);
    REQUIRE(::read(ends[0], &pid_, sizeof pid_) == sizeof pid_);
    ::close(ends[0]);
    ::close(ends[1]);
    start_ticks_ = process::Proc().stat(pid_).value().start_time;
  }
  ~Stranger() { ::kill(pid_, SIGKILL); }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] share::Process process() const { return {pid_, start_ticks_}; }

 private:
  pid_t pid_ = 0;
  std::uint64_t start_ticks_ = 0;
};

instance::Client client_of(pid_t pid) {
  instance::Client client;
  client.pid = pid;
  client.uid = ::geteuid();
  return client;
}

instance::Snapshot gated_instance() {
  instance::Snapshot instance;
  instance.id = "gpu0.shared";
  instance.device = "GPU-A";
  instance.state = instance::State::ready;
  instance.gate = instance::GateState::standing;
  return instance;
}

asio::awaitable<Result<Told>> answer_with(Told told, std::string error) {
  if (!error.empty()) co_return Error{error};
  co_return told;
}

// An auditor of one instance, all of whose surroundings are set by the test.
class Audited {
 public:
  Audited() {
    AuditorSources sources;
    sources.instances = [this] { return std::vector{instance}; };
    sources.ledger = [this] { return &ledger; };
    sources.processes = [this](const std::vector<std::string>& uuids) {
      asked.push_back(uuids);
      return answer_with({{"GPU-A", processes, ""}}, nvml_error);
    };
    sources.policies = [this] { return policies; };
    sources.say = [this](const std::string& kind, const std::string& about,
                         const std::string& message) {
      CHECK(about == "gpu0.shared");
      said.push_back(kind + ": " + message);
    };
    sources.terminate = [this](const std::string& of, share::Process process,
                               const std::string& why) {
      ended.push_back(of + " " + std::to_string(process.pid) + ": " + why);
    };
    auditor = std::make_shared<Auditor>(io.get_executor(), AuditorSettings{.node_pids = true},
                                        std::move(sources));
  }
  ~Audited() { auditor->close(); }
  Audited(const Audited&) = delete;
  Audited& operator=(const Audited&) = delete;

  // What is said at so many looks.
  std::vector<std::string> looks(int count) {
    said.clear();
    for (int i = 0; i < count; ++i) {
      bool done = false;
      co_spawn(io, auditor->look(), [&done](const std::exception_ptr&) { done = true; });
      io.restart();
      while (!done) REQUIRE(io.run_one_for(k_deadline) > 0);
    }
    return said;
  }

  void policy(const std::string& on_violation) {
    const auto text =
        "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata:\n  namespace: team-a\n"
        "spec:\n  onViolation: " +
        on_violation + "\n";
    policies = policy::next_generation({}, {{"a.yaml", text, ""}}, {});
  }

  void let_in(const share::Process& process, std::uint64_t memory) {
    share::InstanceFacts facts;
    facts.id = "gpu0.shared";
    facts.device = "GPU-A";
    facts.device_name = "gpu0";
    facts.door = share::Serving{};
    (void)ledger.instance_changed(facts, {});
    share::Request request;
    request.id = 1;
    request.share = "gpu0.shared/open";
    request.instance = "gpu0.shared";
    request.container = "c";
    request.subject = "team-a";
    request.description = "pod web-0";
    request.process = process;
    request.grant.pinned_memory_mebibytes = memory;
    (void)ledger.request(request, {});
    REQUIRE(ledger.slot_of("gpu0.shared", process).has_value());
  }

  asio::io_context io;
  instance::Snapshot instance = gated_instance();
  share::Ledger ledger;
  std::vector<device::GpuProcess> processes;
  std::string nvml_error;
  std::shared_ptr<const policy::Generation> policies = policy::next_generation({}, {}, {});
  std::vector<std::string> said;
  std::vector<std::string> ended;
  std::vector<std::vector<std::string>> asked;
  std::shared_ptr<Auditor> auditor;
};

// What another process does, its parent for instance.
template <typename Condition>
bool in_time(const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + k_deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

using Lines = std::vector<std::string>;

std::string named(const Stranger& process) {
  return "process " + std::to_string(process.pid()) + " (app_test) of uid " +
         std::to_string(::geteuid());
}

}  // namespace

TEST_CASE_FIXTURE(Audited, "a client that no gate let in is said once, and that it is gone") {
  auto stranger = std::make_unique<Stranger>();
  const auto who = named(*stranger);
  instance.clients.push_back(client_of(stranger->pid()));
  CHECK(looks(1).empty());
  CHECK(looks(1) == Lines{"client_without_slot: " + who +
                          " is a client of gpu0.shared that no gate has let in"});
  CHECK(looks(3).empty());
  CHECK(ended.empty());
  stranger.reset();
  // MPS may list it for longer than it lives.
  REQUIRE(in_time([&] { return !process::Proc().stat(instance.clients[0].pid); }));
  CHECK(looks(2) == Lines{"violation_over: " + who + " is no longer client_without_slot"});
}

TEST_CASE_FIXTURE(Audited, "a process outside MPS, and what is none") {
  const Stranger stranger;
  const Stranger client;
  processes = {{stranger.pid(), 100, false}, {client.pid(), 100, false}, {::getpid(), 1, false}};
  // This process plays the server: what it started itself is a program of ours.
  instance.server.emplace().pid = ::getpid();
  instance.clients.push_back(client_of(client.pid()));
  let_in(client.process(), 200);
  CHECK(looks(2) == Lines{"outside_mps: " + named(stranger) +
                          " uses the device of gpu0.shared without MPS, and without limits"});
  CHECK(ended.empty());
  CHECK(asked.front() == Lines{"GPU-A"});
  const auto status = auditor->status();
  REQUIRE(status.devices.size() == 1);
  CHECK(status.devices[0].known);
  REQUIRE(status.counts.size() == 3);
  CHECK(status.counts[2].kind == "outside_mps");
  CHECK(status.counts[2].standing == 1);
  processes.erase(processes.begin());
  CHECK(looks(2) == Lines{"violation_over: " + named(stranger) + " is no longer outside_mps"});
}

TEST_CASE_FIXTURE(Audited, "a client over its memory is ended where the policy says so") {
  const Stranger client;
  instance.clients.push_back(client_of(client.pid()));
  let_in(client.process(), 2048);
  processes = {{client.pid(), 4000, true}};
  const auto who = named(client) + ", team-a, pod web-0,";
  const std::string what = " has 4000Mi of the device's memory, and may have 2048Mi";
  SUBCASE("it says so") {
    policy("terminate");
    CHECK(looks(2) == Lines{"client_over_memory: " + who + what +
                            "; it is ended, as the policy says (onViolation)"});
    CHECK(ended == Lines{"gpu0.shared " + std::to_string(client.pid()) + ": " + who + what});
    // It is given time.
    looks(2);
    CHECK(ended.size() == 1);
  }
  SUBCASE("it says so later") {
    policy("report");
    CHECK(looks(2) == Lines{"client_over_memory: " + who + what});
    CHECK(ended.empty());
    policy("terminate");
    CHECK(looks(1).empty());
    CHECK(ended.size() == 1);
  }
}

TEST_CASE_FIXTURE(Audited, "where NVML says nothing, that is said once, and nobody is accused") {
  const Stranger stranger;
  processes = {{stranger.pid(), 100, false}};
  nvml_error = "nvmlInit: Driver Not Loaded";
  CHECK(looks(1).empty());
  CHECK(looks(3) == Lines{"audit_blind: clients over their memory and programs outside MPS cannot "
                          "be found: nvmlInit: Driver Not Loaded"});
  CHECK_FALSE(auditor->knows("GPU-A"));
  nvml_error.clear();
  CHECK(looks(2) == Lines{"audit_resumed: NVML says again who uses the device",
                          "outside_mps: " + named(stranger) +
                              " uses the device of gpu0.shared without MPS, and without limits"});
  CHECK(auditor->knows("GPU-A"));
}

TEST_CASE_FIXTURE(Audited, "once closed, nothing is said, and a look that is under way ends") {
  const Stranger stranger;
  processes = {{stranger.pid(), 100, false}};
  looks(1);
  co_spawn(io, auditor->look(), asio::detached);
  io.restart();
  io.poll_one();
  auditor->close();
  io.run_for(100ms);
  CHECK(said.empty());
}
