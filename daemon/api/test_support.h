// Shared by the tests of this room: a directory, a fake agent, a reactor on a thread, and a plain
// blocking peer. Everything that waits gives up after k_deadline.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "api/agent.h"
#include "api/event_log.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "policy/generation.h"

namespace mps::api::test {

constexpr std::chrono::seconds k_deadline{30};

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "mps-api-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::chrono::system_clock::time_point at(std::string_view time) {
  return parse_time(time).value();
}

inline instance::Snapshot sample_instance() {
  instance::Snapshot one;
  one.id = "gpu0.shared";
  one.device = "GPU-0a";
  one.state = instance::State::ready;
  one.state_since = at("2026-11-20T10:00:00.000Z");
  one.control = instance::ControlProcess{41, 7, at("2026-11-20T09:59:59.500Z"), false};
  one.restarts = 2;
  one.limits = {25.0, 10240, 1};
  one.limits_confirmed = true;
  one.pipe_directory = "/run/mps/gpu0.shared/open/pipe";
  instance::Client client;
  client.pid = 100;
  client.uid = 1000;
  client.command = "train";
  client.since = at("2026-11-20T10:00:01.000Z");
  client.connected = true;
  one.clients.push_back(client);
  return one;
}

// What is in force with these files, on these devices.
inline std::shared_ptr<const policy::Generation> generation_of(
    const std::vector<std::pair<std::string, std::string>>& files,
    const std::vector<policy::DeviceFacts>& devices = {}, const policy::Generation& before = {}) {
  std::vector<policy::SourceFile> sources;
  sources.reserve(files.size());
  for (const auto& [name, text] : files) sources.push_back({name, text, ""});
  return policy::next_generation(before, sources, devices);
}

inline std::string document(const std::string& subject, const std::string& spec) {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata:\n  namespace: " + subject +
         "\nspec:\n" + spec;
}

// Everything of it in memory, at one time.
class FakeFaults : public FaultDesk {
 public:
  [[nodiscard]] const std::deque<fault::Incident>& incidents() const override { return incidents_; }
  [[nodiscard]] const fault::QuarantineState& quarantine() const override { return quarantine_; }
  [[nodiscard]] const fault::Keeper::Counts& counts() const override { return counts_; }
  [[nodiscard]] const fault::DevicesOut& devices_out() const override { return devices_out_; }
  [[nodiscard]] const fault::Keeper::Times& times() const override { return times_; }
  Result<fault::Entry> keep_out(const fault::Order& order, const std::string& by) override {
    const auto made = fault::put_in(quarantine_, order, by, now_);
    if (!made) return made.error();
    quarantine_.apply(*made);
    return made->entry;
  }
  Result<fault::Entry> lift(const std::string& id, const std::string&) override {
    const auto number = fault::entry_number(id);
    const auto found = number ? quarantine_.entries.find(*number) : quarantine_.entries.end();
    if (found == quarantine_.entries.end()) return Error{"no entry \"" + id + "\""};
    const auto entry = found->second;
    quarantine_.apply(fault::EntryEnded{entry.number});
    return entry;
  }

  fault::Time now_ = fault::time_of(at("2026-11-20T10:00:00.000Z"));
  std::deque<fault::Incident> incidents_;
  fault::QuarantineState quarantine_;
  fault::Keeper::Counts counts_;
  fault::DevicesOut devices_out_;
  fault::Keeper::Times times_;
};

inline fault::OutOfService sample_device_out(const std::string& device = "GPU-0a") {
  return {device, device, fault::Consequence::out_until_reset,
          46,     {},     fault::time_of(at("2026-11-20T10:00:00.000Z")),
          3,      "boot"};
}

class FakeAgent : public Agent {
 public:
  [[nodiscard]] AgentStatus status() const override { return status_; }
  [[nodiscard]] device::Inventory inventory() const override { return inventory_; }
  [[nodiscard]] std::vector<instance::Snapshot> instances() const override { return instances_; }
  [[nodiscard]] PolicyStatus policies() const override { return policies_; }
  [[nodiscard]] AdmissionStatus admissions() const override { return admissions_; }
  [[nodiscard]] AuditStatus audit() const override { return audit_; }
  [[nodiscard]] std::vector<policy::DeviceFacts> device_facts() const override { return facts_; }
  VerbResult drain(const std::string& instance) override { return verb("drain " + instance); }
  VerbResult undrain(const std::string& instance) override { return verb("undrain " + instance); }
  VerbResult restart(const std::string& instance, bool force) override {
    return verb("restart " + instance + (force ? " force" : ""));
  }

  [[nodiscard]] std::vector<ShareView> shares() const override { return shares_; }
  ShareResult create_share(const ShareOrder& order) override {
    if (refusal_) return *refusal_;
    ShareView made;
    made.share = {8, "s8", "gpu0.shared", order.subject, order.grant};
    made.device = "device " + order.device;
    made.directory = "/run/mps/gpu0.shared/shares/s8";
    return made;
  }
  VerbResult delete_share(const std::string& id, bool drain) override {
    return verb("delete " + id + (drain ? " drain" : ""));
  }
  [[nodiscard]] FaultDesk* faults() const override { return keeps_faults_ ? &faults_ : nullptr; }
  void terminate(pid_t client, VerbTold told) override {
    if (!holds_) return told(verb("terminate " + std::to_string(client)));
    told_.push_back(std::move(told));
  }

  VerbResult verb(const std::string& call) {
    calls_.push_back(call);
    if (broken_) throw std::runtime_error("broken");
    if (refusal_) return *refusal_;
    return call + ": accepted";
  }

  AgentStatus status_{"0.1.0", 12,         at("2026-11-20T09:00:00.000Z"), true,
                      "",      "/run/mps", "/var/lib/mps-supervisor"};
  device::Inventory inventory_;
  std::vector<policy::DeviceFacts> facts_;
  PolicyStatus policies_{generation_of({}), at("2026-11-20T09:00:00.000Z"),
                         "/etc/mps-supervisor/policies", ""};
  std::vector<instance::Snapshot> instances_{sample_instance()};
  AdmissionStatus admissions_;
  std::vector<ShareView> shares_;
  AuditStatus audit_;
  mutable FakeFaults faults_;
  bool keeps_faults_ = true;
  std::vector<std::string> calls_;
  bool holds_ = false;          // what came of a terminate
  std::vector<VerbTold> told_;  // who waits for that
  std::optional<VerbError> refusal_;
  bool broken_ = false;
};

inline Event event(std::string kind, std::string message, std::string instance = "gpu0.shared") {
  Event one;
  one.time = at("2026-11-20T10:00:00.000Z");
  one.kind = std::move(kind);
  one.message = std::move(message);
  one.instance = std::move(instance);
  return one;
}

// An io_context on a thread of its own. What runs there is only touched there: use run().
class Reactor {
 public:
  Reactor() : guard_(io_.get_executor()), thread_([this] { io_.run(); }) {}
  ~Reactor() { finish(); }
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // Returns when nothing is left to do there.
  void finish() {
    guard_.reset();
    if (thread_.joinable()) thread_.join();
  }

  template <typename Function>
  auto run(Function function) {
    std::packaged_task<decltype(function())()> task(std::move(function));
    auto result = task.get_future();
    boost::asio::post(io_, [&task] { task(); });
    return result.get();
  }

  boost::asio::any_io_executor executor() { return io_.get_executor(); }

 private:
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_;
  std::thread thread_;
};

// A peer that says what it likes.
class Socket {
 public:
  explicit Socket(const std::filesystem::path& path)
      : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    connected_ =
        ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  explicit Socket(UniqueFd fd) : fd_(std::move(fd)), connected_(true) {}

  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  void close() { fd_.reset(); }
  void send(std::string_view text) const {
    while (!text.empty()) {
      const auto sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  void end_of_requests() const { ::shutdown(fd_.get(), SHUT_WR); }

  // Until the other side closes, or `mark` has come.
  std::string receive(std::string_view mark = {}) {
    const auto end = std::chrono::steady_clock::now() + k_deadline;
    while (mark.empty() || got_.find(mark) == std::string::npos) {
      pollfd waiting{fd_.get(), POLLIN, 0};
      if (std::chrono::steady_clock::now() > end) return got_ + "<deadline>";
      if (::poll(&waiting, 1, 100) <= 0) continue;
      std::array<char, 4096> buffer{};
      const auto count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
      if (count <= 0) break;
      got_.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return std::exchange(got_, {});
  }

 private:
  UniqueFd fd_;
  bool connected_ = false;
  std::string got_;
};

template <typename Condition>
bool wait_until(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + k_deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace mps::api::test
