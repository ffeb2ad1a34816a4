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
constexpr std::size_t k_look_at_clock = 256;

using Deadline = std::chrono::steady_clock::time_point;

bool is_over(Deadline deadline) {
  return std::chrono::steady_clock::now() >= deadline;
}

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

// Calls visit(descriptor, inode) for the sockets of a process, until it returns false. False where
// not all were looked at for want of time or because there are too many.
template <typename Visitor>
Result<bool> for_each_socket(pid_t pid, Deadline deadline, Visitor visit) {
  const auto path = "/proc/" + std::to_string(pid) + "/fd";
  const std::unique_ptr<DIR, CloseFolder> folder(::opendir(path.c_str()));
  if (!folder) return Error::from_errno("open " + path, errno);
  for (std::size_t count = 0; count < k_descriptor_limit; ++count) {
    if (count % k_look_at_clock == 0 && is_over(deadline)) return false;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): safe as long as nobody else has this DIR
    const auto* entry = ::readdir(folder.get());
    if (entry == nullptr) return true;
    const std::string_view name(static_cast<const char*>(entry->d_name));
    const auto descriptor = parse_number<int>(name);
    if (!descriptor) continue;
    const auto inode = inode_in(read_link(path + "/" + std::string(name)), "socket:[");
    if (inode && !visit(*descriptor, *inode)) return true;
  }
  return false;
}

using Descriptors = std::map<std::uint64_t, int>;  // by inode

// One look at one process.
class Look {
 public:
  Look(std::span<const std::filesystem::path> paths, Deadline deadline)
      : paths_(paths), deadline_(deadline) {}

  Result<SocketPeers> at(pid_t pid);

 private:
  Result<void> list_descriptors(pid_t pid);
  void collect(const std::vector<UnixSocket>& sockets);
  void collect_elsewhere(const std::vector<pid_t>& pids);
  void name_owners(const std::vector<pid_t>& pids);
  bool name_from(pid_t pid, std::map<std::uint64_t, SocketPeer*>& wanted) const;
  [[nodiscard]] SocketFilter wanted() const {
    return [this](const UnixSocket& socket) { return unexplained_.contains(socket.inode); };
  }

  std::span<const std::filesystem::path> paths_;
  Deadline deadline_;
  Descriptors unexplained_;
  SocketPeers found_;
};

Result<void> Look::list_descriptors(pid_t pid) {
  const auto whole = for_each_socket(pid, deadline_, [&](int descriptor, std::uint64_t inode) {
    unexplained_.emplace(inode, descriptor);
    return true;
  });
  if (!whole) return whole.error();
  if (!*whole) found_.complete = false;
  return {};
}

// Takes what `sockets` explain out of the unexplained and adds the peers among it.
void Look::collect(const std::vector<UnixSocket>& sockets) {
  for (const auto& socket : sockets) {
    const auto own = unexplained_.find(socket.inode);
    if (own == unexplained_.end()) continue;
    const auto path = std::find_if(paths_.begin(), paths_.end(), [&](const auto& candidate) {
      return candidate.native() == socket.name;
    });
    if (path != paths_.end() && socket.peer_inode != 0) {
      found_.peers.push_back({.descriptor = own->second,
                              .peer_inode = socket.peer_inode,
                              .path = static_cast<std::size_t>(path - paths_.begin())});
    }
    unexplained_.erase(own);
  }
}

std::string net_namespace_file(pid_t pid) {
  return "/proc/" + std::to_string(pid) + "/ns/net";
}

// Connections from other network namespaces.
void Look::collect_elsewhere(const std::vector<pid_t>& pids) {
  bool cut = false;
  std::set<std::uint64_t> seen;
  if (const auto own = inode_in(read_link("/proc/self/ns/net"), "net:[")) seen.insert(*own);
  for (const auto pid : pids) {
    if (unexplained_.empty()) return;
    if (seen.size() > k_namespace_limit || is_over(deadline_)) {
      cut = true;
      break;
    }
    const auto file = net_namespace_file(pid);
    const auto space = inode_in(read_link(file), "net:[");
    if (!space || !seen.insert(*space).second) continue;
    const auto sockets = unix_sockets_of(file, wanted(), deadline_);
    if (sockets) collect(*sockets);
    // One whose only process has just gone has no sockets any more, either.
    if (!sockets && ::access(file.c_str(), F_OK) == 0) cut = true;
  }
  if (cut && !unexplained_.empty()) found_.complete = false;
}

// Whether all of the process's descriptors were looked at, as far as they matter.
bool Look::name_from(pid_t pid, std::map<std::uint64_t, SocketPeer*>& wanted) const {
  const auto whole = for_each_socket(pid, deadline_, [&](int, std::uint64_t inode) {
    const auto found = wanted.find(inode);
    if (found == wanted.end()) return true;
    const auto status = Proc{}.stat(pid);
    found->second->pid = pid;
    found->second->name = status ? status->name : std::string{};
    wanted.erase(found);
    return !wanted.empty();
  });
  // Whose descriptors we may not see, or who is gone by now, is nobody that we can name.
  return !whole || *whole;
}

void Look::name_owners(const std::vector<pid_t>& pids) {
  std::map<std::uint64_t, SocketPeer*> wanted;
  for (auto& peer : found_.peers) wanted.emplace(peer.peer_inode, &peer);
  bool cut = false;
  for (const auto pid : pids) {
    if (wanted.empty()) return;
    if (is_over(deadline_)) {
      cut = true;
      break;
    }
    if (!name_from(pid, wanted)) cut = true;
  }
  if (cut && !wanted.empty()) found_.complete = false;
}

Result<SocketPeers> Look::at(pid_t pid) {
  // First the descriptors, then the kernel's list: what was connected in between has no descriptor
  // here and is left out, rather than half known.
  if (auto listed = list_descriptors(pid); !listed) return listed.error();
  const auto sockets = unix_sockets(wanted(), deadline_);
  if (!sockets) return sockets.error();
  collect(*sockets);
  auto pids = Proc{}.pids();
  collect_elsewhere(pids);
  // The process itself comes last: it is who is at the other end only if nobody else is.
  std::erase(pids, pid);
  pids.push_back(pid);
  name_owners(pids);
  std::sort(found_.peers.begin(), found_.peers.end(),
            [](const auto& a, const auto& b) { return a.descriptor < b.descriptor; });
  return std::move(found_);
}

}  // namespace

Result<SocketPeers> peers_of(pid_t pid, std::span<const std::filesystem::path> paths,
                             std::chrono::steady_clock::time_point deadline) {
  return Look(paths, deadline).at(pid);
}

}  // namespace mps::process
