#include "app/fd_store.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "app/notify.h"
#include "base/text.h"

namespace mps::app {

namespace {

constexpr std::string_view k_kind = "gate/";
constexpr int k_first_passed = 3;            // SD_LISTEN_FDS_START
constexpr std::size_t k_most_passed = 4096;  // more than that we never store

bool is_allowed(char c) {
  return c >= ' ' && c < '\x7f' && c != ':';
}

std::vector<std::string> split_names(std::string_view text) {
  std::vector<std::string> names;
  for (;;) {
    const auto end = text.find(':');
    names.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return names;
    text.remove_prefix(end + 1);
  }
}

ino_t inode_of(int descriptor) {
  struct stat there {};
  return ::fstat(descriptor, &there) == 0 ? there.st_ino : 0;
}

// open() runs before there are threads.
const char* variable(const char* name) {
  return std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
}

std::vector<FdStore::Stored> take_passed(const std::vector<std::string>& names) {
  std::vector<FdStore::Stored> passed;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const int descriptor = k_first_passed + static_cast<int>(i);
    const auto shown = printable(names[i], k_longest_stored_name);
    if (::fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
      spdlog::warn("LISTEN_FDS: descriptor {} ({}) is not open", descriptor, shown);
      continue;
    }
    UniqueFd socket(descriptor);
    if (auto name = parse_stored_name(names[i])) {
      passed.push_back({std::move(*name), std::move(socket)});
    } else {
      spdlog::warn("LISTEN_FDS: descriptor {} ({}) is no socket of a share: closed", descriptor,
                   shown);
    }
  }
  return passed;
}

}  // namespace

// ---- pure ----

std::optional<std::string> stored_name(const StoredName& name) {
  auto text = std::string(k_kind) + name.instance + "/" + name.share;
  if (parse_stored_name(text) != name) return std::nullopt;
  return text;
}

std::optional<StoredName> parse_stored_name(std::string_view text) {
  if (text.size() > k_longest_stored_name || !text.starts_with(k_kind) ||
      !std::all_of(text.begin(), text.end(), is_allowed)) {
    return std::nullopt;
  }
  text.remove_prefix(k_kind.size());
  const auto middle = text.find('/');
  if (middle == std::string_view::npos || text.find('/', middle + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  StoredName name{std::string(text.substr(0, middle)), std::string(text.substr(middle + 1))};
  if (name.instance.empty() || name.share.empty()) return std::nullopt;
  return name;
}

Result<std::vector<std::string>> parse_passed(const PassedVariables& variables, pid_t us) {
  if (variables.pid == nullptr || variables.count == nullptr) return std::vector<std::string>{};
  const auto pid = parse_number<pid_t>(variables.pid);
  if (!pid) return Error{"LISTEN_PID is no process: \"" + printable(variables.pid, 40) + "\""};
  if (*pid != us) return std::vector<std::string>{};
  const auto count = parse_number<std::size_t>(variables.count);
  if (!count || *count > k_most_passed) {
    return Error{"LISTEN_FDS is no number up to " + std::to_string(k_most_passed) + ": \"" +
                 printable(variables.count, 40) + "\""};
  }
  if (*count == 0) return std::vector<std::string>{};
  auto names = split_names(variables.names == nullptr ? "" : variables.names);
  if (names.size() != *count) {
    return Error{"LISTEN_FDNAMES has " + std::to_string(names.size()) + " names for " +
                 std::to_string(*count) + " descriptors"};
  }
  return names;
}

// ---- the store ----

FdStore::FdStore(std::vector<Stored> passed, Tell tell) : tell_(std::move(tell)) {
  for (auto& [name, socket] : passed) {
    const bool several = stored_.contains(name);
    stored_[name] = several ? 0 : inode_of(socket.get());
    passed_.emplace(name, std::move(socket));
  }
}

std::shared_ptr<FdStore> FdStore::open() {
  const auto names = parse_passed(
      {variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES")}, ::getpid());
  if (!names)
    spdlog::warn("what the service manager passed is left alone: {}", names.error().message);
  std::vector<Stored> passed;
  if (names) passed = take_passed(*names);
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) {
    ::unsetenv(name);  // NOLINT(concurrency-mt-unsafe)
  }
  return std::make_shared<FdStore>(std::move(passed), notify);
}

bool FdStore::remove(const StoredName& name) {
  const auto text = stored_name(name);
  if (text && !tell_("FDSTOREREMOVE=1\nFDNAME=" + *text, -1)) return false;
  stored_.erase(name);
  return true;
}

UniqueFd FdStore::take(const std::string& instance, const std::string& share,
                       const std::function<bool(int descriptor)>& fits) {
  const StoredName name{instance, share};
  UniqueFd found;
  const auto [first, last] = passed_.equal_range(name);
  for (auto one = first; one != last; ++one) {
    if (!found && fits(one->second.get())) found = std::move(one->second);
  }
  const bool any = first != last;
  passed_.erase(first, last);
  if (any && !found && !remove(name)) stored_[name] = 0;
  return found;
}

bool FdStore::keep(const std::string& instance, const std::string& share, int socket) {
  const StoredName name{instance, share};
  const auto inode = inode_of(socket);
  const auto text = stored_name(name);
  if (inode == 0 || !text) return false;
  passed_.erase(name);
  const auto known = stored_.find(name);
  if (known != stored_.end() && known->second == inode) return true;
  // Also where we know of none: what was passed may have been unreadable.
  if (known != stored_.end()) known->second = 0;
  if (!remove(name)) return false;
  if (stored_.size() >= k_most_stored) return false;
  if (!tell_("FDSTORE=1\nFDNAME=" + *text, socket)) return false;
  stored_[name] = inode;
  return true;
}

void FdStore::drop(const std::string& instance, const std::string& share) {
  const StoredName name{instance, share};
  passed_.erase(name);
  if (stored_.contains(name)) remove(name);
}

void FdStore::drop_unclaimed_unless(
    const std::function<bool(const std::string& instance, const std::string& share)>& wanted) {
  for (auto one = passed_.begin(); one != passed_.end();) {
    const auto name = one->first;
    if (wanted(name.instance, name.share)) {
      ++one;
      continue;
    }
    one = passed_.erase(one);
    if (stored_.contains(name)) remove(name);
    spdlog::info("a stored socket of {}, share {}, is of no use any more: closed",
                 printable(name.instance), printable(name.share));
  }
}

}  // namespace mps::app
