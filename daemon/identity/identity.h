// A peer of a socket -> who it is: the namespace that policies are for, and the container that an
// admission is for.
//
// A cgroup's name counts only where the runtime's record of that container names that cgroup, or
// root alone can have made it; who cannot be told is Unidentified, and never somebody's default.
//
// Threading: any thread, several at once. It blocks on /proc, cgroups and records (small files,
// each with a limit), so it belongs on a pool's thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "identity/cgroup.h"
#include "identity/cgroup_fs.h"
#include "identity/place.h"
#include "identity/runtime_record.h"

namespace mps::identity {

struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  // Borrowed. -1: none; that the pid was given to another before the call then goes unnoticed.
  int pidfd = -1;
};

struct Identity {
  std::string subject{};    // "team-a", "docker:web", "unit:cron.service", "user:alice"
  std::string container{};  // what an admission is for: a cgroup's path and inode, "user:1000"
  Cgroup cgroup{};          // empty path: none of its own ("user:1000"), nothing to wait for
  Runtime runtime = Runtime::unknown;
  std::string container_id{};
  std::string pod_uid{};
  std::string pod{};
  std::string container_name{};        // in the pod; Docker's; the unit; the session
  std::optional<Labels> labels{};      // the pod's; none: not known
  std::optional<std::string> owner{};  // of the pod; none: not known
  uid_t uid = 0;                       // the peer's

  bool operator==(const Identity&) const = default;
};

struct Unidentified {
  std::string reason;
  bool operator==(const Unidentified&) const = default;
};

using Answer = std::variant<Identity, Unidentified>;

// The login of a uid; none where there is none.
using LoginNames = std::function<std::optional<std::string>(uid_t)>;
std::optional<std::string> login_of(uid_t uid);  // getpwuid_r()

struct ResolverSettings {
  std::filesystem::path proc = "/proc";
  CgroupFs cgroups{};
  // Where our cgroup namespace's root is among the node's cgroups (find_own_root()).
  std::string own_root = "/";
  RecordPlaces records{};
  // JSON: {"<container id or pod uid>": {"namespace": "team-a", "pod": "web-0", "container": "c",
  // "labels": {…}, "owner": "…"}}; for nodes whose runtime keeps no such record, and for tests. It
  // is asked first, and counts only for cgroups that root alone can have named. Empty: none.
  std::filesystem::path overrides{};
  LoginNames login = login_of;
  std::size_t cache_limit = 4096;
};

class Resolver {
 public:
  explicit Resolver(ResolverSettings settings = {});
  Resolver(Resolver&&) noexcept;
  Resolver& operator=(Resolver&&) noexcept;
  ~Resolver();

  // Reads the peer's cgroup between two looks at whether the process that connected still lives.
  [[nodiscard]] Answer identify(const Peer& peer) const;

  // See CgroupFs::populated(); false for one without a path.
  [[nodiscard]] bool populated(const Cgroup& cgroup) const;

  // Positive answers are kept by cgroup, at most `cache_limit`, the oldest out first; this drops
  // those whose cgroup is gone, and says how many that were.
  std::size_t forget_dead() const;
  [[nodiscard]] std::size_t remembered() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mps::identity
