// One instance, alive: gives the machine what happens (the daemon's end, its log, answers, timers,
// verbs) and carries out what it decides. Thin on purpose; the decisions are in machine.h.
//
// Threading: one executor for everything. Made by make_shared; the coroutines it starts keep it
// alive until they have ended, which they do soon after close().
#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "control/channel.h"
#include "control/fault_lists.h"
#include "instance/door.h"
#include "instance/entrance.h"
#include "instance/found_daemon.h"
#include "instance/layout.h"
#include "instance/machine.h"
#include "instance/pipe_place.h"
#include "instance/recorder.h"
#include "instance/snapshot.h"
#include "instance/termination.h"
#include "process/child.h"
#include "process/follower.h"
#include "process/proc.h"

namespace mps::instance {

struct ActorSettings {
  std::string id;      // "gpu0.shared"
  std::string device;  // UUID
  std::string domain = "shared";
  std::filesystem::path run_dir;
  std::filesystem::path control_program;  // nvidia-cuda-mps-control
  std::vector<std::string> environment;   // of the daemon and of its front-ends
  MachineSettings machine;
  std::shared_ptr<Entrance> entrance{};  // none: a door of its own, `direct`
  // Ends those of these clients whose policy says so, in order, and tells what became of them:
  // always, and not from within the call. None: all of them are waited for.
  using Told = std::function<void(const FaultedClientsEnded& done)>;
  std::function<void(const std::vector<Client>& clients, Told told)> end_faulted{};
  // Told of each line of the log that concerns the instance (Machine::concerns) before the machine
  // is, with where it ends.
  std::function<void(const LogLine& line, const ReadPosition& end)> heard{};
  // Told that what comes is of the time before this supervisor, and when that is over.
  std::function<void(bool on)> reading_on{};
};

class Actor : public std::enable_shared_from_this<Actor> {
 public:
  Actor(const boost::asio::any_io_executor& executor, ActorSettings settings,
        process::Follower& follower, Recorder& recorder);
  ~Actor();
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;

  // Reads what the log says since the last supervisor, then takes up the daemon that was found, or
  // starts one.
  void start(const std::optional<FoundDaemon>& found);
  // Takes up a daemon that nothing wants, as it is, to end it when its clients have gone. Nothing
  // is started where it ended meanwhile.
  void drain(const FoundDaemon& found);

  // A verb: DrainWanted, UndrainWanted, RestartWanted or ShutdownWanted, or what is to be known of
  // the device: DeviceOut (before start(), too) or DeviceBack. A refusal says why.
  std::optional<VerbRefused> ask(const Input& verb);

  // Ends clients through MPS, in order, and says what came of it for each: always, and not from
  // within this call. Bounded in time (for a fault from when MPS is first asked, else from now on),
  // and in how often it is under way at once. What others ask for gives way to everything else in
  // the channel. A process without start_ticks is the one that has the pid now.
  using Terminated = std::function<void(const std::vector<Termination>& results)>;
  void terminate(std::vector<ClientProcess> clients, Behalf behalf, Terminated told);

  [[nodiscard]] Snapshot snapshot() const;
  [[nodiscard]] const std::string& device() const { return settings_.device; }
  [[nodiscard]] State state() const { return machine_.state(); }
  [[nodiscard]] std::optional<Limits> limits_in_force() const { return machine_.limits_in_force(); }
  // Whether a server has that client.
  [[nodiscard]] bool serves(pid_t client) const {
    const auto known = machine_.clients().find(client);
    return known != machine_.clients().end() && known->second.connected;
  }
  // Whether a server that refuses newcomers because of a fault has it: until it goes they wait.
  [[nodiscard]] bool waits_for(pid_t client) const { return serves(client) && machine_.in_fault(); }
  [[nodiscard]] std::string last_error() const { return machine_.last_error(); }
  [[nodiscard]] std::string device_out() const { return machine_.device_out().value_or(""); }
  [[nodiscard]] bool daemon_runs() const { return machine_.daemon() != 0; }

  // Called after anything changed.
  void on_change(std::function<void()> listener) { changed_ = std::move(listener); }

  // Lets go of everything and starts nothing more; the daemon goes on.
  void close();

 private:
  struct Entry {
    Input input;
    std::optional<ReadPosition> position;  // of the line that it is
  };
  static constexpr std::size_t k_timers = 7;

  // What a coroutine holds on to: it begins later than it is made, so `this` would not do.
  using Self = std::shared_ptr<Actor>;

  void give(Input input, std::optional<ReadPosition> position = {});
  void apply(const Action& action);
  void carry_out(const SpawnDaemon&);
  void carry_out(const RunBatch& run);
  void carry_out(const EndFaultedClients& end);
  void carry_out(const SetTimer& set);
  void carry_out(const CancelTimer& cancel);
  void carry_out(const OpenDoor&);
  void carry_out(const CloseDoor&);
  void carry_out(const SignalDaemon& signal);
  void carry_out(const SignalServer& signal);
  void carry_out(const SignalHolder& signal);
  void carry_out(const WatchServer& watch);
  void carry_out(const WatchClient& watch);
  void carry_out(const Emit& event);

  Result<process::Child> spawn();
  Result<void> prepare_place();
  void take_place(std::shared_ptr<const PipePlace> place);
  void find_place(pid_t daemon);
  void say_visible(const std::string& message);
  [[nodiscard]] std::string visible() const;
  Result<void> follow_log(UniqueFd file);
  bool take_up(FoundDaemon found, bool only_drain);
  [[nodiscard]] bool is_coming(pid_t pid) const;
  bool take_up_late();
  Result<void> follow_output_of(pid_t pid);
  void log_failed(const Error& error);
  std::optional<RememberedDaemon> restore();
  void reading_on(bool on);
  void on_lines(std::span<const process::FollowedLine> lines);
  void note_flood(std::size_t unknown_lines);
  LogLine log_line(std::string_view text);
  void watch_daemon();
  static boost::asio::awaitable<void> daemon_ends(Self self, std::shared_ptr<process::Child> child);
  // A process that is not ours, and what its end means.
  struct Watched {
    pid_t pid = 0;
    std::uint64_t start_ticks = 0;
    bool server = false;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang 14 takes the comparison with 0 for a pointer's
    auto operator<=>(const Watched&) const = default;
    [[nodiscard]] Input ended() const;
  };
  // Gives its end when it has come, at once if it has. Each process is watched once.
  void watch_process(const Watched& watched);
  static boost::asio::awaitable<void> process_ends(Self self, process::Child child,
                                                   Watched watched);
  [[nodiscard]] std::uint64_t watched_since(pid_t client) const;
  void name_friends();  // to the channel
  static boost::asio::awaitable<void> terminate_all(Self self, std::shared_ptr<Terminator> work,
                                                    Behalf behalf, bool has_place, Terminated told);
  static boost::asio::awaitable<void> terminate_on(Self self, std::shared_ptr<Terminator> work,
                                                   Behalf behalf);
  static boost::asio::awaitable<void> run_batch(Self self, RunBatch run, std::uint64_t generation);
  static boost::asio::awaitable<void> open_door(Self self, std::uint64_t turn);
  static boost::asio::awaitable<void> learn_greeting(Self self, std::function<bool()> wanted);
  static boost::asio::awaitable<void> close_door_again(Self self, std::uint64_t turn);
  // Puts the link right where somebody took it away; true if it stands now.
  bool mend_door();
  [[nodiscard]] bool door_is_open() const;  // whether it is meant to be
  void door_failed(const std::string& message);
  static boost::asio::awaitable<void> wait_for(Self self, Timer timer, Milliseconds delay,
                                               std::uint64_t turn);

  boost::asio::any_io_executor executor_;
  ActorSettings settings_;
  Layout layout_;
  process::Follower& follower_;
  Recorder& recorder_;
  process::Proc proc_;
  Machine machine_;
  control::Channel channel_;
  std::shared_ptr<Entrance> door_;
  std::shared_ptr<const PipePlace> place_;  // of the daemon's directory
  bool visible_said_ = false;
  std::minstd_rand random_;
  std::function<void()> changed_;

  std::deque<Entry> inbox_;
  bool busy_ = false;
  bool closed_ = false;
  std::set<Watched> watched_;
  std::map<pid_t, std::uint64_t> servers_;  // children of our daemons, by what they were then
  std::uint64_t door_turn_ = 0;             // counts changes of mind about the door
  bool door_trouble_ = false;               // was said and is not over
  bool door_stands_ = false;                // open, by our hand
  std::uint64_t generation_ = 0;            // of the daemon: answers for an earlier one are dropped
  std::shared_ptr<process::Child> daemon_;
  std::optional<ControlProcess> control_;
  std::optional<process::Follower::Id> log_;
  std::string log_name_;
  // Behind the last line that was dealt with: recorded with every event, so that a new supervisor
  // does not read lines again that came before it.
  std::optional<ReadPosition> read_to_;
  control::FaultLists fault_lists_;
  bool reading_on_ = false;  // what was written while no supervisor read
  bool log_lost_ = false;
  TerminationPlaces terminations_;
  std::uint64_t fault_turn_ = 0;  // counts times that a fault's clients were to be ended
  std::array<std::unique_ptr<boost::asio::steady_timer>, k_timers> timers_;
  std::array<std::uint64_t, k_timers> turns_{};
  SystemTime state_since_{};
  State shown_state_ = State::stopped;
  std::chrono::steady_clock::time_point flood_window_{};
  std::size_t flood_lines_ = 0;
  std::chrono::steady_clock::time_point flood_said_{};
};

}  // namespace mps::instance
