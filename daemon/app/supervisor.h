// The supervisor: devices, policies, the instances that follow from both, the API, and a clear end.
// One thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "admission/controller.h"
#include "admission/refusals.h"
#include "api/agent.h"
#include "api/event_log.h"
#include "api/metrics.h"
#include "api/server.h"
#include "app/auditor.h"
#include "app/fault_ender.h"
#include "app/fault_watch.h"
#include "app/fd_store.h"
#include "app/fleet.h"
#include "app/gated_entrance.h"
#include "app/journal_recorder.h"
#include "app/opening_book.h"
#include "app/policy_keeper.h"
#include "app/programs.h"
#include "app/settings.h"
#include "app/share_keeper.h"
#include "base/unique_fd.h"
#include "cdi/directory.h"
#include "device/compute_mode_ledger.h"
#include "device/error_source.h"
#include "device/source.h"
#include "instance/actor.h"
#include "process/follower.h"

namespace mps::app {

class Supervisor : public api::Agent {
 public:
  // Opens the journal and the sockets; starts nothing yet. `lock` is held for as long as it lives,
  // `store` is where the shares' sockets are kept.
  static Result<std::unique_ptr<Supervisor>> open(boost::asio::io_context& io, Settings settings,
                                                  Programs programs, Environment environment,
                                                  UniqueFd lock, std::shared_ptr<FdStore> store);
  ~Supervisor() override;

  // Runs until SIGTERM or SIGINT, then ends in order: newcomers first, then, with stopInstances,
  // the control daemons; else these go on for the next supervisor.
  boost::asio::awaitable<void> run();

  // api::Agent
  [[nodiscard]] api::AgentStatus status() const override;
  [[nodiscard]] device::Inventory inventory() const override { return inventory_; }
  [[nodiscard]] std::vector<instance::Snapshot> instances() const override;
  [[nodiscard]] api::PolicyStatus policies() const override;
  [[nodiscard]] api::AdmissionStatus admissions() const override;
  [[nodiscard]] api::AuditStatus audit() const override { return auditor_->status(); }
  [[nodiscard]] std::vector<policy::DeviceFacts> device_facts() const override;
  VerbResult drain(const std::string& instance) override;
  VerbResult undrain(const std::string& instance) override;
  VerbResult restart(const std::string& instance, bool force) override;
  void terminate(pid_t client, VerbTold told) override;
  [[nodiscard]] std::vector<api::ShareView> shares() const override;
  ShareResult create_share(const api::ShareOrder& order) override;
  VerbResult delete_share(const std::string& id, bool drain) override;
  [[nodiscard]] api::FaultDesk* faults() const override { return fault_watch_.get(); }

 private:
  Supervisor(boost::asio::io_context& io, Settings settings, Programs programs,
             Environment environment, UniqueFd lock, std::shared_ptr<FdStore> store,
             std::unique_ptr<api::EventLog> log, std::unique_ptr<process::Follower> follower,
             device::ComputeModeLedger ledger);

  Result<void> open_sockets();
  // Devices and policies, as they are now, become instances with limits.
  void settle_instances();
  // Whether nothing is missing from the inventory that might be there: only then can a daemon be
  // said to belong to no device.
  [[nodiscard]] bool inventory_is_sure() const;
  std::shared_ptr<FleetMember> make_instance(const WantedInstance& wanted);
  // Who is let in, where there are gates.
  Result<void> open_desk();
  std::shared_ptr<SharePrograms> find_share_programs();
  std::shared_ptr<GatedEntrance> make_gate(const WantedInstance& wanted,
                                           const instance::Layout& layout);
  std::shared_ptr<Auditor> make_auditor();
  [[nodiscard]] gate::LearnSettings lesson_settings() const;
  boost::asio::awaitable<void> see_if_gates_can_stand();
  boost::asio::awaitable<void> learn_opening();
  void tell_gates();
  void drop_unclaimed_sockets();
  void say_of(const std::string& kind, const std::string& instance, const std::string& message,
              nlohmann::json data = nlohmann::json::object());
  // A client of an instance, by its pid.
  struct FoundClient {
    std::string instance;
    instance::ClientProcess process;
  };
  [[nodiscard]] std::optional<FoundClient> find_client(pid_t pid) const;
  // Has these clients of an instance terminated, and says whom as events.
  bool terminate_clients(const std::string& instance, std::vector<instance::ClientProcess> clients,
                         instance::Behalf behalf, instance::Actor::Terminated told);
  void say_terminated(const std::string& instance, const instance::ClientProcess& client,
                      const std::string& command);
  void make_fault_ender();
  void open_faults();
  void watch_faults(const WantedInstance& wanted, instance::ActorSettings& actor);
  void settle_faults();
  void listen_to_errors();
  [[nodiscard]] fault::Keeper::OfDevice on_gpu(const std::string& gpu,
                                               const std::string& mig) const;
  [[nodiscard]] std::string gpu_of(const std::string& device) const {
    return device::gpu_of(inventory_, device);
  }
  // Why a device is out of service; empty: it is not.
  [[nodiscard]] std::string why_out(const std::string& device) const;
  void suspect_fault(const std::vector<std::string>& instances);
  void terminate_violator(const std::string& instance, const share::Process& process,
                          const std::string& why);
  void terminate_for_desk(const std::string& instance, const std::vector<share::Process>& processes,
                          std::function<void(const std::vector<admission::Ended>&)> told);
  void take_inventory(device::Inventory fresh);
  boost::asio::awaitable<void> settle_compute_modes();
  boost::asio::awaitable<void> put_back_compute_modes();
  boost::asio::awaitable<void> watch_devices();
  boost::asio::awaitable<void> watch_disks();
  boost::asio::awaitable<void> keep_watchdog(std::chrono::microseconds interval);
  boost::asio::awaitable<void> end();
  boost::asio::awaitable<void> end_instances();
  boost::asio::awaitable<bool> wait_for_ends(std::chrono::milliseconds limit);
  // Shares as CDI devices: the files are made what they are to be.
  void settle_cdi();
  [[nodiscard]] std::vector<cdi::Spec> wanted_cdi() const;
  void tell_cdi(api::ShareView& view) const;
  void say_once(const std::string& about, const std::string& kind, const std::string& message);
  void say(const std::string& kind, const std::string& message);
  VerbResult ask(const std::string& instance, const instance::Input& verb, std::string done);

  boost::asio::io_context& io_;
  Settings settings_;
  Programs programs_;
  Environment environment_;
  UniqueFd lock_;
  std::shared_ptr<FdStore> store_;
  std::unique_ptr<api::EventLog> log_;
  JournalRecorder recorder_;
  std::unique_ptr<process::Follower> follower_;
  device::ComputeModeLedger ledger_;
  std::unique_ptr<device::Source> devices_;
  device::Inventory inventory_;
  admission::Refusals terminated_;     // of these it was said, each once
  std::optional<cdi::Directory> cdi_;  // none: off
  std::set<std::string> cdi_failed_;   // of these it was said
  std::set<std::string> said_;         // troubles that were said and are not over
  std::shared_ptr<PolicyKeeper> policies_;
  std::shared_ptr<admission::Controller> desk_;  // none: every instance is `direct`
  std::shared_ptr<admission::AdmissionServer> admission_server_;
  std::shared_ptr<ShareKeeper> share_keeper_;  // likewise
  std::shared_ptr<Auditor> auditor_;
  std::shared_ptr<FaultEnder> fault_ender_;
  std::shared_ptr<FaultWatch> fault_watch_;  // none: its file cannot be used
  std::set<std::string> watched_for_faults_;
  std::optional<std::vector<admission::LetIn>> recalled_;  // of an earlier supervisor's desk
  std::unique_ptr<device::ErrorSource> errors_;            // calls back: gone before what it calls
  bool faults_settled_ = false;
  std::shared_ptr<SharePrograms> share_programs_;
  std::filesystem::path gate_program_, client_program_;
  std::optional<gate::Opening> opening_;
  std::vector<std::weak_ptr<GatedEntrance>> gates_;
  Fleet fleet_;
  std::unique_ptr<api::Server> server_;
  std::unique_ptr<api::MetricsServer> metrics_;
  boost::asio::steady_timer change_;  // cancelled when an instance changed
  std::chrono::system_clock::time_point started_at_;
  bool ending_ = false;
};

}  // namespace mps::app
