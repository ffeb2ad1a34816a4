// The listening sockets of shares in the file descriptor store of systemd (FDSTORE=1 in
// sd_notify(3)), so that programs which start while gate and supervisor are dead wait in a backlog
// that neither of them holds, instead of finding nobody and running without MPS. The next
// supervisor gets them back as LISTEN_FDS (sd_listen_fds_with_names(3)). Without a manager nothing
// is stored.
//
// Threading: the supervisor's executor; open() before there are threads.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::app {

// ---- pure ----

struct StoredName {
  std::string instance;
  std::string share;
  auto operator<=>(const StoredName&) const = default;
};

// All names come back in one variable, LISTEN_FDNAMES, and no program starts with one of more than
// 128 KiB (MAX_ARG_STRLEN): so many sockets, with names of so many bytes, are stored at most.
// FileDescriptorStoreMax= of packaging/mps-supervisor.service is the same number.
constexpr std::size_t k_most_stored = 1024;
constexpr std::size_t k_longest_stored_name = 120;

// "gate/gpu0.shared/open". systemd allows 255 printable ASCII characters without ':'. None where it
// would be longer than ours may be, or has such a character.
std::optional<std::string> stored_name(const StoredName& name);
std::optional<StoredName> parse_stored_name(std::string_view text);

struct PassedVariables {  // null: not there
  const char* pid = nullptr;
  const char* count = nullptr;
  const char* names = nullptr;
};

// The names of the descriptors 3, 4, … that were passed to the process `us`; none where they were
// meant for another one.
Result<std::vector<std::string>> parse_passed(const PassedVariables& variables, pid_t us);

// ---- the store ----

class FdStore {
 public:
  // To the manager; false: not now.
  using Tell = std::function<bool(std::string_view state, int descriptor)>;
  struct Stored {
    StoredName name;
    UniqueFd socket;
  };

  FdStore(std::vector<Stored> passed, Tell tell);

  // With what this process was started with, which is closed at exec from now on; the variables are
  // taken out of the environment. What is wrong with them is logged, and nothing else.
  static std::shared_ptr<FdStore> open();

  // The one of these that was passed and `fits`. Others of that name are closed and removed.
  UniqueFd take(const std::string& instance, const std::string& share,
                const std::function<bool(int descriptor)>& fits);
  // In the place of the one of that name. False: it is not stored, and to be tried again later.
  bool keep(const std::string& instance, const std::string& share, int socket);
  void drop(const std::string& instance, const std::string& share);
  // What was passed, and neither taken nor kept.
  void drop_unclaimed_unless(
      const std::function<bool(const std::string& instance, const std::string& share)>& wanted);

 private:
  bool remove(const StoredName& name);

  Tell tell_;
  std::multimap<StoredName, UniqueFd> passed_;
  std::map<StoredName, ino_t> stored_;  // 0: it is not known which, or several
};

}  // namespace mps::app
