// A record's linux.cgroupsPath against the cgroup that a process is in.
#include "identity/runtime_record.h"

namespace mps::identity {
namespace {

constexpr std::string_view k_slice = ".slice";

// "a-b.slice" is "/a.slice/a-b.slice"; "-.slice" is the root.
std::optional<std::string> expand_slice(std::string_view slice) {
  if (slice == "-.slice") return std::string();
  if (!slice.ends_with(k_slice) || slice.find('/') != std::string_view::npos) return std::nullopt;
  const auto stem = slice.substr(0, slice.size() - k_slice.size());
  if (stem.empty() || stem.starts_with('-') || stem.ends_with('-') ||
      stem.find("--") != std::string_view::npos) {
    return std::nullopt;
  }
  std::string path;
  for (auto dash = stem.find('-'); dash != std::string_view::npos;
       dash = stem.find('-', dash + 1)) {
    path.append("/").append(stem.substr(0, dash)).append(k_slice);
  }
  return path.append("/").append(slice);
}

// As runtimes name the scope that they ask systemd for.
std::string scope_name(std::string_view prefix, std::string_view name) {
  if (name.ends_with(k_slice)) return std::string(name);
  const auto start = prefix.empty() ? std::string() : std::string(prefix) + "-";
  return start + std::string(name) + ".scope";
}

std::optional<std::string> from_systemd(std::string_view text) {
  const auto first = text.find(':');
  const auto second = text.find(':', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto slice = text.substr(0, first);
  const auto name = text.substr(second + 1);
  if (name.empty() || text.find(':', second + 1) != std::string_view::npos) return std::nullopt;
  auto path = expand_slice(slice.empty() ? "system.slice" : slice);
  if (!path) return std::nullopt;
  return path->append("/").append(scope_name(text.substr(first + 1, second - first - 1), name));
}

}  // namespace

std::optional<std::string> cgroup_named_by(std::string_view cgroups_path) {
  if (cgroups_path.size() > k_cgroup_path_limit) return std::nullopt;
  if (!cgroups_path.starts_with('/')) return from_systemd(cgroups_path);
  if (cgroups_path.find("/..") != std::string_view::npos) return std::nullopt;
  while (cgroups_path.ends_with('/')) cgroups_path.remove_suffix(1);
  if (cgroups_path.empty()) return std::nullopt;
  return std::string(cgroups_path);
}

bool confirms(const Record& record, const CgroupPath& cgroup, bool in_runtime_unit) {
  const auto named = cgroup_named_by(record.cgroups_path);
  if (named && cgroup.levels_up == 0 && *named == cgroup.path) return true;
  // What is above our own root's ancestor is hidden, and is ours too: nobody else makes cgroups
  // there, so the part that shows is the end of the whole path.
  if (named && cgroup.levels_up > 0 && cgroup.path != "/" && named->ends_with(cgroup.path)) {
    return true;
  }
  // systemd's form given to the cgroupfs driver is a plain name below the runtime's own unit.
  return in_runtime_unit && !record.cgroups_path.empty() &&
         cgroup.path.ends_with("/" + record.cgroups_path);
}

}  // namespace mps::identity
