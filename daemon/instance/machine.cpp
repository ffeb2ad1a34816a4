// The life of the control daemon: start, end, the rungs of ending it, verbs.
#include "instance/machine.h"

#include <algorithm>
#include <csignal>

#include "base/text.h"

namespace mps::instance {

namespace {
constexpr Milliseconds k_first_configure{15};  // the log mostly says "listening" sooner
constexpr Milliseconds k_short_life{1000};
constexpr unsigned k_unlisted_deadlines = 3;  // of a start, without a list of clients
constexpr unsigned k_quit_seconds = 2;  // what running clients get once their end was asked for
}  // namespace

std::vector<Action> Machine::on(const Input& input, TimePoint now) {
  actions_.clear();
  now_ = now;
  line_at_.reset();
  std::visit([this](const auto& happened) { handle(happened); }, input);
  return std::move(actions_);
}

void Machine::restore_client(Client client) {
  client.adopted = true;
  clients_[client.pid] = std::move(client);
}

void Machine::restore_start_failure(std::string cause) {
  server_ = Server{0, std::nullopt, ServerStatus::start_failed, std::move(cause), 1};
}

void Machine::restore_fault(pid_t server) {
  server_ = Server{server, std::nullopt, ServerStatus::fault, "", 0};
}

void Machine::enter(State state) {
  state_ = state;
}

void Machine::emit(std::string kind, std::string message,
                   std::vector<std::pair<std::string, std::string>> data) {
  act(Emit{std::move(kind), std::move(message), std::move(data), line_at_});
}

// ---- starting ----

void Machine::handle(const StartWanted&) {
  begun_ = true;
  if (state_ == State::stopped) start();
}

void Machine::start() {
  if (daemon_ != 0) return;  // one that could not be ended: never a second beside it
  if (device_out_) return not_started();
  enter(State::starting);
  ending_ = Ending::none;
  next_start_.reset();
  start_trouble_.clear();
  lock_trouble_.clear();
  act(CancelTimer{Timer::backoff_over});
  act(SpawnDaemon{});
}

// Its end is told of as any other: somebody may have run on it.
void Machine::handle(const DaemonGone& gone) {
  const bool told_to_quit = end_asked_ && end_asked_->quit;
  const auto pid = std::to_string(gone.pid);
  std::vector<std::pair<std::string, std::string>> data{{"expected", "false"},
                                                        {"asked", told_to_quit ? "true" : "false"}};
  if (gone.pid != 0) data.insert(data.begin(), {"pid", pid});
  emit("control_exited",
       "the control daemon" + (gone.pid != 0 ? ", pid " + pid + "," : std::string()) +
           " ended while no supervisor ran",
       std::move(data));
  end_asked_.reset();
}

void Machine::handle(const DaemonFound& found) {
  const bool stopped_meanwhile = std::exchange(begun_, true) && state_ == State::stopped;
  enter(State::starting);
  daemon_ = found.pid;
  clients_known_ = false;
  adopted_ = true;
  was_ready_ = true;  // its clients rely on it: it is not a start that can fail
  // What the log told of a server that still lives is better than a list of processes.
  const bool told = server_ && std::find(found.servers.begin(), found.servers.end(),
                                         server_->pid) != found.servers.end();
  if (!told && !found.servers.empty()) {
    server_ = Server{found.servers.front(), std::nullopt, ServerStatus::active, "", 0};
    act(WatchServer{found.servers.front()});
  } else if (!told && server_ && server_->status != ServerStatus::start_failed) {
    server_.reset();
  } else if (told) {
    act(WatchServer{server_->pid});
  }
  emit("control_adopted",
       "took over the control daemon of an earlier supervisor, pid " + std::to_string(daemon_),
       {{"pid", std::to_string(daemon_)}});
  if (found.only_drain) {
    limits_given_ = false;
    return begin_drain();
  }
  if (device_out_) return stop_for_device();
  if (stopped_meanwhile) return end_daemon(Ending::stop, true);
  act(SetTimer{Timer::start_deadline, settings_.start_deadline});
  configure();
}

void Machine::handle(const DaemonSpawned& spawned) {
  daemon_ = spawned.pid;
  adopted_ = false;
  was_ready_ = false;
  clients_known_ = true;  // it has none yet
  configure_delay_ = k_first_configure;
  act(SetTimer{Timer::start_deadline, settings_.start_deadline});
  act(SetTimer{Timer::configure_again, configure_delay_});
  emit("control_started", "started the control daemon, pid " + std::to_string(daemon_),
       {{"pid", std::to_string(daemon_)}});
  if (state_ == State::stopped) end_daemon(Ending::stop, true);  // meanwhile
}

void Machine::handle(const DaemonNotSpawned& failure) {
  start_failed(failure.why);
}

void Machine::start_failed(const std::string& why) {
  last_error_ = why;
  if (device_out_) return not_started();
  const auto delay = budget_.failed(now_);
  if (!delay) {
    enter(State::failed);
    act(CloseDoor{});
    emit("failed", "gave up after " + std::to_string(settings_.backoff.budget_failures) +
                       " failed starts within " + format_duration(settings_.backoff.budget_within) +
                       "; the last: " + why + "; `mps-ctl restart " + id_ + "` tries again");
    return;
  }
  enter(State::backoff);
  next_start_ = now_ + *delay;
  act(SetTimer{Timer::backoff_over, *delay});
  emit("start_failed", why + "; next start in " + format_duration(*delay));
}

// ---- the daemon's end ----

void Machine::handle(const DaemonEnded& ended) {
  const auto ending = std::exchange(ending_, Ending::none);
  const auto state = state_;
  const bool counted = was_ready_ && ending != Ending::stop && state != State::draining;
  if (counted) ++restarts_;
  const bool told_to_quit =
      end_asked_ && end_asked_->quit && now_ - end_asked_->at <= k_asked_just_now;
  emit("control_exited", "the control daemon, pid " + std::to_string(daemon_) + ", " + ended.how,
       {{"pid", std::to_string(daemon_)},
        {"expected", ending == Ending::none ? "false" : "true"},
        {"asked", told_to_quit ? "true" : "false"}});
  act(CloseDoor{});
  const std::string how = "the control daemon " + ended.how;
  const bool was_ready = was_ready_;
  // Asked for: its clients were to be ended, and a server that the daemon could not take along is.
  // One that had not ended from `shutdown_server -f` before that is not asked again.
  const bool end_it = ending == Ending::stop || ending == Ending::restart;
  release_server(end_it, fault_rung_ == FaultRung::shutdown ? SIGKILL : SIGTERM);
  daemon_is_down();
  if (ending == Ending::stop || state == State::draining || state == State::stopped) {
    enter(State::stopped);
    emit("stopped", device_out_ ? "stopped: " + *device_out_ : "stopped");
  } else if (ending == Ending::restart) {
    start();
  } else if (ending == Ending::failed_start) {
    start_failed(start_trouble_);
  } else if (state == State::failed && device_out_) {
    not_started();
  } else if (state == State::failed) {
    return;  // it did not die from SIGKILL then, and has now; an operator decides
  } else if (!was_ready || now_ - ready_at_ < k_short_life) {
    start_failed(lock_trouble_.empty() || was_ready ? how : lock_trouble_ + "; " + how);
  } else {
    last_error_ = how;
    start();
  }
}

void Machine::daemon_is_down() {
  for (const auto timer : {Timer::configure_again, Timer::start_deadline, Timer::next_probe,
                           Timer::accept_stuck, Timer::stop_rung, Timer::fault_rung}) {
    act(CancelTimer{timer});
  }
  daemon_ = 0;
  adopted_ = false;
  was_ready_ = false;
  batch_running_ = false;
  limits_confirmed_ = false;
  limits_changed_ = false;
  server_missed_limits_ = false;
  refused_delay_ = Milliseconds{0};
  failures_ = 0;
  unlisted_deadlines_ = 0;
  wedge_reported_ = false;
  probe_soon_ = false;
  accept_waits_ = false;
  accept_timer_ = false;
  fault_rung_ = FaultRung::none;
  fault_waits_ = false;
  end_asked_.reset();
  other_uid_waits_ = false;
  looks_left_ = 0;
  channel_ = {};
}

// The server outlives a control daemon that was killed. While somebody may be on it, it is left
// alone (its clients still work); idle, it would only hold memory and, in exclusive compute mode,
// keep the next server out.
void Machine::release_server(bool end_it, int by) {
  if (!server_ || server_->status == ServerStatus::start_failed) return;
  const auto pid = std::exchange(server_->pid, 0);
  const bool gone = server_->status == ServerStatus::exited;
  server_.reset();
  if (pid == 0 || gone) return;
  if (end_it || (clients_known_ && clients_.empty())) {
    act(SignalServer{pid, end_it ? by : SIGTERM});
    return;
  }
  auto& its_clients = orphans_[pid];
  for (const auto& [client, known] : clients_) its_clients.insert(client);
  emit("server_orphaned",
       "server " + std::to_string(pid) +
           " lives on without its control daemon; its clients are left alone, and it is ended "
           "when they have gone",
       {{"pid", std::to_string(pid)}});
}

// ---- ending it ourselves ----

void Machine::end_daemon(Ending why, bool politely) {
  if (device_out_) why = Ending::stop;
  ending_ = why;
  if (why == Ending::restart) enter(State::recovering);
  if (why == Ending::stop) enter(State::draining);
  for (const auto timer : {Timer::configure_again, Timer::start_deadline, Timer::next_probe}) {
    act(CancelTimer{timer});
  }
  act(CloseDoor{});
  rung_ = politely ? 0 : 1;
  next_rung();
}

void Machine::next_rung() {
  switch (rung_++) {
    case 0:
      act(RunBatch{
          RunBatch::Purpose::quit,
          {control::quit(may_have_clients() ? std::optional(k_quit_seconds) : std::nullopt)},
          settings_.quit_deadline});
      act(SetTimer{Timer::stop_rung, settings_.quit_deadline + settings_.probe_timeout});
      return;
    case 1:
      act(SignalDaemon{SIGTERM});
      act(SignalDaemon{SIGCONT});  // a stopped process takes SIGTERM only once it goes on
      act(SetTimer{Timer::stop_rung, settings_.terminate_deadline});
      return;
    case 2:
      act(SignalDaemon{SIGKILL});
      act(SetTimer{Timer::stop_rung, settings_.kill_deadline});
      return;
    default:
      last_error_ = "the control daemon, pid " + std::to_string(daemon_) +
                    ", does not end, not even from SIGKILL: it hangs in the kernel; see "
                    "`dmesg` for the driver's messages, the node may need a reboot";
      enter(State::failed);
      emit("failed", last_error_);
  }
}

// What the front-end says of a quit is not needed: the daemon's end is. It may be on its way.
void Machine::handle(const QuitDone&) {
  if (daemon_ != 0 && rung_ == 1) act(SetTimer{Timer::stop_rung, Milliseconds{500}});
}

void Machine::handle(const TimerDue& due) {
  switch (due.timer) {
    case Timer::configure_again:
      if (state_ == State::starting && daemon_ != 0) configure();
      return;
    case Timer::start_deadline:
      if (state_ != State::starting || daemon_ == 0) return;
      if (is_spared()) {
        // Not the daemon's fault, or somebody relies on it: keep trying, the channel says why.
        act(SetTimer{Timer::start_deadline, settings_.start_deadline});
        if (in_fault()) begin_fault_recovery();
        return;
      }
      if (start_trouble_.empty()) start_trouble_ = "the control daemon does not answer";
      start_trouble_ =
          "not ready within " + format_duration(settings_.start_deadline) + ": " + start_trouble_;
      end_daemon(Ending::failed_start, false);
      return;
    case Timer::next_probe:
      if (serving() && ending_ == Ending::none) run_probe();
      return;
    case Timer::accept_stuck:
      accept_timer_ = false;
      if (accept_waits_ && serving() && ending_ == Ending::none) run_probe();
      return;
    case Timer::backoff_over:
      if (state_ == State::backoff) start();
      return;
    case Timer::stop_rung:
      if (daemon_ != 0 && ending_ != Ending::none) next_rung();
      return;
    case Timer::fault_rung:
      return fault_rung_due();
  }
}

// Of a daemon that was taken over the journal and its log know the clients; MPS's own list is
// better, but one that never comes spares nobody.
bool Machine::is_spared() {
  const bool is_held = channel_.state == ChannelState::busy ||
                       (channel_.state == ChannelState::blocked && channel_.holder != daemon_);
  if (clients_running() || is_held) return true;
  return may_have_clients() && ++unlisted_deadlines_ < k_unlisted_deadlines;
}

// ---- verbs ----

std::optional<VerbRefused> Machine::refuses(const Input& verb) const {
  if (device_out_) return refuses_for_device(verb);
  if (std::holds_alternative<UndrainWanted>(verb) && ending_ == Ending::stop) {
    return VerbRefused{id_ + " is ending its control daemon; undrain it when it is stopped"};
  }
  if (std::holds_alternative<UndrainWanted>(verb) && state_ != State::draining &&
      state_ != State::stopped) {
    return VerbRefused{id_ + " is not drained: it is " + to_string(state_)};
  }
  const auto* restart = std::get_if<RestartWanted>(&verb);
  if (restart == nullptr) return std::nullopt;
  if (state_ == State::draining) return VerbRefused{id_ + " is draining; undrain it first"};
  if (ending_ != Ending::none) return VerbRefused{id_ + " is being restarted already"};
  if (restart->force || !may_have_clients()) return std::nullopt;
  if (!clients_running()) {
    return VerbRefused{"the clients of " + id_ +
                       " are not known yet and might be ended; try again, or use --force"};
  }
  return VerbRefused{std::to_string(running_clients()) + " clients run on " + id_ +
                     " and would be ended; drain it first, or use --force"};
}

// Newcomers are refused, and MPS is asked once more before its daemon is ended.
void Machine::begin_drain() {
  enter(State::draining);
  act(CancelTimer{Timer::start_deadline});
  act(CancelTimer{Timer::configure_again});
  act(CloseDoor{});
  emit("draining",
       "no newcomers; " + std::to_string(running_clients()) + " running clients may finish");
  clients_known_ = false;
  probe_in(Milliseconds{0});
  if (in_fault()) begin_fault_recovery();  // where it was taken over: nothing else would end them
}

void Machine::handle(const DrainWanted&) {
  resumes_ = false;
  switch (state_) {
    case State::ready:
    case State::faulted:
      begin_drain();
      return;
    case State::starting:
      // Taken over, or undrained a moment ago: it may have clients.
      if (daemon_ != 0 && was_ready_ && ending_ == Ending::none) {
        begin_drain();
        return;
      }
      [[fallthrough]];
    case State::recovering:
    case State::failed:
      if (daemon_ != 0) {
        end_daemon(Ending::stop, true);
        return;
      }
      [[fallthrough]];
    case State::backoff:
      act(CancelTimer{Timer::backoff_over});
      next_start_.reset();
      enter(State::stopped);
      emit("stopped", "stopped");
      return;
    case State::draining:
    case State::stopped:
      return;
  }
}

void Machine::handle(const UndrainWanted&) {
  if (state_ == State::stopped) {
    start();
  } else if (state_ == State::draining && ending_ == Ending::none) {
    serve_again();
  }
}

// It was drained while its limits changed, or was found left over, with limits of its own time.
void Machine::serve_once_configured() {
  enter(State::starting);
  act(CancelTimer{Timer::next_probe});
  act(SetTimer{Timer::start_deadline, settings_.start_deadline});
  emit("undrained", "newcomers are let in again once its limits are set");
  configure();
}

void Machine::handle(const RestartWanted&) {
  budget_.reset();
  device_out_.reset();  // that it is to be used nevertheless is what the force is for
  resumes_ = false;
  if (daemon_ == 0) {
    if (state_ != State::starting) start();
    return;
  }
  emit("restarting", "restart asked for");
  if (ending_ != Ending::stop) return end_daemon(Ending::restart, true);
  ending_ = Ending::restart;  // it is being ended already, for its device
  enter(State::recovering);
}

void Machine::handle(const ShutdownWanted&) {
  resumes_ = false;
  act(CancelTimer{Timer::backoff_over});
  if (daemon_ == 0) {
    enter(State::stopped);
    return;
  }
  end_daemon(Ending::stop, true);
}

// The one place that knows what the limits are meant to be: set now if there is somebody to set
// them, else with the next start. A batch that is under way asks for the old ones: its end sets the
// new ones.
void Machine::handle(const LimitsWanted& wanted) {
  if (std::exchange(limits_given_, true) && settings_.limits == wanted.limits) return;
  settings_.limits = wanted.limits;
  limits_confirmed_ = false;
  limits_changed_ = serving();
  if (serving() && ending_ == Ending::none) configure();
}

void Machine::handle(const NewcomerLimitsWanted& wanted) {
  const auto before = wanted_limits();
  newcomer_limits_ = wanted.limits;
  if (wanted_limits() == before) return;
  limits_confirmed_ = false;
  if (limits_given_ && serving() && ending_ == Ending::none) configure();
}

Limits Machine::wanted_limits() const {
  auto limits = settings_.limits;
  if (!newcomer_limits_) return limits;
  limits.active_thread_percentage = newcomer_limits_->active_thread_percentage;
  limits.pinned_memory_mebibytes = newcomer_limits_->pinned_memory_mebibytes;
  return limits;
}

std::optional<Limits> Machine::limits_in_force() const {
  const bool being_set = batch_running_ && plan_.sets;
  // A server that starts may have taken the defaults of before.
  if (!serving() || !limits_confirmed_ || being_set || server_missed_limits_) return std::nullopt;
  return wanted_limits();
}

void Machine::stop_if_drained() {
  if (state_ != State::draining || ending_ != Ending::none) return;
  if (clients_running() || !clients_known_) return;
  end_daemon(Ending::stop, true);
}

}  // namespace mps::instance
