// Who is at the other end of a process's connected unix sockets: how the holder of the command
// session, or the silent peer that blocks the daemon, gets a name. From sock_diag(7) (inode of
// each peer) and /proc/*/fd (whose descriptor that inode is).
//
// An accepted socket belongs to the network namespace of the one who connected, and sock_diag shows
// only its own: for peers in pods the other namespaces are asked too (CAP_SYS_ADMIN).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace mps::process {

struct SocketPeer {
  int descriptor = -1;  // the process's own of the connection: newer ones are mostly higher
  unsigned long peer_inode = 0;
  pid_t pid = 0;         // 0: nobody that we can see (another pid namespace, or no permission)
  std::string name{};    // comm
  std::size_t path = 0;  // index in the paths that were asked for
};

struct SocketPeers {
  std::vector<SocketPeer> peers{};  // oldest descriptor first
  // False: something was not looked at (the deadline, a limit, a namespace that cannot be entered),
  // so there may be more peers, or a peer without a name may have one.
  bool complete = true;
};

// The peers of the unix sockets of `pid` that are bound to one of `paths` (connections that were
// accepted on it). Costs a walk over /proc: only for when something is wrong. It blocks, until the
// deadline at most. A path is compared as text with what was given to bind(). Of several holders of
// a peer's socket (a fork) the lowest pid is named, `pid` itself only if there is no other.
// Stateless, any thread.
Result<SocketPeers> peers_of(pid_t pid, std::span<const std::filesystem::path> paths,
                             std::chrono::steady_clock::time_point deadline);

}  // namespace mps::process
