#include "process/mounts.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>

#include "base/text.h"
#include "base/unique_fd.h"
#include "process/pid_space.h"
#include "process/proc.h"

namespace mps::process {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t k_text_limit = 8 * std::size_t{1024} * 1024;

bool is_octal(char digit) {
  return digit >= '0' && digit <= '7';
}

// Blanks, tabs, newlines and backslashes stand there as "\040".
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      const int value = (text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0');
      plain += static_cast<char>(value);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// `path` is `parent` or lies in it.
bool is_within(std::string_view path, std::string_view parent) {
  if (parent == "/") return path.starts_with('/');
  return path.starts_with(parent) && (path.size() == parent.size() || path[parent.size()] == '/');
}

// None: gone, or empty as a process's that ends; an errno of anything else is in `trouble`.
std::optional<std::string> read_all(const fs::path& path, int& trouble) {
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 65536> buffer{};
  ssize_t got = file ? 1 : -1;
  while (got > 0) {
    got = ::read(file.get(), buffer.data(), buffer.size());
    if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > k_text_limit) {
      trouble = EFBIG;
      return std::nullopt;
    }
  }
  if (got < 0 && errno != ENOENT && errno != ESRCH && errno != EINVAL) trouble = errno;
  if (got < 0 || text.empty()) return std::nullopt;
  return text;
}

std::string link_of(const fs::path& path) {
  std::error_code error;
  const auto link = fs::read_symlink(path, error);
  return error ? std::string() : link.string();
}

// The mounts of each namespace; none where some may be hidden.
std::optional<std::vector<std::vector<Mount>>> all_mounts(const fs::path& proc) {
  if (!in_node_pid_namespace(proc)) return std::nullopt;
  std::vector<std::vector<Mount>> all;
  std::set<std::string> seen;
  for (const auto pid : Proc(proc).pids()) {
    const auto folder = proc / std::to_string(pid);
    const auto name = link_of(folder / "ns/mnt");
    if (!name.empty() && seen.contains(name)) continue;
    int trouble = 0;
    const auto text = read_all(folder / "mountinfo", trouble);
    if (trouble != 0) return std::nullopt;
    if (!text) continue;  // it has ended
    if (!name.empty()) seen.insert(name);
    all.push_back(parse_mounts(*text));
  }
  return all;
}

Mounted judge(const std::vector<std::vector<Mount>>& all, const FolderPlace& folder,
              const FolderPlace& base) {
  const bool found = std::any_of(all.begin(), all.end(), [&](const auto& mounts) {
    return std::any_of(mounts.begin(), mounts.end(),
                       [&](const Mount& mount) { return shows(mount, folder, base); });
  });
  return found ? Mounted::yes : Mounted::no;
}

}  // namespace

std::vector<Mount> parse_mounts(std::string_view mountinfo) {
  std::vector<Mount> mounts;
  for (const auto line : split_lines(mountinfo)) {
    const auto words = split_whitespace(line);
    if (words.size() < 5 || words[2].find(':') == std::string_view::npos) continue;
    mounts.push_back({std::string(words[2]), unescape(words[3]), unescape(words[4])});
  }
  return mounts;
}

std::optional<FolderPlace> place_of(const std::vector<Mount>& mounts, const fs::path& folder) {
  const auto path = folder.string();
  const Mount* over = nullptr;
  for (const auto& mount : mounts) {
    // Of those at the same point the last one is what is seen.
    const bool nearer = over == nullptr || mount.point.size() >= over->point.size();
    if (nearer && is_within(path, mount.point)) over = &mount;
  }
  if (over == nullptr) return std::nullopt;
  const auto below = over->point == "/" ? path.substr(1) : path.substr(over->point.size());
  const auto inner = (fs::path(over->root) / fs::path(below).relative_path()).lexically_normal();
  auto text = inner.string();
  if (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return FolderPlace{over->device, text};
}

bool shows(const Mount& mount, const FolderPlace& folder, const FolderPlace& base) {
  if (mount.device != folder.device) return false;
  if (is_within(mount.root, folder.path)) return true;
  const bool below_base = is_within(mount.root, base.path) && mount.root != base.path;
  return below_base && is_within(folder.path, mount.root);
}

std::vector<Mounted> who_is_mounted(const fs::path& base, const std::vector<fs::path>& folders,
                                    const fs::path& proc) {
  std::vector<Mounted> answers(folders.size(), Mounted::unknown);
  const auto all = all_mounts(proc);
  int trouble = 0;
  const auto own = read_all(proc / "self/mountinfo", trouble);
  if (!all || !own) return answers;
  const auto here = parse_mounts(*own);
  std::error_code error;
  const auto base_place = place_of(here, fs::canonical(base, error));
  if (error || !base_place) return answers;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    const auto place = place_of(here, fs::canonical(folders[i], error));
    if (!error && place) answers[i] = judge(*all, *place, *base_place);
  }
  return answers;
}

}  // namespace mps::process
