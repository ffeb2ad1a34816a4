// The Desk: identity, policy and ledger put together, with what follows from their decisions: the
// checkpoint, the watch over processes and cgroups, the events.
//
// Who is asking is looked up on a thread of its own, since it reads /proc, cgroups and the
// runtimes' files; all decisions are made on the executor's thread. Every change is in the
// checkpoint before anybody hears of it.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "admission/desk.h"
#include "admission/plan.h"
#include "admission/refusals.h"
#include "admission/shares.h"
#include "base/result.h"
#include "process/child.h"
#include "process/slow_work.h"
#include "share/checkpoint_file.h"

namespace mps::admission {

struct ControllerSettings {
  std::filesystem::path checkpoint;  // <stateDir>/admissions.log
  share::LedgerSettings ledger{};
  std::chrono::milliseconds wait{60000};
};

// What came of the end of a client that was asked for.
struct Ended {
  enum class Kind { ended, was_none, failed } kind = Kind::failed;
  share::Process process{};
  std::string why{};  // it failed
};

// Who has been let in, or has been before and asked again: what is known of that process then.
// Of one that nothing explains (adopted) `who` has the uid alone, and what it may have is unknown.
struct LetIn {
  std::string instance;
  std::string share;
  share::Process process{};
  identity::Identity who;
  share::Grant grant{};
  std::string command;  // its command line, cut
  // Of one of an earlier supervisor's time; Unix time, ms, 0: not known, or not over.
  std::int64_t since = 0;
  std::int64_t until = 0;
  bool explained = true;
};

struct ControllerSources {
  std::shared_ptr<const identity::Resolver> resolver;
  std::function<std::shared_ptr<const policy::Generation>()> policies;
  // An event: its kind, the instance that it is about, and a sentence.
  std::function<void(const std::string& kind, const std::string& instance,
                     const std::string& message)>
      say;
  // Has these clients of an instance ended through MPS, and tells of each of them, within 30 s and
  // not from within the call. None: that is not possible.
  std::function<void(const std::string& instance, std::vector<share::Process> processes,
                     std::function<void(const std::vector<Ended>&)> told)>
      terminate{};
  // Whether these are kept out for now, whatever else they might have. None: nobody is.
  std::function<std::optional<share::Refusal>(const identity::Identity& who,
                                              const std::string& command)>
      kept_out{};
  std::function<void(const LetIn& in)> let_in{};
  // Its process has ended, whom we had let in.
  std::function<void(const std::string& instance, const share::Process& process)> left{};
};

class Controller final : public Desk, public std::enable_shared_from_this<Controller> {
 public:
  // An Error: the checkpoint is not ours to use. What is damaged in it is said as an event.
  static Result<std::shared_ptr<Controller>> open(const boost::asio::any_io_executor& executor,
                                                  ControllerSettings settings,
                                                  ControllerSources sources);
  ~Controller() override;
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  // Desk
  RequestId ask(Peer peer, const Wish& wish, Told told) override;
  void withdraw(RequestId request) override;
  void connection_closed(share::SlotId slot) override;
  void standing(Peer peer,
                std::function<void(std::variant<Standing, share::Refusal>)> told) override;
  void terminate_own(Peer peer, Scope scope,
                     std::function<void(std::variant<Terminated, share::Refusal>)> told) override;

  // What the ledger knows of instances. New ones too.
  void instance_changed(const Place& place, const share::InstanceFacts& facts);
  void instance_removed(const std::string& instance);
  void policies_changed();

  // Shares made on demand. Each change of them is an event, and told to the listener afterwards.
  const Shares& shares() const { return checkpoint_.state().shares; }
  // `at_least`: its number, where lower ones are known to have been used.
  share::Share make_share(const ShareWish& wish, std::uint64_t at_least = 0);
  // Newcomers are refused from now on, and it ends with its last client: now, where it has none.
  // Of one that is not there, or closing already, nothing changes.
  void close_share(std::uint64_t number);
  // Called before anybody hears that a share takes no newcomers any more; not to call back.
  void on_share_closing(std::function<void(const share::Share&)> listener) {
    share_closes_ = std::move(listener);
  }
  void on_share_change(std::function<void()> listener) { shares_changed_ = std::move(listener); }

  // A process that a gate has inside since an earlier supervisor: its slot, or an adopted one.
  // None: it has ended.
  std::optional<share::SlotId> found_inside(const std::string& instance, pid_t pid, uid_t uid);

  // Right after open(), once: whom the last supervisor had inside, as it was recorded when they
  // came, also those whose processes have ended since; and who had gone last.
  std::vector<LetIn> take_recalled() { return std::exchange(recalled_, {}); }
  // Whether the records that were found were whole: else some of whom nobody knows may be inside.
  [[nodiscard]] bool records_whole() const { return records_whole_; }

  // Nobody is told anything any more; what is recorded stays.
  void close();

  [[nodiscard]] const share::Ledger& ledger() const { return ledger_; }
  // By the gate, which asks about nobody who does not begin as a client does.
  void count_refused(share::Code code, std::uint64_t times) { refused_[code] += times; }
  // How many were refused for good, and told so.
  [[nodiscard]] const std::map<share::Code, std::uint64_t>& refused() const { return refused_; }

 private:
  static constexpr std::size_t k_being_looked_up = 16384;
  struct FoundOut {
    identity::Answer who;
    std::uint64_t start_ticks = 0;
    std::string command{};
  };
  struct Asking {
    Told told;
    Wish wish;
    Place place;
    std::string share;
    pid_t pid = 0;
    uid_t uid = 0;
    std::uint64_t start_ticks = 0;
    std::string command{};
    std::optional<identity::Identity> who{};
    std::optional<share::SlotId> let_in{};  // decided, and not told yet
  };
  struct Admitted {
    identity::Cgroup cgroup{};
    std::size_t slots = 0;
  };
  using Found = std::function<void(Controller& self, const FoundOut& found)>;

  Controller(const boost::asio::any_io_executor& executor, ControllerSettings settings,
             ControllerSources sources, share::CheckpointFile checkpoint);
  void go_on_from(const share::Replay& replay);

  // Looks up who that is, then goes on here, unless it was closed meanwhile.
  void find_out(std::shared_ptr<const Peer> peer, Found then);
  static constexpr std::size_t k_command_limit = 256;
  static std::string command_of(pid_t pid);
  static FoundOut look_up(const identity::Resolver& resolver, const Peer& peer);
  void decide(RequestId id, const Peer& peer, const FoundOut& found);
  [[nodiscard]] share::Request request_of(const Peer& peer, const identity::Identity& who,
                                          std::uint64_t start_ticks, const share::Plan& plan,
                                          const Wish& wish) const;
  void refuse(RequestId id, share::Refusal why);

  void apply(share::Effects effects);
  void note(const share::Change& change);
  void deliver(const share::Decision& decision);
  void tell(RequestId id, const Verdict& verdict);
  void say_verdict(const Asking& asking, const Verdict& verdict);

  // What it may have there, by a policy or by a share of its own.
  [[nodiscard]] std::variant<share::Plan, share::Refusal> plan_of(const identity::Identity& who,
                                                                  const std::string& command,
                                                                  const Place& place,
                                                                  const std::string& share) const;
  [[nodiscard]] bool is_closed_to(const Place& place, const std::string& share,
                                  const share::Process& process) const;
  void end_closed_shares();
  void expire_shares();
  void set_share_alarm();
  void tell_share_change();

  void watch(const share::Slot& slot);
  static boost::asio::awaitable<void> watch_process(std::weak_ptr<Controller> weak,
                                                    boost::asio::any_io_executor executor,
                                                    share::SlotId slot, share::Process process);
  void slot_over(share::SlotId slot);
  void look_at_cgroups();
  void set_alarm();
  void set_cgroup_alarm();
  using ToldEnded = std::function<void(std::variant<Terminated, share::Refusal>)>;
  // `root`: only of that process and its descendants.
  void terminate_clients(const Peer& peer, const identity::Identity& who,
                         const std::optional<share::Process>& root, const ToldEnded& told);
  [[nodiscard]] std::optional<share::Refusal> too_many_endings(const std::string& instance,
                                                               const std::string& subject) const;
  void terminate_these(const std::string& instance, const std::string& whose,
                       std::vector<share::Process> processes, const ToldEnded& told);
  [[nodiscard]] std::optional<share::Process> process_of(pid_t pid) const;

  boost::asio::any_io_executor executor_;
  ControllerSettings settings_;
  ControllerSources sources_;
  share::CheckpointFile checkpoint_;
  share::Ledger ledger_;
  process::SlowWork looking_up_;
  process::SlowWork looking_at_cgroups_;
  boost::asio::steady_timer alarm_;
  boost::asio::steady_timer cgroup_alarm_;
  boost::asio::steady_timer share_alarm_;
  std::function<void()> shares_changed_;
  std::function<void(const share::Share&)> share_closes_;
  bool share_change_is_told_ = false;
  bool cgroup_alarm_set_ = false;
  std::optional<share::TimePoint> alarm_at_{};
  std::map<std::string, Place> places_;  // by instance
  std::map<RequestId, Asking> asking_;
  struct Ending {
    std::string instance;
    std::string subject;
  };
  std::map<std::string, Ending> terminating_;  // by share and container whose clients they are
  std::size_t being_looked_up_ = 0;
  RequestId next_request_ = 1;
  std::map<share::SlotId, share::AdmissionId> slots_;
  std::map<share::AdmissionId, Admitted> admitted_;
  std::set<share::AdmissionId> without_slots_;
  share::AdmissionId looked_at_ = 0;  // the last of them
  Refusals refusals_;
  std::map<share::Code, std::uint64_t> refused_;
  bool behind_said_ = false;
  bool records_whole_ = true;
  std::vector<LetIn> recalled_;
  bool closed_ = false;
};

}  // namespace mps::admission
