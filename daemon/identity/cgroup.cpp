#include "identity/cgroup.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/text.h"
#include "identity/path_parts.h"

namespace mps::identity {
namespace {

constexpr std::string_view k_removed = " (deleted)";

// "<id>:<controllers>:<path>"; the path may have ":" in it.
struct Line {
  std::string_view id;
  std::string_view controllers;
  std::string_view path;
};

std::optional<Line> parse_line(std::string_view line) {
  const auto first = line.find(':');
  if (first == std::string_view::npos) return std::nullopt;
  const auto second = line.find(':', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  return Line{line.substr(0, first), line.substr(first + 1, second - first - 1),
              line.substr(second + 1)};
}

bool has_controller(std::string_view controllers, std::string_view wanted) {
  while (true) {
    const auto comma = controllers.find(',');
    if (controllers.substr(0, comma) == wanted) return true;
    if (comma == std::string_view::npos) return false;
    controllers.remove_prefix(comma + 1);
  }
}

std::optional<Hierarchy> hierarchy_of(const Line& line) {
  if (line.id == "0" && line.controllers.empty()) return Hierarchy::unified;
  if (has_controller(line.controllers, "name=systemd")) return Hierarchy::systemd;
  if (has_controller(line.controllers, "pids")) return Hierarchy::pids;
  return std::nullopt;
}

Result<CgroupPath> parse_path(Hierarchy hierarchy, std::string_view path) {
  const auto refuse = [&](std::string_view why) {
    return Error{"its cgroup " + printable(path) + std::string(why)};
  };
  if (path.size() > k_cgroup_path_limit) return refuse(" has too long a path");
  if (!path.starts_with('/') || path.find('\0') != std::string_view::npos) {
    return refuse(" is no path");
  }
  if (path.ends_with(k_removed)) return refuse(" has been removed");
  CgroupPath result{.hierarchy = hierarchy, .levels_up = 0, .path = ""};
  for (const auto& part : components(path)) {
    if (part.name == ".." && result.path.empty()) {
      ++result.levels_up;
    } else if (part.name == ".." || part.name == ".") {
      return refuse(" is no path");
    } else {
      result.path.append("/").append(part.name);
    }
  }
  if (result.path.empty()) result.path = "/";
  return result;
}

struct Lines {
  std::optional<CgroupPath> unified;
  std::optional<CgroupPath> systemd;
  std::optional<CgroupPath> pids;

  std::optional<CgroupPath>& of(Hierarchy hierarchy) {
    if (hierarchy == Hierarchy::unified) return unified;
    return hierarchy == Hierarchy::systemd ? systemd : pids;
  }
};

Result<Lines> parse_lines(std::string_view text) {
  Lines lines;
  for (const auto raw : split_lines(text)) {
    const auto line = parse_line(raw);
    const auto hierarchy = line ? hierarchy_of(*line) : std::nullopt;
    if (!hierarchy) continue;
    auto path = parse_path(*hierarchy, line->path);
    if (!path) return path.error();
    auto& slot = lines.of(*hierarchy);
    // The kernel says each once: a second one would be somebody's forgery.
    if (slot) return Error{"its cgroup file names one hierarchy twice"};
    slot = std::move(*path);
  }
  return lines;
}

bool says_something(const CgroupPath& cgroup) {
  return cgroup.path != "/" || cgroup.levels_up > 0;
}

}  // namespace

std::string to_string(const CgroupPath& cgroup) {
  std::string text;
  for (std::size_t level = 0; level < cgroup.levels_up; ++level) text += "/..";
  return cgroup.path == "/" && !text.empty() ? text : text + cgroup.path;
}

Result<CgroupPath> cgroup_that_counts(std::string_view text) {
  if (text.size() > k_cgroup_file_limit) return Error{"its cgroup file is too long"};
  auto lines = parse_lines(text);
  if (!lines) return lines.error();
  const std::array<std::optional<CgroupPath>*, 3> in_order{&lines->systemd, &lines->pids,
                                                           &lines->unified};
  for (auto* line : in_order) {
    if (*line && says_something(**line)) return std::move(**line);
  }
  for (auto* line : in_order) {
    if (*line) return std::move(**line);
  }
  return Error{"its cgroup file has no line of systemd, pids or cgroup v2"};
}

CgroupPath made_whole(CgroupPath cgroup, std::string_view root) {
  const auto above = components(root);
  if (above.empty() || cgroup.levels_up > above.size()) return cgroup;
  const auto kept = above.size() - cgroup.levels_up;
  auto path = kept == 0 ? std::string() : std::string(root.substr(0, above[kept - 1].end));
  if (cgroup.path != "/") path += cgroup.path;
  return {.hierarchy = cgroup.hierarchy, .levels_up = 0, .path = path.empty() ? "/" : path};
}

}  // namespace mps::identity
