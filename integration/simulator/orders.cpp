#include "orders.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstddef>

#include "values.h"
#include "wire.h"

namespace mps::sim {

const char* const k_order_usage =
    "refused: fault PID [bad-address|trap], hang PID, die [signal N|status N], stop answering, "
    "answer again, garble N, lose N, slow MS, out-of-memory on|off, xid N [UUID], drop-xid N, "
    "recovery none|reset|reboot|drain-p2p|drain-and-reset|N [UUID], set KEY VALUE, status";

namespace {

using Words = std::vector<std::string>;
constexpr std::size_t k_longest_order = 512;
constexpr std::size_t k_most_peers = 32;

// In the order of nvmlDeviceGpuRecoveryAction_t.
constexpr std::array<std::string_view, 5> k_actions{"none", "reset", "reboot", "drain-p2p",
                                                    "drain-and-reset"};

std::optional<int> number(const Words& words, std::size_t index) {
  if (index >= words.size()) return std::nullopt;
  int value = 0;
  const char* end = words[index].data() + words[index].size();
  const auto [rest, error] = std::from_chars(words[index].data(), end, value);
  if (error != std::errc{} || rest != end || value < 0) return std::nullopt;
  return value;
}

std::string word(const Words& words, std::size_t index) {
  return index < words.size() ? words[index] : std::string();
}

std::optional<SimOrder> parse_fault(const Words& words) {
  const auto client = number(words, 1);
  const std::string kind = words.size() > 2 ? words[2] : "bad-address";
  if (!client || words.size() > 3 || (kind != "bad-address" && kind != "trap")) return std::nullopt;
  return order::Fault{*client, kind == "trap" ? Kernel::k_trap : Kernel::k_bad_address};
}

std::optional<SimOrder> parse_die(const Words& words) {
  if (words.size() == 1) return order::Die{SIGKILL, 0};
  const auto value = number(words, 2);
  if (!value || words.size() != 3) return std::nullopt;
  if (words[1] == "signal") return order::Die{*value, 0};
  if (words[1] == "status") return order::Die{0, *value};
  return std::nullopt;
}

std::optional<SimOrder> parse_recovery(const Words& words) {
  if (words.size() > 3) return std::nullopt;
  if (const auto value = number(words, 1)) {
    return order::Recovery{static_cast<unsigned>(*value), word(words, 2)};
  }
  for (unsigned action = 0; action < k_actions.size(); ++action) {
    if (word(words, 1) == k_actions.at(action)) return order::Recovery{action, word(words, 2)};
  }
  return std::nullopt;
}

std::optional<SimOrder> parse_counted(const Words& words) {
  const auto value = number(words, 1);
  if (!value) return std::nullopt;
  const auto count = static_cast<unsigned>(*value);
  if (words[0] == "xid" && words.size() <= 3) return order::Xid{count, word(words, 2)};
  if (words.size() != 2) return std::nullopt;
  if (words[0] == "hang") return order::Hang{*value};
  if (words[0] == "garble") return order::Garble{count};
  if (words[0] == "lose") return order::Lose{count};
  if (words[0] == "slow") return order::Slow{std::chrono::milliseconds(*value)};
  if (words[0] == "drop-xid") return order::DropXids{count};
  return std::nullopt;
}

UniqueFd listen_abstractly(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() + 1 > sizeof address.sun_path) return UniqueFd{};
  name.copy(address.sun_path + 1, name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(socket.get(), k_most_peers) != 0) {
    return UniqueFd{};
  }
  return socket;
}

}  // namespace

std::optional<SimOrder> parse_order(std::string_view line) {
  const Words parts = words(line);
  const std::string name = word(parts, 0);
  if (name == "fault") return parse_fault(parts);
  if (name == "die") return parse_die(parts);
  if (name == "recovery") return parse_recovery(parts);
  if (name == "set" && parts.size() == 3) return order::Set{parts[1], parts[2]};
  if (parts == Words{"status"}) return order::Status{};
  if (parts == Words{"stop", "answering"}) return order::Answer{false};
  if (parts == Words{"answer", "again"}) return order::Answer{true};
  if (parts == Words{"out-of-memory", "on"}) return order::OutOfMemory{true};
  if (parts == Words{"out-of-memory", "off"}) return order::OutOfMemory{false};
  return parts.empty() ? std::nullopt : parse_counted(parts);
}

OrderDesk::OrderDesk()
    : listener_(listen_abstractly("mps-sim-server-" + std::to_string(::getpid()))) {}

void OrderDesk::poll_for(std::vector<pollfd>& polled) const {
  polled.push_back({listener_.get(), POLLIN, 0});
  for (const UniqueFd& peer : peers_) polled.push_back({peer.get(), POLLIN, 0});
}

void OrderDesk::handle(const pollfd* polled, const Handler& handler) {
  for (std::size_t index = 0; index < peers_.size(); ++index) {
    if (polled[index + 1].revents == 0) continue;
    const auto message = receive(peers_[index].get(), k_longest_order);
    if (!message || !send_bytes(peers_[index].get(), handler(message->bytes))) {
      peers_[index].reset();
    }
  }
  std::erase_if(peers_, [](const UniqueFd& peer) { return !peer; });
  if (polled[0].revents == 0) return;
  UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (peer && peers_.size() < k_most_peers) peers_.push_back(std::move(peer));
}

}  // namespace mps::sim
