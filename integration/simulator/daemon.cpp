#include "daemon.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace mps::sim {
namespace {

constexpr std::size_t k_most_forgotten = 256;
constexpr std::size_t k_longest_command = 8192;
constexpr std::int32_t k_text = 0;  // what a message to a front-end is
constexpr std::int32_t k_end = 1;

void complain(FolderProblem problem, const std::string& path) {
  // A path that is too long for a socket is not explained by the real one either.
  if (problem == FolderProblem::k_no_access) {
    (void)std::printf("Cannot access CUDA_MPS_PIPE_DIRECTORY=%s\n", path.c_str());
  } else if (problem == FolderProblem::k_already_running) {
    (void)std::puts("An instance of this daemon is already running");
  }
  (void)std::fflush(stdout);
}

// Waits for whatever is missing of the four bytes; more than four are never right.
std::optional<Peer> receive_peer(int socket) {
  std::string bytes;
  while (bytes.size() != sizeof(Peer)) {
    const auto message = receive(socket, sizeof(Peer) + 1);
    if (!message) return std::nullopt;
    bytes += message->bytes;
  }
  std::uint32_t value = 0;
  bytes.copy(reinterpret_cast<char*>(&value), sizeof value);
  return static_cast<Peer>(value);
}

UniqueFd child_signals() {
  sigset_t set;
  (void)sigemptyset(&set);
  (void)sigaddset(&set, SIGCHLD);
  (void)::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

}  // namespace

Daemon::Daemon(Steering steering, bool for_all_users)
    : steering_(std::move(steering)), for_all_users_(for_all_users), folder_(pipe_directory()) {}

Daemon::~Daemon() {
  if (!printer_.joinable()) return;
  log_->end();
  printer_.join();
}

// The pinned limits of the environment are the servers' business, who inherit it.
void Daemon::read_environment() {
  const std::string percentage = environment("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "100");
  if (!read_percentage(percentage)) {
    log_->say("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE should be between (0.0, 100.0]");
  }
  defaults_.percentage = read_percentage(percentage).value_or(100.0);
  const std::string priority = environment("CUDA_MPS_CLIENT_PRIORITY", "0");
  const long value = std::strtol(priority.c_str(), nullptr, 10);
  if (value == 0 || value == 1) {
    defaults_.priority = static_cast<int>(value);
  } else {
    log_->say("CUDA_MPS_CLIENT_PRIORITY should be between [0,1]");
  }
}

bool Daemon::start(const DaemonOutput& output) {
  // A running daemon hears of those who come after it.
  const LogWriter others_log(folder_.path(), Role::k_other);
  others_log.say("Using log directory: " +
                 environment("CUDA_MPS_LOG_DIRECTORY", "/var/log/nvidia-mps"));
  FolderProblem problem = folder_.lock();
  if (problem == FolderProblem::k_none && !folder_.make_fifo()) {
    problem = FolderProblem::k_no_access;
  }
  if (problem != FolderProblem::k_none) {
    complain(problem, folder_.path());
    return false;
  }
  child_signals_ = child_signals();
  log_ = std::make_unique<LogWriter>(folder_.path(), Role::k_control);
  if (folder_.path().size() + std::string_view("/control_privileged").size() > 107) return false;
  printer_ = std::thread(copy_log, folder_.fifo(), output.control, output.servers);
  if (const auto binary = steering_.newer_binary(); !binary.empty()) {
    log_->say("CUDA MPS Control binary version: " + binary);
  }
  log_->say("Starting control daemon using socket " + folder_.path() + "/control");
  log_->say("To connect CUDA applications to this daemon, set env CUDA_MPS_PIPE_DIRECTORY=" +
            folder_.path());
  read_environment();
  std::this_thread::sleep_for(std::chrono::milliseconds(steering_.number("start_delay_ms", 0)));
  if (folder_.listen() != FolderProblem::k_none) return false;
  if (!steering_.is_535()) folder_.write_pid_file();
  keeper_ = std::make_unique<ServerKeeper>(*log_, defaults_, steering_.is_535(), for_all_users_);
  commands_ = std::make_unique<Commands>(*log_, defaults_, *keeper_, steering_.is_535());
  return true;
}

int Daemon::run() {
  while (!(quitting_ && !keeper_->server())) poll_once();
  return finish();
}

void Daemon::poll_once() {
  pollfd polled[] = {{folder_.control(), POLLIN, 0},
                     {folder_.privileged(), POLLIN, 0},
                     {child_signals_.get(), POLLIN, 0},
                     {front_end_ ? front_end_->socket.get() : -1, POLLIN, 0}};
  int wait_ms = -1;
  if (const auto deadline = keeper_->deadline()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
    wait_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60000));
  }
  if (::poll(polled, std::size(polled), wait_ms) < 0) return;
  if (polled[2].revents != 0) reap();
  keeper_->on_time(Clock::now());
  if (polled[3].revents != 0) read_command();
  if (polled[0].revents != 0) accept_from(folder_.control(), false);
  if (polled[1].revents != 0) accept_from(folder_.privileged(), true);
}

void Daemon::reap() {
  signalfd_siginfo ignored{};
  while (::read(child_signals_.get(), &ignored, sizeof ignored) > 0) {
  }
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) keeper_->on_exit(pid, status);
}

void Daemon::accept_from(int listener, bool is_privileged) {
  log_->say("Accepting connection...");
  UniqueFd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) return;
  pass_credentials(socket.get());
  if (gets_no_greeting(socket.get())) return log_->say("Unable to accept connection");
  if (!send_bytes(socket.get(), k_greeting)) return log_->say("Unable to accept connection");
  const auto opening = receive(socket.get(), k_credentials.size());
  if (!opening || !opening->credentials) return log_->say("User did not send valid credentials");
  const ucred peer = *opening->credentials;
  if (is_privileged && peer.uid != ::geteuid()) {
    return log_->say("Unable to accept priviliged connection from other user");
  }
  const auto kind = receive_peer(socket.get());
  if (kind) return sort(std::move(socket), peer, *kind, is_privileged);
  log_->say("Unable to read new connection type information");
}

bool Daemon::gets_no_greeting(int socket) const {
  const auto program = steering_.text("no_greeting");
  ucred peer{};
  socklen_t size = sizeof peer;
  if (program.empty() || ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return false;
  }
  std::string name;
  std::ifstream comm("/proc/" + std::to_string(peer.pid) + "/comm");
  return std::getline(comm, name) && name == program;
}

void Daemon::sort(UniqueFd socket, const ucred& peer, Peer kind, bool is_privileged) {
  if (kind == Peer::k_server_ready) return keeper_->on_ready(std::move(socket), peer);
  if (kind == Peer::k_server_failed) return keeper_->on_failure(std::move(socket), peer);
  if (kind == Peer::k_client) {
    if (!quitting_) keeper_->add_client(std::move(socket), peer);
  } else if (kind == Peer::k_debuggee) {
    log_->say("NEW DEBUGGEE " + std::to_string(peer.pid) + " from user " +
              std::to_string(peer.uid));
  } else if (kind == Peer::k_front_end) {
    if (!front_end_ && !quitting_) open_session(std::move(socket), peer, is_privileged);
  } else {
    log_->say("Unknown type of connection");
    forgotten_.push_back(std::move(socket));
    if (forgotten_.size() > k_most_forgotten) forgotten_.pop_front();
  }
}

void Daemon::open_session(UniqueFd socket, const ucred& peer, bool is_privileged) {
  log_->say("NEW UI");
  // What a test asks for may change between sessions.
  steering_ = Steering::load(own_program());
  front_end_.emplace();
  front_end_->socket = std::move(socket);
  front_end_->session = {is_privileged, peer.uid};
}

void Daemon::read_command() {
  const auto size = receive_value<std::uint64_t>(front_end_->socket.get());
  const bool hangs = steering_.flag("hang");
  if (quitting_ || (hangs && size == std::uint64_t{0})) {
    if (!size) front_end_->socket.reset();
    return;
  }
  const auto text = size && *size != 0 ? receive(front_end_->socket.get(), k_longest_command)
                                       : std::optional<Message>();
  if (!text || text->bytes.size() != *size) {
    end_session(0);
    return log_->say("UI closed");
  }
  std::string line = text->bytes;
  while (line.ends_with('\0')) line.pop_back();
  log_->say("Cmd:" + line);
  if (hangs) return;
  const auto say = [this](std::string_view answer_text) { answer(answer_text); };
  if (commands_->run(front_end_->session, line, say)) begin_quit();
}

void Daemon::answer(std::string_view text) {
  log_->say(text);
  if (!front_end_) return;
  std::string message(reinterpret_cast<const char*>(&k_text), sizeof k_text);
  message += steering_.flag("rubbish") ? std::string_view("\x01\xff%rubbish \x1b[31m{]") : text;
  (void)send_bytes(front_end_->socket.get(), message);
}

void Daemon::end_session(std::int32_t status) {
  if (!front_end_) return;
  std::string message(reinterpret_cast<const char*>(&k_end), sizeof k_end);
  message.append(reinterpret_cast<const char*>(&status), sizeof status);
  if (front_end_->socket) (void)send_bytes(front_end_->socket.get(), message);
  // What is left unread would make the last message come behind an error.
  std::array<char, 64> ignored{};
  while (::recv(front_end_->socket.get(), ignored.data(), ignored.size(), MSG_DONTWAIT) > 0) {
  }
  front_end_.reset();
}

void Daemon::begin_quit() {
  quitting_ = true;
  if (!steering_.is_535()) folder_.remove_pid_file();
}

int Daemon::finish() {
  const std::int32_t status = keeper_->exit_status();
  folder_.stop_listening();
  end_session(status);
  log_->say("Exit with status " + std::to_string(status));
  log_->end();
  printer_.join();
  folder_.remove_fifo();
  return status;
}

}  // namespace mps::sim
