// What the daemon's log and the processes' ends say of servers and clients. The log is the
// authority for their events while the control daemon lives (each line once, see
// api/event_log.h); a process's end changes the state at once, without waiting for its line.
#include <algorithm>
#include <csignal>

#include "base/text.h"
#include "instance/machine.h"

namespace mps::instance {

namespace {
constexpr std::size_t k_client_limit = 4096;  // 48 to 60 can be connected; the rest have asked
constexpr Milliseconds k_accept_patience{1000};
}  // namespace

void Machine::handle(const LogLine& line) {
  const auto& kind = line.event.kind;
  line_writer_ = line.event.pid;
  if (line.at != SystemTime{}) line_at_ = line.at;
  if (!std::holds_alternative<control::ConnectionAwaited>(kind)) accept_waits_ = false;
  if (const auto* asked = std::get_if<control::ClientAsked>(&kind)) {
    if (asked->queued && server_ && server_->uid && *server_->uid != asked->uid) {
      other_uid_waits_ = true;
    }
    return on_client(line, asked->pid, asked->uid, false);
  }
  if (const auto* connected = std::get_if<control::ClientConnected>(&kind)) {
    return on_client(line, connected->pid, 0, true);
  }
  // 535 and 550 say no more of a client that a server has taken than that it has a context.
  const auto* status = std::get_if<control::ClientStatus>(&kind);
  if (status != nullptr && status->active && clients_.contains(status->pid)) {
    return on_client(line, status->pid, 0, true);
  }
  if (std::holds_alternative<control::ContextCreated>(kind)) return on_context(line.event.pid);
  std::visit([this](const auto& happened) { on_log(happened); }, kind);
}

void Machine::on_log(const control::DaemonListening&) {
  if (state_ == State::starting && daemon_ != 0) configure();
}

void Machine::on_log(const control::AlreadyRunning&) {
  lock_trouble_ =
      "another control daemon, or a process that took its lock, uses the pipe directory";
}

void Machine::on_log(const control::ConnectionAwaited&) {
  accept_waits_ = true;
  if (!serving() || std::exchange(accept_timer_, true)) return;
  act(SetTimer{Timer::accept_stuck, k_accept_patience});
}

// ---- clients ----

bool Machine::clients_running() const {
  return running_clients() != 0;
}

unsigned Machine::running_clients() const {
  const bool server_lives =
      server_ && server_->pid != 0 &&
      (server_->status == ServerStatus::active || server_->status == ServerStatus::starting ||
       server_->status == ServerStatus::fault);
  return server_lives ? static_cast<unsigned>(clients_.size()) : 0;
}

bool Machine::may_have_clients() const {
  if (clients_running()) return true;
  return !clients_known_ && server_ && server_->pid != 0 && server_->status != ServerStatus::exited;
}

void Machine::on_client(const LogLine& line, pid_t pid, uid_t uid, bool connected) {
  const auto known = clients_.find(pid);
  if (known != clients_.end() && connected) {
    const bool news = !std::exchange(known->second.connected, true);
    if (news)
      emit("client_connected", "client " + std::to_string(pid) + " is served",
           {{"pid", std::to_string(pid)}});
    return;
  }
  // The same process once more: no news, however often it asks.
  if (known != clients_.end() && line.start_ticks != 0 &&
      known->second.start_ticks == line.start_ticks) {
    return;
  }
  if (known == clients_.end() && clients_.size() >= k_client_limit) return;
  Client client{.pid = pid,
                .uid = uid,
                .command = line.command,
                .start_ticks = line.start_ticks,
                .since = line.at,
                .connected = connected};
  clients_[pid] = client;
  gone_.erase(pid);
  act(WatchClient{pid});
  if (!connected && server_ && server_->status == ServerStatus::active) probe_soon();
  const auto who = std::to_string(pid) + (line.command.empty() ? "" : " (" + line.command + ")");
  emit(connected ? "client_connected" : "client_asked",
       connected ? "client " + who + " is served"
                 : "client " + who + " of uid " + std::to_string(uid) + " asks for a server",
       {{"pid", std::to_string(pid)},
        {"uid", std::to_string(uid)},
        {"command", line.command},
        {"startTicks", std::to_string(line.start_ticks)}});
}

void Machine::on_log(const control::ClientGone& gone) {
  drop_client(gone.pid);
}
void Machine::handle(const ClientEnded& ended) {
  drop_client(ended.pid);
}

void Machine::drop_client(pid_t pid) {
  if (clients_.erase(pid) == 0) return;
  if (gone_.size() < k_client_limit) gone_.insert(pid);
  emit("client_gone", "client " + std::to_string(pid) + " has gone",
       {{"pid", std::to_string(pid)}});
  for (auto& [server, its_clients] : orphans_) {
    if (its_clients.erase(pid) != 0 && its_clients.empty()) act(SignalServer{server, SIGTERM});
  }
  // Those that have only asked hold nothing.
  if (fault_rung_ == FaultRung::server && !anybody_connected() &&
      std::exchange(fault_waits_, false)) {
    act(SetTimer{Timer::fault_rung, settings_.fault_server_deadline});
  }
  stop_if_drained();
}

bool Machine::anybody_connected() const {
  return std::any_of(clients_.begin(), clients_.end(),
                     [](const auto& client) { return client.second.connected; });
}

// ---- servers ----

// An orphan whose clients were never known: by now whoever was on it would be.
void Machine::end_idle_orphans() {
  for (const auto& [server, its_clients] : orphans_) {
    if (its_clients.empty()) act(SignalServer{server, SIGTERM});
  }
}

void Machine::on_log(const control::ServerStarting& starting) {
  const bool faulted = in_fault() && is_others(starting.pid);
  const bool failing = server_ && server_->status == ServerStatus::start_failed;
  const auto failed = server_ ? server_->failed_starts : 0;
  server_ = Server{starting.pid, starting.uid, ServerStatus::starting,
                   failing ? server_->cause : std::string(), failed};
  server_cause_.clear();
  end_asked_.reset();
  other_uid_waits_ = false;
  act(WatchServer{starting.pid});
  if (faulted) fault_passed();  // there is one at a time: that one has ended, whoever says so later
}

// An old one's last words are no reason for the next one's trouble.
void Machine::on_log(const control::ServerStartFailed& failed) {
  if (!is_others(failed.pid)) server_cause_ = failed.cause;
}

void Machine::on_log(const control::ServerReady& ready) {
  const bool faulted = in_fault() && is_others(ready.pid);
  server_ = Server{ready.pid, server_ ? server_->uid : std::nullopt, ServerStatus::active, "", 0};
  act(WatchServer{ready.pid});
  emit("server_ready", "server " + std::to_string(ready.pid) + " is ready",
       {{"pid", std::to_string(ready.pid)}});
  if (faulted) fault_passed();
  // It may have registered before the defaults changed.
  if (serving() && ending_ == Ending::none && std::exchange(server_missed_limits_, false)) {
    return configure();
  }
  probe_soon();
}

void Machine::on_log(const control::ServerExited& exited) {
  const bool ours = server_ && server_->pid == exited.pid;
  const auto pid = std::to_string(exited.pid);
  if (ours && server_->status == ServerStatus::starting) {
    const auto cause = !server_cause_.empty()
                           ? server_cause_
                           : "exited with status " + std::to_string(exited.status);
    const bool first = server_->failed_starts == 0;
    server_ =
        Server{0, server_->uid, ServerStatus::start_failed, cause, server_->failed_starts + 1};
    last_error_ = "the server does not start: " + cause;
    // However often MPS tries again, that is one incident, until a server becomes ready.
    if (first) emit("server_start_failed", last_error_, {{"pid", pid}, {"cause", cause}});
  } else {
    const auto why = why_it_ends(exited.pid);
    if (ours) server_.reset();
    if (ours) end_asked_.reset();
    emit("server_exited",
         "server " + pid + " exited with status " + std::to_string(exited.status) +
             (why.empty() ? "" : ", " + why),
         {{"pid", pid}, {"status", std::to_string(exited.status)}, {"asked", why}});
    if (ours) fault_passed();
  }
  stop_if_drained();
}

void Machine::handle(const ServerEnded& ended) {
  if (orphans_.erase(ended.pid) != 0) {
    emit("orphan_gone", "server " + std::to_string(ended.pid) +
                            " of an earlier control daemon "
                            "has ended");
    return;
  }
  // Of a server that never was ready the log says why, in the next lines.
  if (!server_ || server_->pid != ended.pid || server_->status == ServerStatus::starting) return;
  server_->status = ServerStatus::exited;
  fault_passed();
  stop_if_drained();
}

}  // namespace mps::instance
