#include "identity/cgroup_fs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <deque>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace mps::identity {
namespace {

constexpr std::size_t k_events_limit = 4096;
constexpr std::size_t k_procs_directories = 1024;
constexpr std::size_t k_walk_directories = 16384;

std::optional<struct stat> status_of(const std::filesystem::path& directory) {
  struct stat status {};
  if (::lstat(directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return std::nullopt;
  return status;
}

// One byte of it is enough; nothing is held up by a file with a million pids.
bool has_content(const std::filesystem::path& file) {
  const UniqueFd descriptor(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  // Gone meanwhile: nobody is in it. Anything else is no reason to think so.
  if (!descriptor) return errno != ENOENT;
  char first = 0;
  const auto count = ::read(descriptor.get(), &first, 1);
  return count > 0 || (count < 0 && errno != ENODEV);
}

// Calls `visit` for `top` and the directories below it, breadth first, until it returns true.
// False: all were seen, and none was it; true also beyond `limit` of them.
template <typename Visitor>
bool walk(const std::filesystem::path& top, std::size_t limit, Visitor visit) {
  std::deque<std::filesystem::path> waiting{top};
  std::size_t seen = 1;
  while (!waiting.empty()) {
    const auto directory = std::move(waiting.front());
    waiting.pop_front();
    if (visit(directory)) return true;
    std::error_code error;
    std::filesystem::directory_iterator entry(directory, error);
    while (!error && entry != std::filesystem::directory_iterator{}) {
      std::error_code ignored;
      const auto type = entry->symlink_status(ignored).type();
      if (type == std::filesystem::file_type::directory) {
        if (++seen > limit) return true;
        waiting.push_back(entry->path());
      }
      entry.increment(error);
    }
  }
  return false;
}

}  // namespace

CgroupFs::CgroupFs(std::filesystem::path root, uid_t owner)
    : root_(std::move(root)), owner_(owner) {}

std::filesystem::path CgroupFs::hierarchy_root(Hierarchy hierarchy) const {
  if (hierarchy == Hierarchy::systemd) return root_ / "systemd";
  if (hierarchy == Hierarchy::pids) return root_ / "pids";
  // v1 beside it: then v2 has a folder of its own.
  struct stat status {};
  const auto file = root_ / "cgroup.controllers";
  return ::lstat(file.c_str(), &status) == 0 ? root_ : root_ / "unified";
}

std::optional<std::filesystem::path> CgroupFs::directory(const CgroupPath& cgroup) const {
  if (cgroup.levels_up > 0) return std::nullopt;
  auto path = hierarchy_root(cgroup.hierarchy).string();
  if (cgroup.path != "/") path += cgroup.path;
  return std::filesystem::path(std::move(path));
}

Cgroup CgroupFs::find(const CgroupPath& cgroup) const {
  const auto path = directory(cgroup);
  const auto status = path ? status_of(*path) : std::nullopt;
  return {.at = cgroup, .inode = status ? status->st_ino : 0};
}

Result<void> CgroupFs::named_by_root(const CgroupPath& cgroup, bool itself) const {
  const auto path = directory(cgroup);
  if (!path) return Error{"its directory cannot be seen from the supervisor's cgroup namespace"};
  const auto top = hierarchy_root(cgroup.hierarchy);
  for (auto at = *path; at.has_relative_path(); at = at.parent_path()) {
    const auto status = status_of(at);
    if (!status) return Error{printable(at.string()) + " is not there"};
    const bool looked_at = itself || at != *path;
    const bool open = (status->st_mode & (S_IWGRP | S_IWOTH)) != 0;
    if (looked_at && (status->st_uid != owner_ || open)) {
      return Error{printable(at.string()) + " is not root's alone"};
    }
    if (at == top) return {};
  }
  return {};
}

bool CgroupFs::populated(const Cgroup& cgroup) const {
  if (cgroup.at.path.empty()) return false;
  const auto path = directory(cgroup.at);
  if (!path || cgroup.inode == 0) return true;
  const auto status = status_of(*path);
  if (!status) return errno != ENOENT && errno != ENOTDIR;
  if (status->st_ino != cgroup.inode) return false;
  if (cgroup.at.hierarchy == Hierarchy::unified) {
    const auto events = read_file(*path / "cgroup.events", k_events_limit);
    // The root has no such file, and is never empty.
    if (!events || events->empty()) return status_of(*path).has_value();
    for (const auto line : split_lines(*events)) {
      if (line == "populated 0") return false;
    }
    return true;
  }
  return walk(*path, k_procs_directories,
              [](const auto& directory) { return has_content(directory / "cgroup.procs"); });
}

std::optional<std::string> find_own_root(const std::filesystem::path& own,
                                         const std::filesystem::path& all) {
  const auto wanted = status_of(own);
  if (!wanted) return std::nullopt;
  std::optional<std::string> found;
  walk(all, k_walk_directories, [&](const std::filesystem::path& directory) {
    const auto status = status_of(directory);
    if (!status || status->st_ino != wanted->st_ino || status->st_dev != wanted->st_dev) {
      return false;
    }
    const auto below = directory.string().substr(all.string().size());
    found = below.empty() ? "/" : below;
    return true;
  });
  return found;
}

}  // namespace mps::identity
