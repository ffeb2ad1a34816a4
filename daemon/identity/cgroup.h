// /proc/<pid>/cgroup -> the cgroup that counts. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mps::identity {

inline constexpr std::size_t k_cgroup_file_limit = 64 * std::size_t{1024};
inline constexpr std::size_t k_cgroup_path_limit = 4096;

enum class Hierarchy { unified, systemd, pids };  // v2; v1's name=systemd; v1's pids

struct CgroupPath {
  Hierarchy hierarchy = Hierarchy::unified;
  // Seen from inside a cgroup namespace, others' paths begin with as many "/..": the path is then
  // below that ancestor of our own root. 0: the path is whole.
  std::size_t levels_up = 0;
  std::string path = "/";  // without those

  bool operator==(const CgroupPath&) const = default;
};
std::string to_string(const CgroupPath& cgroup);  // as /proc has it: "/../../kubepods/pod…"

// The line that counts: v1's name=systemd, else pids, else v2's, passing over those that only say
// "/" (a hierarchy that nobody sorts processes in).
Result<CgroupPath> cgroup_that_counts(std::string_view text);

// What a reader in a cgroup namespace sees, whose own root is the node's cgroup `root`, as the node
// sees it: with "/a/b", "/../x" is "/a/x", and "/y" is "/a/b/y". Unchanged where `root` is "/", or
// not as deep as the path goes up.
CgroupPath made_whole(CgroupPath cgroup, std::string_view root);

}  // namespace mps::identity
