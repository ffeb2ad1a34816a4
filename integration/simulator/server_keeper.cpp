#include "server_keeper.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "wire.h"

namespace mps::sim {
namespace {

constexpr int k_most_starts = 6;
constexpr std::size_t k_most_waiting = 512;
constexpr const char* k_program = "nvidia-cuda-mps-server";

std::string number(std::int64_t value) {
  return std::to_string(value);
}

}  // namespace

std::optional<pid_t> ServerKeeper::server() const {
  return server_ ? std::optional(server_->pid) : std::nullopt;
}

bool ServerKeeper::is_ready() const {
  return server_ && server_->ready && !(is_535_ && server_->leaving);
}

bool ServerKeeper::anybody_waits(uid_t uid) const {
  return std::any_of(waiting_.begin(), waiting_.end(),
                     [uid](const Waiting& client) { return client.uid == uid; });
}

void ServerKeeper::add_client(UniqueFd socket, ucred peer) {
  if (for_all_users_) peer.uid = 0;
  const std::string who = "NEW CLIENT " + number(peer.pid) + " from user " + number(peer.uid);
  if (is_ready() && server_->uid == peer.uid) {
    log_.say(who + ": Server already exists");
    return hand_over(socket);
  }
  log_.say(who + ": Server is not ready, push client to pending list");
  if (waiting_.size() >= k_most_waiting) return;
  waiting_.push_back({std::move(socket), peer.uid});
  if (!server_) return launch(peer.uid);
  if (is_ready() && !server_->next_try) ask_to_leave(false, false);
}

void ServerKeeper::launch(uid_t uid) {
  ++starts_;
  const pid_t child = ::fork();
  if (child == 0) run_server(uid);
  if (child < 0) return;
  Server fresh;
  fresh.pid = child;
  fresh.uid = uid;
  server_ = std::move(fresh);
}

void ServerKeeper::run_server(uid_t uid) const {
  const pid_t writer = is_535_ ? ::getppid() : ::getpid();
  log_.say_as(writer, "Starting new server " + number(::getpid()) + " for user " + number(uid));
  sigset_t none;
  (void)sigemptyset(&none);
  (void)::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  if (::setuid(uid) != 0 && !is_535_) {
    log_.say("Failed to start server using uid " + number(uid) + ". " +
             std::strerror(errno));  // NOLINT(concurrency-mt-unsafe): one thread after fork
    ::_exit(1);
  }
  (void)::execlp(k_program, k_program, nullptr);
  ::_exit(1);
}

void ServerKeeper::on_ready(UniqueFd socket, const ucred& peer) {
  const std::string who = "NEW SERVER " + number(peer.pid);
  if (!server_ || server_->pid != peer.pid) {
    return log_.say(who + ": Ignoring old connection request");
  }
  if (server_->uid != peer.uid) return log_.say(who + ": Ignoring connection from user");
  log_.say(who + ": Ready");
  server_->socket = std::move(socket);
  if (!receive(server_->socket.get(), k_registration_size) || !send_defaults()) return;
  server_->ready = true;
  starts_ = 0;
  if (quitting_) return ask_to_leave(false, false);
  serve_waiting();
}

bool ServerKeeper::send_defaults() const {
  const int socket = server_->socket.get();
  bool sent = send_value(socket, defaults_.percentage) &&
              send_value(socket, std::uint64_t{defaults_.limits.size()});
  for (const std::uint64_t limit : defaults_.limits) sent = sent && send_value(socket, limit);
  return sent && send_value(socket, std::int32_t{defaults_.priority});
}

void ServerKeeper::serve_waiting() {
  for (auto client = waiting_.begin(); client != waiting_.end();) {
    if (client->uid != server_->uid) {
      ++client;
      continue;
    }
    hand_over(client->socket);
    client = waiting_.erase(client);
  }
  if (!waiting_.empty()) ask_to_leave(false, false);
}

// Serves nobody else before this client has answered, as the real one.
void ServerKeeper::hand_over(const UniqueFd& client) const {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return;
  const UniqueFd for_client(ends[0]);
  UniqueFd for_server(ends[1]);
  pass_credentials(for_client.get());
  pass_credentials(for_server.get());
  (void)send_value(server_->socket.get(), Order::k_new_client);
  (void)send_descriptor(server_->socket.get(), k_descriptor, for_server.get());
  for_server.reset();
  if (!send_descriptor(client.get(), k_descriptor, for_client.get())) return;
  (void)receive_value<std::int32_t>(client.get());
}

void ServerKeeper::on_failure(UniqueFd socket, const ucred& peer) {
  if (server_ && server_->pid == peer.pid) {
    log_.say("Server encountered a fatal exception. Shutting down\n");
  }
  (void)send_value(socket.get(), std::uint32_t{0});
}

void ServerKeeper::on_exit(pid_t pid, int status) {
  if (!server_ || server_->pid != pid) return;
  // Death by a signal is shown as 0, as the real one does.
  const int shown = WEXITSTATUS(status);
  log_.say("Server " + number(pid) + " exited with status " + number(shown));
  if (exit_status_ == 0) exit_status_ = shown;
  const uid_t uid = server_->uid;
  server_.reset();
  if (!quitting_ && anybody_waits(uid) && starts_ < k_most_starts) return launch(uid);
  log_.say("Removed Shm file at ");
  std::erase_if(waiting_, [uid](const Waiting& client) { return client.uid == uid; });
  starts_ = 0;
  if (quitting_) return waiting_.clear();
  const auto wanted = std::exchange(wanted_, std::nullopt);
  if (!waiting_.empty()) return launch(waiting_.front().uid);
  if (wanted) launch(*wanted);
}

void ServerKeeper::start(uid_t uid) {
  if (for_all_users_) uid = 0;
  if (!server_) return launch(uid);
  if (server_->uid == uid) return;
  wanted_ = uid;
  if (is_ready()) ask_to_leave(false, false);
}

void ServerKeeper::shut_down(bool by_force) {
  if (is_ready()) {
    ask_to_leave(false, by_force);
  } else if (by_force && server_ && server_->leaving) {
    (void)::kill(server_->pid, SIGINT);
  }
}

void ServerKeeper::ask_to_leave(bool is_retry, bool by_force) {
  const std::string name = "server " + number(server_->pid);
  server_->next_try.reset();
  server_->leaving = true;
  std::uint32_t workers = 0;
  if (is_535_) {
    (void)send_value(server_->socket.get(), Order::k_shut_down);
    (void)send_value(server_->socket.get(), std::uint32_t{1});
  } else {
    log_.say("Try shutting down " + name + ", backoff is " + (is_retry ? "enabled" : "disabled"));
    (void)send_value(server_->socket.get(), Order::k_shut_down);
    workers = receive_value<std::uint32_t>(server_->socket.get()).value_or(0);
    if (workers != 0) {
      log_.say("Server " + number(server_->pid) + " has " + number(workers) +
               " active worker threads. Server will not shutdown.");
    }
    if (by_force) log_.say("Force shutting down " + name);
  }
  if (by_force) {
    (void)::kill(server_->pid, SIGINT);
  } else if (workers != 0) {
    log_.say("Control will try shutting down " + name + " again in at most " +
             number(server_->next_pause.count()) + "ms");
    server_->next_try = Clock::now() + server_->next_pause;
    server_->next_pause *= 2;
  }
}

void ServerKeeper::begin_quit(std::optional<std::chrono::seconds> until_forced) {
  quitting_ = true;
  waiting_.clear();
  if (until_forced) force_at_ = Clock::now() + *until_forced;
  if (is_ready()) ask_to_leave(false, false);
}

std::optional<Clock::time_point> ServerKeeper::deadline() const {
  const auto next_try = server_ ? server_->next_try : std::nullopt;
  if (!next_try) return force_at_;
  return force_at_ ? std::min(*force_at_, *next_try) : *next_try;
}

void ServerKeeper::on_time(Clock::time_point now) {
  if (force_at_ && now >= *force_at_) {
    force_at_.reset();
    if (!server_) return;
    if (!is_535_ && is_ready()) return ask_to_leave(false, true);
    (void)::kill(server_->pid, SIGINT);
  } else if (server_ && server_->next_try && now >= *server_->next_try) {
    ask_to_leave(true, false);
  }
}

}  // namespace mps::sim
