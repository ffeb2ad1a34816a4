#include "app/auditor.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <utility>
#include <variant>

#include "admission/plan.h"
#include "base/unique_fd.h"

namespace mps::app {

namespace asio = boost::asio;
using admission::Finding;
using admission::FindingKind;

namespace {

constexpr auto k_use = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t k_slots = 16384;  // far more than MPS has clients

std::chrono::milliseconds with_jitter(std::chrono::milliseconds interval) {
  static std::minstd_rand random{std::random_device{}()};
  std::uniform_int_distribution<std::chrono::milliseconds::rep> more(0, interval.count() / 10);
  return interval + std::chrono::milliseconds(more(random));
}

bool is_settled(instance::State state) {
  using instance::State;
  return state == State::ready || state == State::draining || state == State::stopped ||
         state == State::failed;
}

// As process 1 we are the parent of everybody's orphans.
bool is_child_of_ours(pid_t parent) {
  return parent == ::getpid() && parent != 1;
}

bool has_server(const instance::Snapshot& instance) {
  return instance.server && instance.server->pid != 0;
}

}  // namespace

Auditor::Auditor(const asio::any_io_executor& executor, AuditorSettings settings,
                 AuditorSources sources)
    : executor_(executor),
      settings_(std::move(settings)),
      sources_(std::move(sources)),
      thread_(executor),
      timer_(executor) {}

void Auditor::start() {
  co_spawn(
      executor_, [self = shared_from_this()] { return self->run(); }, asio::detached);
}

void Auditor::close() {
  closed_ = true;
  timer_.cancel();
  thread_.close();
}

asio::awaitable<void> Auditor::run() {
  const auto self = shared_from_this();
  while (!closed_) {
    timer_.expires_after(with_jitter(settings_.interval));
    co_await timer_.async_wait(k_use);
    if (!closed_) co_await look();
  }
}

// ---- what cannot be done here and now ----

// None: it takes too long; until it has ended there is no other.
template <typename T>
asio::awaitable<std::optional<T>> Auditor::on_thread(std::function<T()> work) {
  struct Call {
    asio::steady_timer deadline;
    std::optional<T> answer{};
  };
  if (std::exchange(thread_is_busy_, true)) co_return std::nullopt;
  const auto call = std::make_shared<Call>(Call{{executor_, settings_.patience}});
  // The thread may outlive the executor, and so must never own the timer: hence weak.
  thread_.run([weak = std::weak_ptr(call), auditor = weak_from_this(),
               work = std::move(work)]() -> process::SlowWork::Then {
    auto answer = std::make_shared<T>(work());
    return [weak, auditor, answer] {
      if (const auto self = auditor.lock()) self->thread_is_busy_ = false;
      const auto waiting = weak.lock();
      if (!waiting) return;
      waiting->answer = std::move(*answer);
      waiting->deadline.cancel();
    };
  });
  co_await call->deadline.async_wait(k_use);
  co_return std::move(call->answer);
}

asio::awaitable<Auditor::Told> Auditor::ask_nvml() {
  std::set<std::string> devices;
  for (const auto& instance : sources_.instances()) devices.insert(instance.device);
  std::vector<std::string> uuids(devices.begin(), devices.end());
  Told told;
  for (const auto& uuid : uuids) told.push_back({uuid, {}, "not asked"});
  if (!sources_.processes || uuids.empty()) co_return told;
  auto answer = co_await sources_.processes(uuids);
  if (answer) co_return std::move(*answer);
  for (auto& device : told) device.error = answer.error().message;
  co_return told;
}

std::set<pid_t> Auditor::pids_of(const Told& told,
                                 const std::vector<instance::Snapshot>& instances) {
  std::set<pid_t> pids;
  for (const auto& device : told) {
    for (const auto& process : device.processes) pids.insert(process.pid);
  }
  for (const auto& instance : instances) {
    for (const auto& client : instance.clients) pids.insert(client.pid);
  }
  pids.erase(0);
  return pids;
}

Auditor::FactsByPid Auditor::read_facts(const process::Proc& proc, const std::set<pid_t>& pids) {
  FactsByPid facts;
  for (const auto pid : pids) {
    const auto stat = proc.stat(pid);
    if (!stat || stat->state == 'Z' || stat->state == 'X') continue;
    facts[pid] = {stat->start_time, stat->parent, stat->name, proc.uid(pid).value_or(0)};
  }
  return facts;
}

// Only where it is still that process after its cgroup was read.
void Auditor::identify_one(const identity::Resolver& resolver, const process::Proc& proc,
                           Finding& finding) {
  const auto pid = finding.process.pid;
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process::is_running(proc, pid, finding.process.start_ticks)) return;
  const auto who =
      resolver.identify({.pid = pid, .uid = finding.uid, .gid = 0, .pidfd = pidfd.get()});
  const auto* known = std::get_if<identity::Identity>(&who);
  if (known == nullptr || !process::is_running(proc, pid, finding.process.start_ticks)) return;
  finding.subject = known->subject;
  finding.description = admission::describe(*known);
}

asio::awaitable<std::vector<Finding>> Auditor::identify(std::vector<Finding> findings) {
  const bool all_known = std::all_of(findings.begin(), findings.end(),
                                     [](const Finding& f) { return !f.subject.empty(); });
  if (all_known || !sources_.resolver) co_return findings;
  std::function<std::vector<Finding>()> work = [resolver = sources_.resolver, proc = settings_.proc,
                                                findings] {
    auto answers = findings;
    for (auto& finding : answers) {
      if (finding.subject.empty()) identify_one(*resolver, proc, finding);
    }
    return answers;
  };
  auto known = co_await on_thread(std::move(work));
  if (known) co_return std::move(*known);
  co_return findings;
}

// ---- one look ----

asio::awaitable<void> Auditor::look() {
  const auto self = shared_from_this();
  auto told = co_await ask_nvml();
  if (closed_) co_return;
  // After NVML: a client that came meanwhile is known by now.
  std::function<FactsByPid()> work = [proc = settings_.proc,
                                      pids = pids_of(told, sources_.instances())] {
    return read_facts(proc, pids);
  };
  const auto facts = co_await on_thread(std::move(work));
  if (closed_) co_return;
  if (!facts) {
    known_.clear();
    co_return;
  }
  const auto instances = sources_.instances();
  note_known(told, instances);
  auto news = audit_.look(input_of(told, instances, *facts));
  const auto begun = co_await identify(std::move(news.begun));
  if (closed_) co_return;
  for (const auto& finding : begun) {
    audit_.know(finding);
    report(finding);
  }
  for (const auto& finding : news.over) report_over(finding);
  end_violators();
}

admission::AuditedInstance Auditor::audited(const instance::Snapshot& instance,
                                            const FactsByPid& facts, const share::Ledger* ledger) {
  admission::AuditedInstance audited;
  audited.id = instance.id;
  audited.device = instance.device;
  audited.gated = ledger != nullptr && instance.gate != instance::GateState::direct;
  audited.ready = instance.state == instance::State::ready;
  audited.settled = is_settled(instance.state);
  for (const auto& client : instance.clients) {
    const auto fact = facts.find(client.pid);
    // Another one has its pid now, or nobody: then it is nobody to be found.
    const bool runs = fact != facts.end() &&
                      (client.start_ticks == 0 || client.start_ticks == fact->second.start_ticks);
    const share::Process process{client.pid, runs ? fact->second.start_ticks : 0};
    const bool has_slot = ledger != nullptr && ledger->slot_of(instance.id, process).has_value();
    audited.clients.push_back({.process = process,
                               .name = runs ? fact->second.name : client.command,
                               .uid = client.uid,
                               .has_slot = has_slot,
                               .adopted = client.adopted});
  }
  return audited;
}

admission::AuditedDevice Auditor::audited(const device::DeviceProcesses& device,
                                          const FactsByPid& facts, const std::set<pid_t>& mps) {
  admission::AuditedDevice audited;
  audited.uuid = device.uuid;
  for (const auto& process : device.processes) {
    const auto fact = facts.find(process.pid);
    if (fact == facts.end()) continue;
    const auto& of_it = fact->second;
    const bool is_ours =
        mps.contains(process.pid) || mps.contains(of_it.parent) || is_child_of_ours(of_it.parent);
    audited.processes.push_back({.process = {process.pid, of_it.start_ticks},
                                 .name = of_it.name,
                                 .uid = of_it.uid,
                                 .memory_mebibytes = process.memory_mebibytes,
                                 .mps_client = process.mps_client,
                                 .is_ours = is_ours});
  }
  return audited;
}

admission::AuditInput Auditor::input_of(const Told& told,
                                        const std::vector<instance::Snapshot>& instances,
                                        const FactsByPid& facts) const {
  admission::AuditInput input;
  std::set<pid_t> mps;
  for (const auto& instance : instances) {
    if (instance.control) mps.insert(instance.control->pid);
    if (has_server(instance)) mps.insert(instance.server->pid);
    input.instances.push_back(audited(instance, facts, sources_.ledger()));
  }
  for (const auto& device : told) {
    input.devices.push_back(audited(device, facts, mps));
    input.devices.back().known = knows(device.uuid);
  }
  add_slots(input);
  return input;
}

void Auditor::add_slots(admission::AuditInput& input) const {
  const auto* ledger = sources_.ledger();
  if (ledger == nullptr) return;
  std::map<share::AdmissionId, share::Admission> admissions;
  for (auto& view : ledger->admissions(k_slots)) {
    admissions[view.admission.id] = std::move(view.admission);
  }
  for (auto& view : ledger->slots(k_slots)) {
    admission::AuditedSlot audited{.slot = std::move(view.slot)};
    if (const auto known = admissions.find(audited.slot.admission); known != admissions.end()) {
      audited.subject = known->second.subject;
      audited.description = known->second.description;
    }
    input.slots.push_back(std::move(audited));
  }
}

// ---- what follows ----

void Auditor::note_known(const Told& told, const std::vector<instance::Snapshot>& instances) {
  known_.clear();
  auto blind_before = std::exchange(blind_, {});
  for (const auto& device : told) {
    std::set<pid_t> ours;
    std::string on;
    for (const auto& instance : instances) {
      if (instance.device != device.uuid) continue;
      if (on.empty()) on = instance.id;
      if (has_server(instance)) ours.insert(instance.server->pid);
    }
    const auto why = admission::why_unusable(device, ours, settings_.node_pids);
    if (why.empty()) {
      known_.insert(device.uuid);
      if (blind_said_.erase(device.uuid) != 0) {
        sources_.say("audit_resumed", on, "NVML says again who uses the device");
      }
    } else {
      blind_[device.uuid] = why;
      // Twice in a row: NVML may be away for a moment.
      if (blind_before.contains(device.uuid)) say_blind(device.uuid, on, why);
    }
  }
}

void Auditor::say_blind(const std::string& device, const std::string& instance,
                        const std::string& why) {
  if (!sources_.processes || !blind_said_.insert(device).second) return;
  sources_.say("audit_blind", instance,
               "clients over their memory and programs outside MPS cannot be found: " + why);
}

void Auditor::report(const Finding& finding) {
  const auto ends = sources_.terminate && admission::to_be_ended(finding, *sources_.policies());
  const auto text = describe_process(finding) + " " + describe(finding) +
                    (ends ? "; it is ended, as the policy says (onViolation)" : "");
  switch (finding.kind) {
    case FindingKind::client_without_slot:
      return sources_.say("client_without_slot", finding.instance, text);
    case FindingKind::client_over_memory:
      return sources_.say("client_over_memory", finding.instance, text);
    case FindingKind::outside_mps:
      return sources_.say("outside_mps", finding.instance, text);
  }
}

void Auditor::report_over(const Finding& finding) {
  sources_.say("violation_over", finding.instance,
               describe_process(finding) + " is no longer " + to_string(finding.kind));
}

void Auditor::end_violators() {
  if (!sources_.terminate) return;
  for (const auto& finding :
       audit_.to_end(*sources_.policies(), std::chrono::steady_clock::now())) {
    sources_.terminate(finding.instance, finding.process,
                       describe_process(finding) + " " + describe(finding));
  }
}

api::AuditStatus Auditor::status() const {
  api::AuditStatus status;
  for (const auto& [device, kinds] : audit_.counts()) {
    status.devices.push_back({device, known_.contains(device)});
    for (const auto& [kind, count] : kinds) {
      status.counts.push_back({device, to_string(kind), count.standing, count.found});
    }
  }
  return status;
}

}  // namespace mps::app
