// A cgroup's path -> whose it is, as far as names go. Pure.
//
// Names alone prove nothing: whoever may make cgroups makes them with any name. What is outermost
// counts, since what is below a container, a unit or a user's slice may have been made by its
// owner; the rest is for the runtime's record (runtime_record.h) and for the directories' owners
// (cgroup_fs.h) to confirm.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <variant>

namespace mps::identity {

enum class Runtime { unknown, containerd, crio, docker, podman };
const char* to_string(Runtime runtime);

struct ContainerPlace {
  Runtime runtime = Runtime::unknown;  // by the name; a hint
  std::string container_id{};          // 64 hex digits; empty: a container's, but not said whose
  std::string pod_uid{};               // empty: no pod; static pods have 32 hex digits without "-"
  std::string cgroup{};                // the container's own; what is below it is cut off
  bool in_runtime_unit = false;        // below containerd.service or the like
  bool operator==(const ContainerPlace&) const = default;
};

struct UnitPlace {
  std::string unit{};    // "cron.service", "dev-disk\x2dby.service": escapes are part of the name
  std::string cgroup{};  // the unit's own
  bool operator==(const UnitPlace&) const = default;
};

struct SessionPlace {
  uid_t uid = 0;         // of the slice: not that of the process, which may be a subordinate one
  std::string unit{};    // "session-3.scope", "user@1000.service"; empty: in the slice itself
  std::string app{};     // the user's own unit below it; any user gives it any name
  std::string cgroup{};  // of `unit`, else of the slice
  bool operator==(const SessionPlace&) const = default;
};

struct NoPlace {
  bool operator==(const NoPlace&) const = default;
};

using Place = std::variant<ContainerPlace, UnitPlace, SessionPlace, NoPlace>;

// Never anchored at the start: there may be anything above, as with Kubernetes in a container.
Place place_of(std::string_view path);

}  // namespace mps::identity
