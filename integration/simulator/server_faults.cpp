// The server's faults and recovery, and what a test orders.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <type_traits>

#include "event_board.h"
#include "server.h"

namespace mps::sim {
namespace {

constexpr unsigned k_xid_trap = 13;         // graphics engine exception
constexpr unsigned k_xid_bad_address = 31;  // MMU page fault
constexpr unsigned k_xid_stopped = 43;      // the culprit's channel
constexpr unsigned k_xid_removed = 45;      // each innocent client's

constexpr const char* k_no_such_device = "refused: no such device";

std::string done(bool is_done) {
  return is_done ? "done" : "refused: no such client with a context";
}

}  // namespace

void Server::fault(Client& culprit, std::uint32_t device, Kernel kind) {
  std::vector<Party> parties;
  for (const auto& client : clients_) parties.push_back({client->pid, client->contexts});
  const Blast blast = blast_of(parties, device);
  const bool is_named = kind == Kernel::k_bad_address && steering_.number("culprit_named", 1) != 0;
  const Party who{culprit.pid, culprit.contexts};
  note_fault(culprit, kind);
  for (const auto& line : fault_lines(wording_, parties, blast, who, is_named)) say(line);
  for (const std::size_t index : blast.parties) {
    Client& reached = *clients_[index];
    reached.sticky = kind == Kernel::k_trap ? k_launch_failed : k_illegal_address;
    reached.in_fault = true;
    reached.work.drop();
  }
  if (!fault_) fault_.emplace();
  fault_->devices.insert(blast.devices.begin(), blast.devices.end());
  fault_->recovered_at.reset();
  post_xids(blast.devices, culprit, kind);
}

// What a supervisor's word can be held against: it is written before anything is said.
void Server::note_fault(const Client& culprit, Kernel kind) const {
  const std::string path = steering_.text("truth");
  const UniqueFd file(
      path.empty() ? -1 : ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666));
  if (!file) return;
  const auto now = std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const std::string line = std::to_string(now.time_since_epoch().count()) + " " +
                           std::to_string(culprit.pid) + " " + directory_ +
                           (kind == Kernel::k_trap ? " trap" : " bad-address") +
                           (control_ ? "\n" : " unheard\n");
  (void)!::write(file.get(), line.data(), line.size());
}

void Server::post_xids(const std::set<std::uint32_t>& devices, const Client& culprit,
                       Kernel kind) const {
  for (const std::uint32_t device : devices) {
    const std::string uuid = uuid_text(devices_[device]);
    const auto post = [&uuid](unsigned number) {
      post_on_board({BoardEvent::Kind::k_xid, number, uuid});
    };
    post(kind == Kernel::k_trap ? k_xid_trap : k_xid_bad_address);
    for (const auto& client : clients_) {
      const bool is_here = std::count(client->contexts.begin(), client->contexts.end(), device) > 0;
      if (client.get() != &culprit && is_here) post(k_xid_removed);
    }
    post(k_xid_stopped);
  }
}

// Once the last of those whom the fault has reached is gone, in the time that contexts take.
void Server::recover() {
  if (!fault_ || ordered_.stopped || hangs_ || steering_.flag("recovery_fails")) return;
  const bool is_held = std::any_of(clients_.begin(), clients_.end(),
                                   [](const auto& client) { return client->in_fault; });
  if (is_held) return;
  const Time now = std::chrono::steady_clock::now();
  if (!fault_->recovered_at) {
    fault_->recovered_at = now + std::chrono::milliseconds(steering_.number("recovery_ms", 20));
  }
  if (now < *fault_->recovered_at) return;
  for (const std::uint32_t device : fault_->devices) {
    say("Destroy server context on device " + std::to_string(device));
  }
  for (const std::uint32_t device : fault_->devices) {
    say("Creating server context on device " + std::to_string(device) + " (" +
        devices_[device].name + ")");
  }
  fault_.reset();
}

const Device* Server::device_named(const std::string& uuid) const {
  const auto wanted = device_of_uuid(uuid);
  for (const Device& device : devices_) {
    if (uuid.empty() || (wanted && wanted->uuid == device.uuid)) return &device;
  }
  return nullptr;
}

std::string Server::obey_about_client(pid_t pid, Kernel kernel) {
  for (const auto& client : clients_) {
    if (client->pid != pid || client->contexts.empty() || client->sticky != k_success) continue;
    if (kernel == Kernel::k_hang) {
      client->work.hang();
    } else {
      fault(*client, client->contexts.front(), kernel);
    }
    return done(true);
  }
  return done(false);
}

std::string Server::post_about_device(const order::Xid& xid) const {
  const Device* device = device_named(xid.device);
  if (device == nullptr) return k_no_such_device;
  post_on_board({BoardEvent::Kind::k_xid, xid.number, uuid_text(*device)});
  return done(true);
}

std::string Server::post_about_device(const order::Recovery& recovery) const {
  const Device* device = device_named(recovery.device);
  if (device == nullptr) return k_no_such_device;
  post_on_board({BoardEvent::Kind::k_action, recovery.action, uuid_text(*device)});
  return done(true);
}

std::string Server::describe() const {
  const Time now = std::chrono::steady_clock::now();
  std::size_t busy = 0;
  for (const auto& client : clients_) busy += client->work.is_busy(now) ? 1U : 0U;
  std::string text = fault_ ? "FAULT" : "ACTIVE";
  text += ", " + std::to_string(clients_.size()) + " clients, " + std::to_string(context_count()) +
          " contexts, " + std::to_string(busy) + " busy";
  if (hangs_) text += ", hangs";
  if (ordered_.stopped) text += ", stopped";
  return text;
}

std::string Server::obey(std::string_view line) {
  const auto parsed = parse_order(line);
  if (!parsed) return k_order_usage;
  const auto carry_out = [this](const auto& it) -> std::string {
    using Kind = std::decay_t<decltype(it)>;
    if constexpr (std::is_same_v<Kind, order::Fault>) {
      return obey_about_client(it.client, it.kind);
    } else if constexpr (std::is_same_v<Kind, order::Hang>) {
      return obey_about_client(it.client, Kernel::k_hang);
    } else if constexpr (std::is_same_v<Kind, order::Die>) {
      if (it.signal == 0) ::_exit(it.status);
      (void)std::signal(it.signal, SIG_DFL);  // whatever a sanitizer makes of it
      (void)::kill(::getpid(), it.signal);
    } else if constexpr (std::is_same_v<Kind, order::Answer>) {
      ordered_.stopped = !it.again;
    } else if constexpr (std::is_same_v<Kind, order::Garble>) {
      ordered_.garbled_lines = it.lines;
    } else if constexpr (std::is_same_v<Kind, order::Lose>) {
      ordered_.lost_lines = it.lines;
    } else if constexpr (std::is_same_v<Kind, order::Slow>) {
      ordered_.slow = it.each;
    } else if constexpr (std::is_same_v<Kind, order::OutOfMemory>) {
      ordered_.out_of_memory = it.on;
    } else if constexpr (std::is_same_v<Kind, order::DropXids>) {
      post_on_board({BoardEvent::Kind::k_drop, it.count, {}});
    } else if constexpr (std::is_same_v<Kind, order::Set>) {
      steering_.set(it.key, it.value);
    } else if constexpr (std::is_same_v<Kind, order::Status>) {
      return describe();
    } else {
      return post_about_device(it);
    }
    return done(true);
  };
  return std::visit(carry_out, *parsed);
}

}  // namespace mps::sim
