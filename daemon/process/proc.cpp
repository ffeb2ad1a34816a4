#include "process/proc.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "base/text.h"
#include "base/unique_fd.h"

namespace mps::process {
namespace {

constexpr std::size_t k_small = 16 * std::size_t{1024};
constexpr std::size_t k_command_line_limit = 64 * std::size_t{1024};
constexpr std::size_t k_environment_limit = 256 * std::size_t{1024};

// Fields of /proc/<pid>/stat after the name, counted from 0.
enum StatField : std::size_t {
  k_state = 0,
  k_parent = 1,
  k_utime = 11,
  k_stime = 12,
  k_start = 19
};

std::optional<std::string> read_file(const std::filesystem::path& path, std::size_t limit) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return std::nullopt;
  std::string text;
  std::array<char, 4096> chunk{};
  while (text.size() < limit) {
    const auto wanted = std::min(chunk.size(), limit - text.size());
    const auto got = ::read(file.get(), chunk.data(), wanted);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) break;
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
  return text;
}

std::vector<pid_t> numbered_entries(const std::filesystem::path& folder) {
  std::vector<pid_t> numbers;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  while (!error && entry != std::filesystem::directory_iterator{}) {
    const auto number = parse_number<pid_t>(entry->path().filename().native());
    if (number && *number > 0) numbers.push_back(*number);
    entry.increment(error);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// Calls `visit` with each NUL-terminated piece. A last one without its NUL counts only where the
// text is whole: at a limit it would be half a variable.
template <typename Visitor>
void for_each_piece(std::string_view text, bool whole, Visitor visit) {
  while (!text.empty()) {
    const auto end = text.find('\0');
    if (end == std::string_view::npos && !whole) return;
    visit(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

}  // namespace

std::optional<ProcStat> parse_stat(std::string_view text) {
  const auto open = text.find('(');
  const auto close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return std::nullopt;
  }
  const auto fields = split_whitespace(text.substr(close + 1));
  if (fields.size() <= k_start || fields[k_state].size() != 1) return std::nullopt;
  const auto pid = parse_number<pid_t>(trim(text.substr(0, open)));
  const auto parent = parse_number<pid_t>(fields[k_parent]);
  const auto user = parse_number<std::uint64_t>(fields[k_utime]);
  const auto system = parse_number<std::uint64_t>(fields[k_stime]);
  const auto start = parse_number<std::uint64_t>(fields[k_start]);
  if (!pid || !parent || !user || !system || !start) return std::nullopt;
  return ProcStat{.pid = *pid,
                  .parent = *parent,
                  .name = std::string(text.substr(open + 1, close - open - 1)),
                  .state = fields[k_state].front(),
                  .start_time = *start,
                  .cpu_time = *user + *system};
}

std::optional<std::string> Proc::read(pid_t pid, std::string_view file, std::size_t limit) const {
  return read_file(root_ / std::to_string(pid) / file, limit);
}

std::optional<ProcStat> Proc::stat(pid_t pid) const {
  const auto text = read(pid, "stat", k_small);
  return text ? parse_stat(*text) : std::nullopt;
}

std::vector<pid_t> Proc::pids() const {
  return numbered_entries(root_);
}

std::vector<std::string> Proc::command_line(pid_t pid) const {
  std::vector<std::string> arguments;
  const auto text = read(pid, "cmdline", k_command_line_limit);
  if (!text) return arguments;
  for_each_piece(*text, true, [&](std::string_view piece) { arguments.emplace_back(piece); });
  return arguments;
}

std::optional<std::string> Proc::environment(pid_t pid, std::string_view key) const {
  const auto text = read(pid, "environ", k_environment_limit);
  if (!text || key.empty()) return std::nullopt;
  std::optional<std::string> value;
  for_each_piece(*text, text->size() < k_environment_limit, [&](std::string_view piece) {
    // The first one counts, as for getenv().
    if (value || !piece.starts_with(key) || piece.substr(key.size(), 1) != "=") return;
    value = piece.substr(key.size() + 1);
  });
  return value;
}

std::vector<pid_t> Proc::children(pid_t pid) const {
  std::vector<pid_t> found;
  const auto tasks = root_ / std::to_string(pid) / "task";
  bool listed = false;
  for (const auto task : numbered_entries(tasks)) {
    const auto text = read_file(tasks / std::to_string(task) / "children", k_environment_limit);
    if (!text) continue;
    listed = true;
    for (const auto word : split_whitespace(*text)) {
      if (const auto child = parse_number<pid_t>(word)) found.push_back(*child);
    }
  }
  if (listed) return found;
  // A kernel without CONFIG_PROC_CHILDREN: everybody's parent says it too, more slowly.
  for (const auto candidate : pids()) {
    const auto status = stat(candidate);
    if (status && status->parent == pid) found.push_back(candidate);
  }
  return found;
}

std::optional<uid_t> Proc::uid(pid_t pid) const {
  const auto text = read(pid, "status", k_small);
  if (!text) return std::nullopt;
  for (const auto line : split_lines(*text)) {
    const auto words = split_whitespace(line);
    if (words.size() >= 3 && words[0] == "Uid:") return parse_number<uid_t>(words[2]);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> Proc::resident_bytes(pid_t pid) const {
  const auto text = read(pid, "statm", k_small);
  if (!text) return std::nullopt;
  const auto words = split_whitespace(*text);
  const auto pages = words.size() < 2 ? std::nullopt : parse_number<std::uint64_t>(words[1]);
  if (!pages) return std::nullopt;
  return *pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

bool is_running(const Proc& proc, pid_t pid, std::uint64_t start_time) {
  const auto status = proc.stat(pid);
  return status && status->start_time == start_time && status->state != 'Z' && status->state != 'X';
}

}  // namespace mps::process
