#include "server.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace mps::sim {
namespace {

constexpr const char* k_no_device_text = "no CUDA-capable device is detected";

UniqueFd interrupts() {
  sigset_t set;
  (void)sigemptyset(&set);
  (void)sigaddset(&set, SIGINT);
  (void)::sigprocmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
}

std::string hexadecimal(std::uint64_t value) {
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
  return text.data();
}

std::string uuid_words(const Device& device) {
  std::string text;
  for (std::size_t word = 0; word < 4; ++word) {
    std::uint32_t value = 0;
    std::memcpy(&value, device.uuid.data() + word * 4, sizeof value);
    text += (word == 0 ? "" : "-") + hexadecimal(value);
  }
  return text;
}

}  // namespace

Server::Server(Steering steering)
    : steering_(std::move(steering)),
      directory_(pipe_directory()),
      log_(directory_, Role::k_other),
      devices_(visible_devices(steering_)),
      memory_(devices_),
      interrupts_(interrupts()) {
  if (devices_.size() > k_most_devices) devices_.resize(k_most_devices);
}

int Server::run() {
  log_.say("Startup");
  if (!reach_control()) return 1;
  log_.say("Initializing server process");
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
  log_.say("Connecting to control daemon on socket: " + path);
  control_ = connect_to(path);
  const auto greeting = control_ ? receive(control_.get(), k_greeting.size()) : std::nullopt;
  return greeting && greeting->bytes == k_greeting && send_as_self(control_.get(), k_credentials);
}

int Server::fail(const std::string& cause) {
  log_.say("Driver initialization failed with: " + cause);
  log_.say("Failed to start : " + cause);
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
  const PinnedLimits own =
      read_limit_list(environment("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", ""), PinnedLimits{});
  for (std::size_t device = 0; device < limits_.size(); ++device) {
    if (limits_[device] == 0) limits_[device] = own[device];
  }
  log_.say("Active Threads Percentage set to " + print_percentage(percentage_));
  for (std::size_t device = 0; device < devices_.size(); ++device) {
    if (limits_[device] == 0) continue;
    log_.say("Device pinned memory limit for device " + std::to_string(device) + " set to " +
             hexadecimal(limits_[device]) + " bytes");
  }
  log_.say("Server Priority set to " + std::to_string(priority_));
  return true;
}

// Lives on without its control daemon as long as it has clients.
int Server::serve() {
  while (!(leaving_ && clients_.empty())) {
    std::vector<pollfd> polled{{control_.get(), POLLIN, 0}, {interrupts_.get(), POLLIN, 0}};
    for (const auto& client : clients_) polled.push_back({client->socket.get(), POLLIN, 0});
    if (::poll(polled.data(), polled.size(), -1) < 0) continue;
    for (std::size_t index = 2; index < polled.size(); ++index) {
      if (polled[index].revents != 0) handle_client(*clients_[index - 2]);
    }
    std::erase_if(clients_, [](const auto& client) { return !client->socket; });
    if (polled[0].revents != 0 && !handle_order()) {
      control_.reset();
      leaving_ = true;
    }
    // The order that came before the signal is carried out first.
    const bool has_order = ::poll(polled.data(), 1, 0) > 0 && polled[0].revents != 0;
    if (polled[1].revents != 0 && !(control_ && has_order)) return 0;
  }
  return 0;
}

bool Server::handle_order() {
  const auto order = receive_value<Order>(control_.get());
  if (!order) return false;
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
      return send_value(control_.get(), std::uint32_t{1});
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
  log_.say("Received new client request");
  auto client = std::make_unique<Client>();
  client->socket = std::move(message->descriptor);
  pass_credentials(client->socket.get());
  (void)send_bytes(client->socket.get(), k_server_hello);
  clients_.push_back(std::move(client));
}

bool Server::shut_down() {
  log_.say("Server has been notified to shutdown");
  if (steering_.is_535()) {
    (void)receive_value<std::uint32_t>(control_.get());
    leaving_ = true;
    return true;
  }
  const auto workers = static_cast<std::uint32_t>(clients_.size());
  leaving_ = workers == 0;
  if (workers != 0) {
    log_.say("Server was unable to shutdown due to " + std::to_string(workers) +
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
  std::int32_t result = k_invalid_value;
  for (const auto& client : clients_) {
    if (!pid || client->pid != *pid) continue;
    log_.say("Forcefully terminating client " + std::to_string(*pid));
    client->terminated = true;
    client->contexts.clear();
    memory_.forget(client->socket.get());
    result = k_success;
  }
  log_.say(result == k_success ? "Client termination succeeded."
                               : "Client termination failed with invalid argument.");
  (void)send_value(control_.get(), result);
}

void Server::handle_client(Client& client) {
  const auto message = receive(client.socket.get(), 4096);
  if (!message) return lose(client);
  if (client.pid == 0) return welcome(client, *message);
  Request request;
  if (message->bytes.size() != sizeof request) return lose(client);
  message->bytes.copy(reinterpret_cast<char*>(&request), sizeof request);
  if (!send_value(client.socket.get(), handle_request(client, request))) lose(client);
}

void Server::welcome(Client& client, const Message& message) {
  Hello hello;
  if (!message.credentials || message.bytes.size() != sizeof hello) return lose(client);
  message.bytes.copy(reinterpret_cast<char*>(&hello), sizeof hello);
  client.pid = message.credentials->pid;
  client.limits = lower_limits(limits_, hello.pinned_limits);
  Welcome answer;
  answer.percentage = std::min(percentage_, hello.percentage);
  answer.device_count = static_cast<std::uint32_t>(devices_.size());
  for (std::size_t index = 0; index < devices_.size(); ++index) {
    SharedDevice& shared = answer.devices[index];
    const Device& device = devices_[index];
    shared.uuid = device.uuid;
    (void)std::snprintf(shared.name.data(), shared.name.size(), "%s", device.name.c_str());
    shared.memory = device.memory;
    shared.multiprocessors = multiprocessors(device.multiprocessors, answer.percentage);
    shared.is_mig = device.is_mig ? 1 : 0;
  }
  log_.say("Worker created");
  log_.say("Creating worker thread");
  if (!send_value(client.socket.get(), answer)) lose(client);
}

Reply Server::handle_request(Client& client, const Request& request) {
  if (client.terminated) return {k_client_terminated, 0, 0, 0};
  if (request.device >= devices_.size()) return {k_invalid_device, 0, 0, 0};
  if (request.ask == Ask::k_create_context) {
    const Device& device = devices_[request.device];
    log_.say("Device " + device.name + " (uuid " + uuid_words(device) + ") is associated");
    log_.say("Status of client {" + std::to_string(client.pid) + ", " +
             std::to_string(client.contexts.size() + 1) + "} is ACTIVE");
    client.contexts.push_back(request.device);
  } else if (request.ask == Ask::k_destroy_context && !client.contexts.empty()) {
    client.contexts.pop_back();
  }
  return memory_.handle(client.socket.get(), client.limits, request);
}

void Server::lose(Client& client) {
  memory_.forget(client.socket.get());
  log_.say("Receive command failed, assuming client exit");
  const std::size_t contexts = client.contexts.size();
  for (std::size_t context = 1; context <= contexts; ++context) {
    log_.say("Client {" + std::to_string(client.pid) + ", " + std::to_string(context) + "} exit");
  }
  client.contexts.clear();
  if (contexts != 0) {
    log_.say("Client disconnected. Number of active client contexts is " +
             std::to_string(context_count()) + ".");
  }
  log_.say("Client process disconnected");
  client.socket.reset();
}

std::size_t Server::context_count() const {
  std::size_t count = 0;
  for (const auto& client : clients_) count += client->contexts.size();
  return count;
}

}  // namespace mps::sim
