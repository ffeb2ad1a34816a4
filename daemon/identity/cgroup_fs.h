// The directories of cgroups: which one a path is, who may have made it, who is still in it.
// Threading: a value, any thread. Every look is bounded; it reads afresh each time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "identity/cgroup.h"

namespace mps::identity {

// One cgroup and no later one of its name.
struct Cgroup {
  CgroupPath at{};
  std::uint64_t inode = 0;  // 0: its directory cannot be seen

  bool operator==(const Cgroup&) const = default;
};

class CgroupFs {
 public:
  // `root`: where the node's cgroups are mounted, all of them, not those of one cgroup namespace.
  // `owner`: who may make cgroups that are believed; other than root only for tests.
  explicit CgroupFs(std::filesystem::path root = "/sys/fs/cgroup", uid_t owner = 0);

  // None for one that is above what can be seen.
  [[nodiscard]] std::optional<std::filesystem::path> directory(const CgroupPath& cgroup) const;
  [[nodiscard]] Cgroup find(const CgroupPath& cgroup) const;

  // Whether root alone could have given this cgroup its name: all directories above it are root's
  // and nobody else's to write. Its own directory may be another's (a unit with Delegate= and
  // User=) unless `itself`. An Error says which is not: "/sys/fs/cgroup/x is not root's alone".
  [[nodiscard]] Result<void> named_by_root(const CgroupPath& cgroup, bool itself = false) const;

  // Whether there are processes in it or below it. False too where it is gone, another one has its
  // name now, or it is none (an empty path); true where that cannot be told. v1: beyond 1024
  // cgroups it cannot.
  [[nodiscard]] bool populated(const Cgroup& cgroup) const;

 private:
  [[nodiscard]] std::filesystem::path hierarchy_root(Hierarchy hierarchy) const;
  std::filesystem::path root_;
  uid_t owner_;
};

// The path of the cgroup namespace's own root among all the node's cgroups, for made_whole():
// the directory below `all` that is the same as `own`. None where it is not found among the first
// 16384 directories.
std::optional<std::string> find_own_root(const std::filesystem::path& own,
                                         const std::filesystem::path& all);

}  // namespace mps::identity
