// The server's clients: how they come, what they are answered, how they go.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "server.h"

namespace mps::sim {
namespace {
constexpr long k_most_connections = 128;  // 60 clients with the default of two each fit
}  // namespace

void Server::handle_client(Client& client) {
  const auto message = receive(client.socket.get(), 4096);
  if (!message) return lose(client);
  std::this_thread::sleep_for(ordered_.slow);
  if (client.pid == 0) return welcome(client, *message);
  Request request;
  if (message->bytes.size() != sizeof request) return lose(client);
  message->bytes.copy(reinterpret_cast<char*>(&request), sizeof request);
  handle_request(client, request);
}

void Server::handle_request(Client& client, const Request& request) {
  const bool waits = request.ask == Ask::k_synchronize || request.ask == Ask::k_destroy_context;
  if (waits && client.sticky == k_success) {
    client.waiting = request;  // answer_the_waiting() comes next
    return;
  }
  const Reply reply = answer_to(client, request);
  if (!send_value(client.socket.get(), reply)) return lose(client);
  const bool faults = request.ask == Ask::k_launch && is_fault(request.kernel);
  if (faults && reply.result == k_success) fault(client, request.device, request.kernel);
}

void Server::answer_the_waiting() {
  const Time now = std::chrono::steady_clock::now();
  if (hangs_ || ordered_.stopped) return;
  for (const auto& client : clients_) {
    if (!client->waiting || (client->sticky == k_success && client->work.is_busy(now))) continue;
    const Request request = *client->waiting;
    client->waiting.reset();
    if (!send_value(client->socket.get(), answer_to(*client, request))) lose(*client);
  }
  std::erase_if(clients_, [](const auto& client) { return !client->socket; });
}

CudaResult Server::admit(const Client& client) {
  const long most = most_clients();
  if (fault_) {
    say("Worker is in reset. ");
    return k_server_not_ready;
  }
  const auto others = std::count_if(clients_.begin(), clients_.end(), [&client](const auto& other) {
    return other.get() != &client && other->pid != 0;
  });
  if (most == 0 || others < most) return k_success;
  say("Failed to accept new client. Maximum number of clients (" + std::to_string(most) +
      ") reached.");
  return k_max_clients_reached;
}

Welcome Server::terms(const Hello& hello) const {
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
  return answer;
}

void Server::welcome(Client& client, const Message& message) {
  Hello hello;
  if (!message.credentials || message.bytes.size() != sizeof hello) return lose(client);
  message.bytes.copy(reinterpret_cast<char*>(&hello), sizeof hello);
  const pid_t pid = message.credentials->pid;
  const std::string who = wording_.client(pid, 0);
  if (wording_.names_the_parts) say("Received new client request for " + who);
  Welcome answer = terms(hello);
  answer.result = admit(client);
  if (answer.result != k_success) {
    (void)send_value(client.socket.get(), answer);
    client.socket.reset();
    return;
  }
  client.pid = pid;
  client.limits = lower_limits(limits_, hello.pinned_limits);
  client.connections = hello.connections;
  say("Worker created");
  say(wording_.names_the_parts ? "Creating worker thread for client " + who
                               : "Creating worker thread");
  if (wording_.names_the_parts) say("Client " + who + " connected");
  if (!send_value(client.socket.get(), answer)) lose(client);
}

Reply Server::answer_to(Client& client, const Request& request) {
  if (client.sticky != k_success) return {client.sticky, 0, 0, 0};
  if (request.device >= devices_.size()) return {k_invalid_device, 0, 0, 0};
  if (request.ask == Ask::k_create_context)
    return {create_context(client, request.device), 0, 0, 0};
  if (request.ask == Ask::k_allocate && ordered_.out_of_memory) return {k_out_of_memory, 0, 0, 0};
  if (request.ask == Ask::k_destroy_context && !client.contexts.empty()) client.contexts.pop_back();
  if (request.ask == Ask::k_launch) {
    const Time now = std::chrono::steady_clock::now();
    if (request.kernel == Kernel::k_hang) client.work.hang();
    if (request.kernel == Kernel::k_spin) {
      client.work.spin(std::chrono::nanoseconds(request.value), now);
    }
  }
  return memory_.handle(client.socket.get(), client.limits, request);
}

CudaResult Server::create_context(Client& client, std::uint32_t index) {
  if (fault_) return k_server_not_ready;
  if (ordered_.out_of_memory) return k_out_of_memory;
  const long most = most_clients();
  if (most != 0 && static_cast<long>(contexts_on(index)) >= most) {
    say("Failed to accept new client. Maximum number of clients (" + std::to_string(most) +
        ") reached.");
    return k_max_clients_reached;
  }
  const long connections = steering_.number("most_connections", k_most_connections);
  if (connections != 0 && connections_on(index) + client.connections > connections) {
    say("Failed to accept new client. Reached maximum number of device connections.");
    return k_max_connections_reached;
  }
  const Device& device = devices_[index];
  say("Device " + device.name + " (uuid " + uuid_words(device) + ") is associated");
  say(wording_.status(client.pid, client.contexts.size() + 1, true));
  client.contexts.push_back(index);
  return k_success;
}

void Server::lose(Client& client) {
  const bool was_busy = client.work.is_busy(std::chrono::steady_clock::now());
  if (was_busy && steering_.flag("kill_busy_hangs")) {
    hangs_ = true;
    return;
  }
  memory_.forget(client.socket.get());
  say("Receive command failed, assuming client exit");
  const std::size_t contexts = client.contexts.size();
  for (std::size_t context = 1; context <= contexts; ++context) {
    say("Client " + wording_.client(client.pid, context) + " exit");
  }
  client.contexts.clear();
  if (contexts != 0) {
    say("Client disconnected. Number of active client contexts is " +
        std::to_string(context_count()) + ".");
  }
  say("Client process disconnected");
  client.socket.reset();
}

std::size_t Server::context_count() const {
  std::size_t count = 0;
  for (const auto& client : clients_) count += client->contexts.size();
  return count;
}

long Server::most_clients() const {
  return steering_.number("most_clients", steering_.number("version", 550) >= 590 ? 60 : 48);
}

long Server::connections_on(std::uint32_t device) const {
  long sum = 0;
  for (const auto& client : clients_) {
    sum +=
        client->connections * std::count(client->contexts.begin(), client->contexts.end(), device);
  }
  return sum;
}

std::size_t Server::contexts_on(std::uint32_t device) const {
  std::size_t count = 0;
  for (const auto& client : clients_) {
    count += static_cast<std::size_t>(
        std::count(client->contexts.begin(), client->contexts.end(), device));
  }
  return count;
}

}  // namespace mps::sim
