#include "server.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <thread>

namespace mps::sim {
namespace {

constexpr const char* k_no_device_text = "no CUDA-capable device is detected";

UniqueFd interrupts() {
  sigset_t set;
  (void)sigemptyset(&set);
  (void)sigaddset(&set, SIGINT);
  (void)::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
}

std::string hexadecimal(std::uint64_t value) {
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
  return text.data();
}

}  // namespace

Server::Server(Steering steering)
    : steering_(std::move(steering)),
      directory_(pipe_directory()),
      log_(directory_, Role::k_other),
      wording_{steering_.number("version", 550) >= 580},
      devices_(visible_devices(steering_)),
      memory_(devices_),
      interrupts_(interrupts()) {
  if (devices_.size() > k_most_devices) devices_.resize(k_most_devices);
}

void Server::say(std::string_view text) {
  if (ordered_.lost_lines != 0) {
    --ordered_.lost_lines;
    return;
  }
  if (ordered_.garbled_lines == 0) return log_.say(text);
  --ordered_.garbled_lines;
  log_.say(garbled(text));
}

int Server::run() {
  say("Startup");
  if (const auto binary = steering_.newer_binary(); !binary.empty()) {
    say("CUDA MPS Server for Linux/Unix. Binary version: " + binary);
    say("Display Driver version: " + steering_.text("version"));
  }
  if (!reach_control()) return 1;
  say("Initializing server process");
  const bool fails = steering_.flag("server_fails") || devices_.empty();
  if (fails) return fail(steering_.text("server_failure", k_no_device_text));
  if (!initialize()) return 0;
  return register_as_ready() ? serve() : 1;
}

bool Server::initialize() {
  pollfd interrupt{interrupts_.get(), POLLIN, 0};
  return ::poll(&interrupt, 1, static_cast<int>(steering_.number("server_ready_ms", 50))) == 0;
}

bool Server::reach_control() {
  const std::string path = directory_ + "/control";
  say("Connecting to control daemon on socket: " + path);
  control_ = connect_to(path);
  const auto greeting = control_ ? receive(control_.get(), k_greeting.size()) : std::nullopt;
  return greeting && greeting->bytes == k_greeting && send_as_self(control_.get(), k_credentials);
}

int Server::fail(const std::string& cause) {
  say("Driver initialization failed with: " + cause);
  say("Failed to start : " + cause);
  (void)send_value(control_.get(), Peer::k_server_failed);
  return 1;
}

bool Server::register_as_ready() {
  const std::uint32_t no_shared_file = 0;
  if (!send_value(control_.get(), Peer::k_server_ready) ||
      !send_value(control_.get(), no_shared_file)) {
    return false;
  }
  const auto percentage = receive_value<double>(control_.get());
  const auto count = receive_value<std::uint64_t>(control_.get());
  if (!percentage || !count || *count > limits_.size()) return false;
  percentage_ = *percentage;
  for (std::size_t device = 0; device < *count; ++device) {
    limits_[device] = receive_value<std::uint64_t>(control_.get()).value_or(0);
  }
  priority_ = receive_value<std::int32_t>(control_.get()).value_or(0);
  take_defaults();
  return true;
}

void Server::take_defaults() {
  const PinnedLimits own =
      read_limit_list(environment("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", ""), PinnedLimits{});
  for (std::size_t device = 0; device < limits_.size(); ++device) {
    if (limits_[device] == 0) limits_[device] = own[device];
  }
  say("Active Threads Percentage set to " + print_percentage(percentage_));
  for (std::size_t device = 0; device < devices_.size(); ++device) {
    if (limits_[device] == 0) continue;
    say("Device pinned memory limit for device " + std::to_string(device) + " set to " +
        hexadecimal(limits_[device]) + " bytes");
  }
  say("Server Priority set to " + std::to_string(priority_));
}

// Lives on without its control daemon as long as it has clients.
int Server::serve() {
  while (!(leaving_ && clients_.empty())) {
    std::vector<pollfd> polled = await_events();
    std::erase_if(clients_, [](const auto& client) { return !client->socket; });
    answer_the_waiting();
    recover();
    if (polled[0].revents != 0 && !handle_order()) {
      control_.reset();
      leaving_ = true;
    }
    if (is_interrupted(polled)) return 0;
  }
  return 0;
}

// Handles what clients and tests say. Returns what else there is: the control daemon's orders
// first, interrupts second.
std::vector<pollfd> Server::await_events() {
  const bool hears = !ordered_.stopped;
  const bool hears_clients = hears && !hangs_;
  std::vector<pollfd> polled{{hears ? control_.get() : -1, POLLIN, 0},
                             {hears ? interrupts_.get() : -1, POLLIN, 0}};
  const std::size_t first_order = polled.size();
  orders_.poll_for(polled);
  const std::size_t first_client = polled.size();
  for (const auto& client : clients_) {
    polled.push_back({hears_clients ? client->socket.get() : -1, POLLIN, 0});
  }
  if (::poll(polled.data(), polled.size(), wait_ms()) < 0) {
    for (pollfd& one : polled) one.revents = 0;
  }
  for (std::size_t index = first_client; index < polled.size() && !hangs_; ++index) {
    if (polled[index].revents != 0) handle_client(*clients_[index - first_client]);
  }
  orders_.handle(&polled[first_order], [this](std::string_view line) { return obey(line); });
  return polled;
}

// Until the next kernel's end, or the server's recovery.
int Server::wait_ms() const {
  std::optional<Time> next = fault_ ? fault_->recovered_at : std::nullopt;
  for (const auto& client : clients_) {
    const auto end = client->waiting ? client->work.end() : std::nullopt;
    if (end) next = next ? std::min(*next, *end) : *end;
  }
  if (!next || hangs_ || ordered_.stopped) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*next - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60000));
}

// The order that came before the signal is carried out first.
bool Server::is_interrupted(std::vector<pollfd>& polled) const {
  if (polled[1].revents == 0) return false;
  const bool has_order = ::poll(polled.data(), 1, 0) > 0 && polled[0].revents != 0;
  return !(control_ && has_order);
}

bool Server::handle_order() {
  const auto order = receive_value<Order>(control_.get());
  if (!order) return false;
  std::this_thread::sleep_for(ordered_.slow);
  switch (*order) {
    case Order::k_new_client:
      take_client();
      return true;
    case Order::k_shut_down:
      return shut_down();
    case Order::k_client_list:
      list_clients();
      return true;
    case Order::k_device_client_list:
      return send_value(control_.get(), std::uint32_t{0});
    case Order::k_processes:
      list_processes();
      return true;
    case Order::k_terminate_client:
      terminate_client();
      return true;
    case Order::k_status:
      return send_value(control_.get(), std::uint32_t{fault_ ? 0U : 1U});
    case Order::k_set_priority:
      priority_ = receive_value<std::int32_t>(control_.get()).value_or(priority_);
      return true;
    default:
      return handle_settings(*order);
  }
}

bool Server::handle_settings(Order order) {
  if (order == Order::k_get_percentage) return send_value(control_.get(), percentage_);
  if (order == Order::k_set_percentage) {
    percentage_ = receive_value<double>(control_.get()).value_or(percentage_);
    return true;
  }
  const auto device = receive_value<std::uint32_t>(control_.get());
  if (!device || *device >= limits_.size()) return false;
  if (order == Order::k_get_pinned_limit) return send_value(control_.get(), limits_[*device]);
  limits_[*device] = receive_value<std::uint64_t>(control_.get()).value_or(0);
  return true;
}

void Server::take_client() {
  auto message = receive(control_.get(), k_descriptor.size());
  if (!message || !message->descriptor) return;
  if (!wording_.names_the_parts) say("Received new client request");
  auto client = std::make_unique<Client>();
  client->socket = std::move(message->descriptor);
  pass_credentials(client->socket.get());
  (void)send_bytes(client->socket.get(), k_server_hello);
  clients_.push_back(std::move(client));
}

bool Server::shut_down() {
  say("Server has been notified to shutdown");
  if (steering_.is_535()) {
    (void)receive_value<std::uint32_t>(control_.get());
    leaving_ = true;
    return true;
  }
  const auto workers = static_cast<std::uint32_t>(clients_.size());
  leaving_ = workers == 0;
  if (workers != 0) {
    say("Server was unable to shutdown due to " + std::to_string(workers) +
        " active workers threads");
  }
  return send_value(control_.get(), workers);
}

void Server::list_clients() {
  std::vector<std::int32_t> pids;
  for (const auto& client : clients_) {
    if (client->pid != 0) pids.push_back(client->pid);
  }
  (void)send_value(control_.get(), static_cast<std::uint32_t>(pids.size()));
  for (const std::int32_t pid : pids) (void)send_value(control_.get(), pid);
}

void Server::list_processes() {
  std::vector<ProcessRow> rows;
  for (const auto& client : clients_) {
    for (std::size_t context = 0; context < client->contexts.size(); ++context) {
      const Device& device = devices_[client->contexts[context]];
      ProcessRow row;
      row.pid = client->pid;
      row.uuid = device.uuid;
      row.context = static_cast<std::uint32_t>(context);
      row.is_mig = device.is_mig ? 1 : 0;
      rows.push_back(row);
    }
  }
  (void)send_value(control_.get(), static_cast<std::uint32_t>(rows.size()));
  for (const ProcessRow& row : rows) (void)send_value(control_.get(), row);
  (void)receive_value<std::uint32_t>(control_.get());
}

void Server::terminate_client() {
  const auto pid = receive_value<std::int32_t>(control_.get());
  if (steering_.flag("terminate_hangs")) return;
  std::int32_t result = k_invalid_value;
  for (const auto& client : clients_) {
    if (!pid || client->pid != *pid) continue;
    say("Forcefully terminating client " + std::to_string(*pid));
    client->sticky = k_client_terminated;
    client->work.drop();
    client->contexts.clear();
    memory_.forget(client->socket.get());
    result = k_success;
  }
  say(result == k_success ? "Client termination succeeded."
                          : "Client termination failed with invalid argument.");
  (void)send_value(control_.get(), result);
}

}  // namespace mps::sim
