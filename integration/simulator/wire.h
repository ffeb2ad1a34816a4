// What control daemon, front-end, servers and clients say to each other on their SOCK_SEQPACKET
// sockets, as seen from outside on the real programs (535 and 550 say the same). A connection to
// `control` opens with the daemon's greeting, the peer's credentials, and four bytes that say what
// the peer is. Between server and client the real protocol is unknown: client_link.h is our own.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"

namespace mps::sim {

inline constexpr std::string_view k_greeting{"OUTBHELL\0", 9};
inline constexpr std::string_view k_credentials{"OUTBCRED\0", 9};
inline constexpr std::string_view k_descriptor{"OUTBCUFD\0", 9};
inline constexpr std::size_t k_limited_devices = 32;
inline constexpr std::size_t k_registration_size = 516;  // a number and the name of a shared file

enum class Peer : std::uint32_t {
  k_server_ready = 1,
  k_client = 2,
  k_debuggee = 3,
  k_front_end = 4,
  k_server_failed = 10
};

// Control daemon to server.
enum class Order : std::uint32_t {
  k_new_client = 2,          // followed by k_descriptor with one descriptor
  k_shut_down = 5,           // 550: answered by the number of workers; 535: followed by a 1
  k_client_list = 6,         // answered by a count, then each pid
  k_device_client_list = 7,  // answered by a count, then each device
  k_get_percentage = 8,      // answered by a double
  k_set_percentage = 9,      // followed by a double
  k_get_pinned_limit = 11,   // followed by the ordinal, answered by bytes
  k_set_pinned_limit = 12,   // followed by the ordinal and bytes
  k_terminate_client = 13,   // followed by the pid, answered by a CUDA result
  k_processes = 14,          // answered by a count and rows; then the daemon sends a 0
  k_set_priority = 15,  // followed by the priority: set_default_client_priority reaches a server
  k_status = 17         // answered by 0 (FAULT) or 1 (ACTIVE)
};

// A row of k_processes, 40 bytes.
struct ProcessRow {
  std::int32_t pid = 0;
  std::uint32_t reserved[3] = {};
  std::array<std::uint8_t, 16> uuid{};
  std::uint32_t context = 0;
  std::uint32_t is_mig = 0;
};
static_assert(sizeof(ProcessRow) == 40);

struct Message {
  std::string bytes;
  std::optional<ucred> credentials;
  UniqueFd descriptor;
};

// Sending fails when the peer is gone; receiving also at the end of the
// connection, where errno is 0.
bool send_bytes(int socket, std::string_view bytes);
bool send_as_self(int socket, std::string_view bytes);  // with pid, uid, gid attached
bool send_descriptor(int socket, std::string_view bytes, int descriptor);
std::optional<Message> receive(int socket, std::size_t limit);

template <typename Value>
bool send_value(int socket, const Value& value) {
  return send_bytes(socket, {reinterpret_cast<const char*>(&value), sizeof value});
}

template <typename Value>
std::optional<Value> receive_value(int socket) {
  const auto message = receive(socket, sizeof(Value));
  if (!message || message->bytes.size() != sizeof(Value)) return std::nullopt;
  Value value{};
  message->bytes.copy(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

void pass_credentials(int socket);
// An invalid descriptor, with errno, where nobody listens or the path is too long.
UniqueFd connect_to(const std::string& path);
UniqueFd listen_at(const std::string& path);

}  // namespace mps::sim
