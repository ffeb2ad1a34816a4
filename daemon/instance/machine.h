// One instance's decisions: what happened goes in, what to do comes out. Pure: no clock (the time
// is part of what happened), no processes, no I/O, so that every decision is tested as a table.
//
// The states and what leaves them are those of docs/architecture.md ("One instance"). Rules that
// everything here serves:
//  * a daemon that has clients is not restarted for not answering: that would end their jobs;
//  * the process is the first signal (its end is seen through a pidfd), commands are the last;
//  * an end after having been ready is followed by a start at once; backoff and budget count only
//    starts that never became ready, and lives of under a second;
//  * what was set is believed when it was read back;
//  * nothing is started on a device that is out of service.
//
// One line of the daemon's log makes at most one Emit (the journal records where it was read up to
// in the same write as the event; see api/event_log.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "control/commands.h"
#include "control/log_event.h"
#include "control/outcome.h"
#include "instance/snapshot.h"
#include "instance/start_budget.h"

namespace mps::instance {

using Milliseconds = std::chrono::milliseconds;

// ---- what happened ----

struct StartWanted {};
// An earlier supervisor left a control daemon (pid 0: not known which), and it runs no more.
struct DaemonGone {
  pid_t pid = 0;
};
// A control daemon of an earlier supervisor runs; `servers` are its children. Where nothing wants
// it any more it is only drained: what it grants stays as it is.
struct DaemonFound {
  pid_t pid = 0;
  std::vector<pid_t> servers;
  bool only_drain = false;
};
struct DaemonSpawned {
  pid_t pid = 0;
};
struct DaemonNotSpawned {
  std::string why;
};
struct DaemonEnded {
  std::string how;
};  // "was killed by signal 9 (SIGKILL)"
struct ServerEnded {
  pid_t pid = 0;
};  // its process is gone
struct ClientEnded {
  pid_t pid = 0;
};  // likewise
// `command` and `start_ticks` are those of the process a ClientAsked or ClientConnected names, as
// /proc has them now; empty and 0 when it is gone already.
struct LogLine {
  control::LogEvent event;
  std::string command{};
  std::uint64_t start_ticks = 0;
  SystemTime at{};
};
struct ConfigureDone {
  control::Outcome outcome;
};
struct ProbeDone {
  control::Outcome outcome;
};
struct QuitDone {
  control::Outcome outcome;
};
// Something that may be a client's fault, of which the log has said nothing: an Xid. Where MPS can
// be asked (550) it is, at once and twice more soon, since it may be a moment behind the driver; at
// most so often (k_suspicions in machine_signs.cpp), since a program can bring it about at will.
struct FaultSuspected {};
struct ServerShutDown {};  // a shutdown_server was answered, or not: its end is what counts
// What became of the clients that EndFaultedClients named: ended through MPS and asked to go, or
// left to go by themselves, as their policies say.
struct FaultedClientsEnded {
  unsigned ended = 0;
  unsigned waited_for = 0;
  std::string trouble{};  // why some of them may be as they were; empty: all is as was meant
};
enum class Timer {
  configure_again,  // starting: no answer yet, or the socket was not there yet
  start_deadline,   // starting for too long
  next_probe,       // ready: look again
  accept_stuck,     // the daemon waits for a peer that says nothing
  backoff_over,
  stop_rung,   // ending the daemon: the next rung is due
  fault_rung,  // recovering from a client's fault: likewise
};
struct TimerDue {
  Timer timer;
};
struct DrainWanted {};
struct UndrainWanted {};
struct RestartWanted {
  bool force = false;
};
struct ShutdownWanted {};  // end the daemon and stay down
// The device must not be used before it was reset, or the node rebooted: nobody new, who is there
// may finish, and nothing is started on it. `why`: a sentence. Also before the first input.
struct DeviceOut {
  std::string why;
};
struct DeviceBack {};  // it is in service again: what was meant to serve does
// From here on these are the limits; clients that run keep what they have.
struct LimitsWanted {
  Limits limits;
};
// Who comes in now gets these instead (`hardLimits`); none: those that are wanted else, again. The
// one place that knows what the limits are meant to be still is here, so that the drift check does
// not take them for somebody else's doing.
struct NewcomerLimitsWanted {
  struct Own {
    double active_thread_percentage = 100.0;
    std::optional<std::uint64_t> pinned_memory_mebibytes{};
    bool operator==(const Own&) const = default;
  };
  std::optional<Own> limits{};
};

using Input = std::variant<StartWanted, DaemonGone, DaemonFound, DaemonSpawned, DaemonNotSpawned,
                           DaemonEnded, ServerEnded, ClientEnded, LogLine, ConfigureDone, ProbeDone,
                           QuitDone, ServerShutDown, FaultSuspected, FaultedClientsEnded, TimerDue,
                           DrainWanted, UndrainWanted, RestartWanted, ShutdownWanted, DeviceOut,
                           DeviceBack, LimitsWanted, NewcomerLimitsWanted>;

// ---- what to do ----

struct SpawnDaemon {};
// Run this batch; its outcome comes back as ConfigureDone, ProbeDone or QuitDone.
struct RunBatch {
  enum class Purpose { configure, probe, quit, shutdown_server } purpose = Purpose::probe;
  std::vector<control::Command> commands;
  std::optional<Milliseconds> timeout;
};
// The server takes newcomers only when all of these have gone. What becomes of each is its policy's
// to say; FaultedClientsEnded comes back.
struct EndFaultedClients {
  std::vector<Client> clients;
};
struct SetTimer {
  Timer timer;
  Milliseconds delay{0};
};
struct CancelTimer {
  Timer timer;
};
struct OpenDoor {};   // newcomers reach the daemon
struct CloseDoor {};  // newcomers are refused
struct SignalDaemon {
  int number = 0;
};
struct SignalServer {
  pid_t pid = 0;
  int number = 0;
};  // one that outlived its daemon
struct SignalHolder {
  pid_t pid = 0;
  int number = 0;
};  // who holds or blocks the channel
struct WatchServer {
  pid_t pid = 0;
};
struct WatchClient {
  pid_t pid = 0;
};
struct Emit {
  std::string kind;
  std::string message;
  std::vector<std::pair<std::string, std::string>> data;
  std::optional<SystemTime> at{};  // of one that a line of the log tells of: when that was
};

using Action = std::variant<SpawnDaemon, RunBatch, EndFaultedClients, SetTimer, CancelTimer,
                            OpenDoor, CloseDoor, SignalDaemon, SignalServer, SignalHolder,
                            WatchServer, WatchClient, Emit>;

// One line for a log or a test: "spawn-daemon", "set-timer start_deadline 5s", "emit ready: …".
std::string describe(const Action& action);

struct MachineSettings {
  Limits limits;
  Milliseconds probe_interval{30000};
  Milliseconds probe_timeout{3000};
  unsigned probe_failures = 3;
  Milliseconds start_deadline{10000};
  BackoffSettings backoff;
  bool end_channel_holder = false;
  Milliseconds quit_deadline{5000};  // rungs of ending a daemon: quit, SIGTERM, SIGKILL
  Milliseconds terminate_deadline{2000};
  Milliseconds kill_deadline{5000};
  // A client's fault, rung by rung: ending its clients; then the server's own recovery (the
  // documented sample took 1.15 s after the last client); clients that their policy lets take their
  // time; `shutdown_server -f`.
  Milliseconds fault_clients_deadline{30000};
  Milliseconds fault_server_deadline{5000};
  Milliseconds fault_wait{600000};
  Milliseconds fault_shutdown_deadline{5000};
};

// "50 % of the SMs, 10Gi"
std::string describe_limits(const Limits& limits);

// A refusal of a verb, for the one who asked.
struct VerbRefused {
  std::string message;
};

class Machine {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit Machine(std::string id, MachineSettings settings)
      : id_(std::move(id)), settings_(settings), budget_(settings_.backoff) {}

  std::vector<Action> on(const Input& input, TimePoint now);

  // What the journal remembers from before this supervisor: clients that had not gone, whether the
  // server's start was failing (so that one incident stays one), and whether a server was in a
  // fault. Before the first input; the caller watches the clients.
  void restore_client(Client client);
  void restore_start_failure(std::string cause);
  void restore_fault(pid_t server);

  // Whether a verb would be refused now, and why; asked before the input is given.
  [[nodiscard]] std::optional<VerbRefused> refuses(const Input& verb) const;

  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] const std::optional<Server>& server() const { return server_; }
  // False: a word about a fault by a server that is not ours any more (one that its successor has
  // replaced, one whose daemon is gone and that writes into the same log).
  [[nodiscard]] bool concerns(const control::LogEvent& line) const;
  [[nodiscard]] bool in_fault() const { return server_ && server_->status == ServerStatus::fault; }
  [[nodiscard]] const ChannelView& channel() const { return channel_; }
  [[nodiscard]] const std::map<pid_t, Client>& clients() const { return clients_; }
  [[nodiscard]] pid_t daemon() const { return daemon_; }
  [[nodiscard]] bool adopted() const { return adopted_; }
  [[nodiscard]] bool limits_confirmed() const { return limits_confirmed_; }
  [[nodiscard]] const Limits& limits() const { return settings_.limits; }
  // What a client gets that connects now; none: not known for sure.
  [[nodiscard]] std::optional<Limits> limits_in_force() const;
  // Of a device that is out of service: that.
  [[nodiscard]] const std::string& last_error() const {
    return device_out_ ? *device_out_ : last_error_;
  }
  // Why its device is out of service; none: it is not.
  [[nodiscard]] const std::optional<std::string>& device_out() const { return device_out_; }
  [[nodiscard]] std::uint64_t restarts() const { return restarts_; }
  [[nodiscard]] std::uint64_t drifted() const { return drifted_; }
  [[nodiscard]] std::uint64_t unknown_lines() const { return unknown_lines_; }
  [[nodiscard]] std::optional<TimePoint> next_start() const { return next_start_; }
  [[nodiscard]] const std::optional<control::Capabilities>& capabilities() const {
    return capabilities_;
  }
  // A living server with somebody on it: the reason for leaving a daemon alone.
  [[nodiscard]] bool clients_running() const;
  [[nodiscard]] unsigned running_clients() const;
  // The same, and also true while nobody can say: the server of a daemon that was taken over,
  // before its clients were listed.
  [[nodiscard]] bool may_have_clients() const;
  void seed(std::uint32_t value) { budget_.seed(value); }

 private:
  enum class Ending { none, restart, stop, failed_start };  // why the daemon is being ended
  // Recovering from a fault: its clients are being ended; the server makes its contexts again, when
  // they have gone; it is being ended itself; it serves again, and its limits are being read back.
  enum class FaultRung { none, clients, server, shutdown, passed };

  // inputs
  void handle(const StartWanted&);
  void handle(const DaemonGone& gone);
  void handle(const DaemonFound& found);
  void handle(const DaemonSpawned& spawned);
  void handle(const DaemonNotSpawned& failure);
  void handle(const DaemonEnded& ended);
  void handle(const ServerEnded& ended);
  void handle(const ClientEnded& ended);
  void handle(const LogLine& line);
  void handle(const ConfigureDone& done);
  void handle(const ProbeDone& done);
  void handle(const QuitDone& done);
  void handle(const ServerShutDown&);
  void handle(const FaultSuspected&);
  void handle(const FaultedClientsEnded& done);
  void handle(const TimerDue& due);
  void handle(const DrainWanted&);
  void handle(const UndrainWanted&);
  void handle(const RestartWanted& wanted);
  void handle(const ShutdownWanted&);
  void handle(const DeviceOut& out);
  void handle(const DeviceBack&);
  void handle(const LimitsWanted& wanted);
  void handle(const NewcomerLimitsWanted& wanted);

  // log lines
  void on_log(const control::DaemonListening&);
  void on_log(const control::ConnectionAwaited&);
  void on_client(const LogLine& line, pid_t pid, uid_t uid, bool connected);
  void on_log(const control::ClientAsked&) {}      // on_client()
  void on_log(const control::ClientConnected&) {}  // likewise
  void on_log(const control::ClientGone& gone);
  void on_log(const control::ServerStarting& starting);
  void on_log(const control::ServerReady& ready);
  void on_log(const control::ServerStartFailed& failed);
  void on_log(const control::ServerExited& exited);
  void on_log(const control::CommandLogged& command);
  void on_log(const control::CommandRefused&);
  void on_log(const control::ServerToEnd& ending);
  void on_log(const control::ServerStays& staying);
  void on_log(const control::FatalFault& fault);
  void on_log(const control::ContextCreated&) {}  // on_context()
  void on_context(pid_t server);
  void on_log(const control::FaultCulprit&);
  void on_log(const control::StickyListBegins& list);
  void on_log(const control::StickyClient&);
  void fault_noticed(pid_t server, const char* sign);
  void look_for_fault();
  [[nodiscard]] std::string why_it_ends(pid_t server) const;
  void on_log(const control::AlreadyRunning&);
  [[nodiscard]] bool is_spared();  // asked once for each start_deadline that has passed
  // Whether that is another server than the one we have now.
  [[nodiscard]] bool is_others(pid_t server) const;
  [[nodiscard]] bool anybody_connected() const;
  void begin_fault_recovery();
  void server_recovered();
  void fault_passed();
  void finish_fault();
  void fault_rung_due();
  void end_faulted_server();
  void on_log(const control::Unknown&) { ++unknown_lines_; }
  template <typename Other>
  void on_log(const Other&) {}

  // steps shared by several inputs
  void start();
  void start_failed(const std::string& why);
  void daemon_ended_unasked(const std::string& how);
  void begin_ready(const control::Answered& answered);
  void configure();
  void configure_later(std::string trouble);
  void limits_refused(std::string wrong);
  void probe_in(Milliseconds delay);
  void probe_soon();  // somebody came: whether MPS serves it is asked once, not for each
  void run_probe();
  void read_state(const control::Answered& answered);
  void see_servers(const control::Answer& answer);
  void see_server_status(const control::Answer& answer);
  void channel_is(ChannelState state, std::optional<pid_t> holder, const std::string& holder_name,
                  std::string detail);
  void channel_ok();
  void not_answered(const control::Outcome& outcome);
  void unanswered(const std::string& detail);
  void end_daemon(Ending why, bool politely);
  void next_rung();
  void daemon_is_down();
  void release_server(bool end_it, int by);
  void end_idle_orphans();
  void see_clients(const control::Answer& answer);
  void drop_client(pid_t pid);
  void begin_drain();
  void serve_again();
  void serve_once_configured();
  void stop_for_device();
  void not_started();
  [[nodiscard]] std::optional<VerbRefused> refuses_for_device(const Input& verb) const;
  void stop_if_drained();
  void enter(State state);
  void emit(std::string kind, std::string message,
            std::vector<std::pair<std::string, std::string>> data = {});
  void act(Action action) { actions_.push_back(std::move(action)); }
  [[nodiscard]] std::vector<control::Command> compose(bool with_sets);
  [[nodiscard]] std::string mismatch(const control::Answered& answered) const;
  [[nodiscard]] std::string server_mismatch(const control::Answered& answered) const;
  [[nodiscard]] std::string wrong_percentage(const control::Answer& answer) const;
  [[nodiscard]] std::string wrong_memory(const control::Answer& answer) const;
  [[nodiscard]] Limits wanted_limits() const;
  [[nodiscard]] bool serving() const {
    return state_ == State::ready || state_ == State::faulted || state_ == State::draining;
  }

  std::string id_;
  MachineSettings settings_;
  StartBudget budget_;
  TimePoint now_{};
  std::vector<Action> actions_;

  State state_ = State::stopped;
  Ending ending_ = Ending::none;
  int rung_ = 0;
  pid_t daemon_ = 0;
  bool adopted_ = false;
  bool was_ready_ = false;      // this daemon has been
  bool batch_running_ = false;  // a configure or probe batch of this daemon
  // Where the answers of that batch stand; 0: not asked for.
  struct Plan {
    bool sets = false;
    Limits wanted;     // what its answers are compared with
    pid_t server = 0;  // whose clients and limits it asks for
    std::size_t limits = 0;
    std::size_t servers = 0;
    std::size_t clients = 0;
    std::size_t server_limits = 0;
    std::size_t server_status = 0;
    std::size_t capabilities = 0;
    std::size_t size = 0;
  } plan_;
  bool clients_known_ = false;  // MPS's own list was seen since the daemon was taken up
  std::set<pid_t> gone_;        // since that list was last seen: the next one may still have them
  bool probe_soon_ = false;     // is set already
  bool accept_waits_ = false;   // its last line is "Accepting connection..."
  bool accept_timer_ = false;
  bool limits_given_ = true;  // false: of what is only to be drained nobody knows what it may have
  std::optional<NewcomerLimitsWanted::Own> newcomer_limits_;
  bool limits_confirmed_ = false;
  bool limits_changed_ = false;        // and not confirmed since, while serving
  bool server_missed_limits_ = false;  // the next one may have started before they were set
  Milliseconds refused_delay_{0};      // the daemon did not take them; 0: it did
  TimePoint ready_at_{};
  Milliseconds configure_delay_{0};
  unsigned failures_ = 0;            // probes in a row that nothing explains
  unsigned unlisted_deadlines_ = 0;  // of one taken over, whose clients only the journal knows
  FaultRung fault_rung_ = FaultRung::none;
  unsigned looks_left_ = 0;  // at whether there is a fault that the log does not tell of
  pid_t line_writer_ = 0;    // of the line that is dealt with
  bool wedge_reported_ = false;
  bool begun_ = false;            // it was told to start, or has found a daemon
  bool resumes_ = false;          // when its device is back
  bool fault_waits_ = false;      // for clients that may take their time
  bool answers_are_old_ = false;  // the batch under way may have asked before a fault, or its end
  bool other_uid_waits_ = false;  // for a server of its own
  std::optional<SystemTime> line_at_;
  std::optional<TimePoint> suspected_at_;
  // Somebody else has the server end, or the daemon.
  struct EndAsked {
    std::string how{};  // "as the command quit asked"
    TimePoint at{};
    pid_t server = 0;   // 0: whichever there is
    bool quit = false;  // that command: the daemon ends too
  };
  static constexpr std::chrono::seconds k_asked_just_now{10};
  std::optional<EndAsked> end_asked_;
  std::string start_trouble_;  // why the limits could not be set yet
  std::string lock_trouble_;   // the daemon's own reason for ending at once
  std::optional<std::string> device_out_;
  std::optional<Server> server_;
  std::string server_cause_;  // what the starting server said last
  // Servers of daemons that are gone, with the clients that still work on them.
  std::map<pid_t, std::set<pid_t>> orphans_;
  std::map<pid_t, Client> clients_;
  ChannelView channel_;
  std::optional<control::Capabilities> capabilities_;
  std::optional<TimePoint> next_start_;
  std::string last_error_;
  std::uint64_t restarts_ = 0;
  std::uint64_t drifted_ = 0;
  std::uint64_t unknown_lines_ = 0;
};

}  // namespace mps::instance
