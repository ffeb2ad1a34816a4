#include "process/socket_peers.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "process/proc.h"
#include "process/socket_diag.h"

namespace mps::process {
namespace {

// A tenant's process may have a million descriptors; it shall not hold us up with them.
constexpr std::size_t k_descriptor_limit = 65536;
constexpr std::size_t k_namespace_limit = 1024;

std::string read_link(const std::string& path) {
  std::array<char, 64> target{};
  const auto length = ::readlink(path.c_str(), target.data(), target.size());
  return length <= 0 ? std::string{} : std::string(target.data(), static_cast<std::size_t>(length));
}

// "socket:[1234]", "net:[4026531840]": the number.
std::optional<std::uint64_t> inode_in(std::string_view link, std::string_view kind) {
  if (!link.starts_with(kind) || !link.ends_with(']')) return std::nullopt;
  link.remove_prefix(kind.size());
  link.remove_suffix(1);
  return parse_number<std::uint64_t>(link);
}

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

// Calls visit(descriptor, inode) for the sockets of a process, until it returns false.
template <typename Visitor>
Result<void> for_each_socket(pid_t pid, Visitor visit) {
  const auto path = "/proc/" + std::to_string(pid) + "/fd";
  const std::unique_ptr<DIR, CloseFolder> folder(::opendir(path.c_str()));
  if (!folder) return Error::from_errno("open " + path, errno);
  for (std::size_t count = 0; count < k_descriptor_limit; ++count) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): safe as long as nobody else has this DIR
    const auto* entry = ::readdir(folder.get());
    if (entry == nullptr) break;
    const std::string_view name(static_cast<const char*>(entry->d_name));
    const auto descriptor = parse_number<int>(name);
    if (!descriptor) continue;
    const auto inode = inode_in(read_link(path + "/" + std::string(name)), "socket:[");
    if (inode && !visit(*descriptor, *inode)) break;
  }
  return {};
}

using Descriptors = std::map<std::uint64_t, int>;  // by inode

Result<Descriptors> sockets_of(pid_t pid) {
  Descriptors sockets;
  const auto listed = for_each_socket(pid, [&](int descriptor, std::uint64_t inode) {
    sockets.emplace(inode, descriptor);
    return true;
  });
  if (!listed) return listed.error();
  return sockets;
}

// Moves what `found` explains out of `unexplained` and adds the peers among it.
void collect(const std::vector<UnixSocket>& found, std::string_view path, Descriptors& unexplained,
             std::vector<SocketPeer>& peers) {
  for (const auto& socket : found) {
    const auto own = unexplained.find(socket.inode);
    if (own == unexplained.end()) continue;
    if (socket.name == path && socket.peer_inode != 0) {
      peers.push_back({.descriptor = own->second, .peer_inode = socket.peer_inode});
    }
    unexplained.erase(own);
  }
}

std::string net_namespace_file(pid_t pid) {
  return "/proc/" + std::to_string(pid) + "/ns/net";
}

// Connections from other network namespaces. A namespace that we cannot enter stays unseen.
void collect_elsewhere(const std::vector<pid_t>& pids, std::string_view path,
                       Descriptors& unexplained, std::vector<SocketPeer>& peers) {
  std::set<std::uint64_t> seen;
  if (const auto own = inode_in(read_link("/proc/self/ns/net"), "net:[")) seen.insert(*own);
  for (const auto pid : pids) {
    if (unexplained.empty() || seen.size() > k_namespace_limit) return;
    const auto file = net_namespace_file(pid);
    const auto space = inode_in(read_link(file), "net:[");
    if (!space || !seen.insert(*space).second) continue;
    const auto sockets = unix_sockets_of(file);
    if (sockets) collect(*sockets, path, unexplained, peers);
  }
}

void name_owners(const std::vector<pid_t>& pids, std::vector<SocketPeer>& peers) {
  std::map<std::uint64_t, SocketPeer*> wanted;
  for (auto& peer : peers) wanted.emplace(peer.peer_inode, &peer);
  const Proc proc;
  for (const auto pid : pids) {
    if (wanted.empty()) return;
    // Whose descriptors we may not see, or who is gone by now, is nobody that we can name.
    static_cast<void>(for_each_socket(pid, [&](int, std::uint64_t inode) {
      const auto found = wanted.find(inode);
      if (found == wanted.end()) return true;
      const auto status = proc.stat(pid);
      found->second->pid = pid;
      found->second->name = status ? status->name : std::string{};
      wanted.erase(found);
      return !wanted.empty();
    }));
  }
}

}  // namespace

Result<std::vector<SocketPeer>> peers_of(pid_t pid, const std::filesystem::path& path) {
  std::vector<SocketPeer> peers;
  // First the descriptors, then the kernel's list: what was connected in between has no descriptor
  // here and is left out, rather than half known.
  auto unexplained = sockets_of(pid);
  if (!unexplained) return unexplained.error();
  const auto sockets = unix_sockets();
  if (!sockets) return sockets.error();
  collect(*sockets, path.native(), *unexplained, peers);
  auto pids = Proc{}.pids();
  if (!unexplained->empty()) collect_elsewhere(pids, path.native(), *unexplained, peers);
  // The process itself comes last: it is who is at the other end only if nobody else is.
  std::erase(pids, pid);
  pids.push_back(pid);
  name_owners(pids, peers);
  std::sort(peers.begin(), peers.end(),
            [](const SocketPeer& a, const SocketPeer& b) { return a.descriptor < b.descriptor; });
  return peers;
}

}  // namespace mps::process
