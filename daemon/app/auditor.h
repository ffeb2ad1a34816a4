// Looks every few seconds for what no gate can see (see admission/audit.h), says what it finds, and
// has those ended whose policy wants that.
//
// One look is under way at a time, so nothing piles up where NVML or /proc take long: the next one
// comes that much later.
//
// Threading: the supervisor's executor. /proc and identities are read on a thread of its own. Made
// by make_shared.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "admission/audit.h"
#include "api/audit.h"
#include "base/result.h"
#include "device/gpu_process.h"
#include "identity/identity.h"
#include "instance/snapshot.h"
#include "policy/generation.h"
#include "process/proc.h"
#include "process/slow_work.h"
#include "share/ledger.h"

namespace mps::app {

struct AuditorSettings {
  std::chrono::milliseconds interval{10000};  // and up to a tenth more, by chance
  std::chrono::milliseconds patience{30000};  // with /proc and identities
  bool node_pids = false;                     // ours are those that the driver knows
  process::Proc proc{};
};

struct AuditorSources {
  std::function<std::vector<instance::Snapshot>()> instances;
  std::function<const share::Ledger*()> ledger;  // null: there are no gates
  // As device::Source::processes(); none: nobody can tell, and nothing is said about it.
  std::function<boost::asio::awaitable<Result<std::vector<device::DeviceProcesses>>>(
      std::vector<std::string> uuids)>
      processes;
  std::function<std::shared_ptr<const policy::Generation>()> policies;
  std::shared_ptr<const identity::Resolver> resolver;
  std::function<void(const std::string& kind, const std::string& instance,
                     const std::string& message)>
      say;
  // Ends a client through MPS, never by a signal; asked again while it lasts. None: nobody is
  // ended.
  std::function<void(const std::string& instance, share::Process process, std::string why)>
      terminate;
};

class Auditor : public std::enable_shared_from_this<Auditor> {
 public:
  Auditor(const boost::asio::any_io_executor& executor, AuditorSettings settings,
          AuditorSources sources);

  void start();
  // One look, whenever it is; not while another one is under way.
  boost::asio::awaitable<void> look();
  // Nothing is said or ended after this.
  void close();

  // NVML told at the last look who uses the device.
  [[nodiscard]] bool knows(const std::string& device) const { return known_.contains(device); }
  [[nodiscard]] api::AuditStatus status() const;

 private:
  // Of processes that run; others have none.
  struct Facts {
    std::uint64_t start_ticks = 0;
    pid_t parent = 0;
    std::string name{};
    uid_t uid = 0;
  };
  using FactsByPid = std::map<pid_t, Facts>;
  using Told = std::vector<device::DeviceProcesses>;

  boost::asio::awaitable<void> run();
  boost::asio::awaitable<Told> ask_nvml();
  boost::asio::awaitable<std::vector<admission::Finding>> identify(
      std::vector<admission::Finding> findings);
  template <typename T>
  boost::asio::awaitable<std::optional<T>> on_thread(std::function<T()> work);

  static std::set<pid_t> pids_of(const Told& told,
                                 const std::vector<instance::Snapshot>& instances);
  static FactsByPid read_facts(const process::Proc& proc, const std::set<pid_t>& pids);
  static void identify_one(const identity::Resolver& resolver, const process::Proc& proc,
                           admission::Finding& finding);
  static admission::AuditedInstance audited(const instance::Snapshot& instance,
                                            const FactsByPid& facts, const share::Ledger* ledger);
  static admission::AuditedDevice audited(const device::DeviceProcesses& device,
                                          const FactsByPid& facts, const std::set<pid_t>& mps);
  [[nodiscard]] admission::AuditInput input_of(const Told& told,
                                               const std::vector<instance::Snapshot>& instances,
                                               const FactsByPid& facts) const;
  void add_slots(admission::AuditInput& input) const;
  void note_known(const Told& told, const std::vector<instance::Snapshot>& instances);
  void say_blind(const std::string& device, const std::string& instance, const std::string& why);
  void report(const admission::Finding& finding);
  void report_over(const admission::Finding& finding);
  void end_violators();

  boost::asio::any_io_executor executor_;
  AuditorSettings settings_;
  AuditorSources sources_;
  admission::Audit audit_;
  process::SlowWork thread_;
  bool thread_is_busy_ = false;
  boost::asio::steady_timer timer_;
  std::set<std::string> known_;               // devices
  std::map<std::string, std::string> blind_;  // by device: why, at the last look
  std::set<std::string> blind_said_;
  bool closed_ = false;
};

}  // namespace mps::app
