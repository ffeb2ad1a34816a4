// The unix sockets of a network namespace, from the kernel's NETLINK_SOCK_DIAG (sock_diag(7)).
// Internal to this room. Threading: stateless, any thread; bounded by the deadline, past which it
// is an Error ("sock_diag: Connection timed out").
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace mps::process {

struct UnixSocket {
  std::uint32_t inode = 0;
  std::uint32_t peer_inode = 0;  // 0: not connected
  std::string name{};            // what was given to bind(); empty: not bound
};

// Pure: adds the sockets of one datagram of the kernel's answer. True when the answer is complete.
Result<bool> parse_unix_sockets(std::span<const std::byte> datagram, std::vector<UnixSocket>& out);

using LookClock = std::chrono::steady_clock;
// Which sockets to keep: a tenant may have a million others. Called on the thread that asks.
using SocketFilter = std::function<bool(const UnixSocket&)>;

// The wanted unix sockets of our own network namespace.
Result<std::vector<UnixSocket>> unix_sockets(const SocketFilter& wanted,
                                             LookClock::time_point deadline);
// Of the namespace that `file` (/proc/<pid>/ns/net) stands for; needs CAP_SYS_ADMIN. Runs on a
// thread of its own that is entered there and ends with it.
Result<std::vector<UnixSocket>> unix_sockets_of(const std::filesystem::path& file,
                                                const SocketFilter& wanted,
                                                LookClock::time_point deadline);

}  // namespace mps::process
