// What the supervisor and a gate say to each other: one SOCK_SEQPACKET message each, descriptors
// beside it. Both run on one machine, so numbers are in its byte order; the first message of a
// connection is the gate's `welcome` with its protocol, as a gate may be older than its supervisor.
// Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mps::gate {

inline constexpr std::uint16_t k_protocol = 1;
inline constexpr std::size_t k_share_limit = 63;    // bytes of a share's id
inline constexpr std::size_t k_bytes_limit = 1024;  // of `bytes`
inline constexpr std::size_t k_message_limit = 64 + k_share_limit + k_bytes_limit;

enum class Kind : std::uint16_t {
  // the supervisor says
  setup = 1,  // bytes: the greeting, and a client's opening (pack())
  daemon,     // it serves; beside it its pipe directory (O_PATH)
  no_daemon,  // who was let in waits
  listen,     // share; beside it a listening socket
  unlisten,   // share: who waits there is refused, nobody new comes
  let_in,     // peer
  refuse,     // peer
  end,        // refuse who waits, and end the process; who is inside loses the connection
  // the gate says
  welcome = 100,  // code: k_protocol; pid
  listening,      // share; beside it its listening socket
  is_inside,      // peer, share, pid, uid, gid; beside it the pidfd
  listed,         // all of the two above have been said
  ask,            // peer, share, pid, uid, gid; beside it the pidfd, opened before the greeting
  gone,           // peer: it was asked for, and has left
  inside,         // peer: the daemon has it
  not_entered,    // peer: let in, but the daemon did not take it; code: errno. It goes on waiting
  left,           // peer: it was inside
  refused,        // pid, uid, share; code: Refusal; peer: how many since the last of these
};

// Why the gate refused without asking.
enum class Refusal : std::uint32_t {
  unknown_opening = 1,  // no client of this driver's libcuda: a command, a server, another library
  wrong_process = 2,    // who speaks is not who connected
  had_descriptors = 3,  // or was cut off
  ended = 4,            // the process
};
const char* to_string(Refusal refusal);

struct Message {
  Kind kind{};
  std::uint64_t peer = 0;  // never used twice while the gate lives
  std::int32_t pid = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t code = 0;
  std::string_view share{};
  std::string_view bytes{};
};

using Buffer = std::array<char, k_message_limit>;

// Into `buffer`, which the result refers to. Longer texts than allowed are cut: callers check.
std::span<const char> encode(const Message& message, Buffer& buffer);
// `data` is referred to. An Error: not a message of this protocol.
Result<Message> decode(std::span<const char> data);

// Some short texts in one: at most 16 of at most 255 bytes.
std::string pack(const std::vector<std::string>& texts);
Result<std::vector<std::string>> unpack(std::string_view packed);

}  // namespace mps::gate
