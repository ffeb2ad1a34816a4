// What outlives a supervisor: shares, admissions, slots, and the changes of these. Plain values.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "base/result.h"

namespace mps::share {

using AdmissionId = std::uint64_t;  // ids are never used twice; 0: none
using SlotId = std::uint64_t;

struct Process {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  // field 22 of /proc/<pid>/stat
  bool operator==(const Process&) const = default;
};

// What one client process may have.
struct Grant {
  double active_thread_percentage = 100.0;  // one decimal; 100: no limit
  std::optional<std::uint64_t> pinned_memory_mebibytes{};
  bool below_normal = false;  // its priority
  bool operator==(const Grant&) const = default;
};

std::string describe(const Grant& grant);  // "25 % of the SMs, 12Gi"

// A share made on demand; the open ones need no record.
struct Share {
  std::uint64_t number = 0;  // never used twice
  std::string id{};
  std::string instance{};
  std::string subject{};  // whose it is; empty: anybody's
  Grant grant{};
  std::int64_t made_at = 0;                  // Unix time, ms
  std::optional<std::int64_t> expires_at{};  // likewise
  bool closing = false;                      // no newcomers: it ends with its last client
  bool operator==(const Share&) const = default;
};

// A container's permission to have clients on a share.
struct Admission {
  AdmissionId id = 0;
  std::string share{};
  std::string container{};  // who it is for
  std::string instance{};
  std::string device{};   // UUID
  std::string subject{};  // the namespace
  std::string cgroup{};   // to find it again, in the caller's words; empty: it has none of its own
  std::string description{};  // for people: "pod web-0, container cuda"
  Grant grant{};              // of its latest client
  // Who that is, for who asks when it is gone; empty: it has none, or it is not known.
  std::string pod{};
  std::string container_name{};
  std::string owner{};  // the pod's: "Deployment/web"
  bool operator==(const Admission&) const = default;
};

// One process that has been let in. It ends with that process and never before.
struct Slot {
  SlotId id = 0;
  AdmissionId admission = 0;  // 0: adopted, a client that nothing explains
  std::string instance{};
  std::string device{};
  Process process{};
  uid_t uid = 0;
  Grant grant{};
  std::string command{};   // its command line, cut; empty: not known
  std::int64_t since = 0;  // when it was let in: Unix time, ms; 0: not known, or not here
  bool operator==(const Slot&) const = default;
};

struct Counters {
  std::uint64_t share = 1;  // the next
  AdmissionId admission = 1;
  SlotId slot = 1;
  bool operator==(const Counters&) const = default;
};

struct ShareMade {
  Share share;
};  // or changed, where there is one of that number
struct ShareEnded {
  std::uint64_t number = 0;
};
struct AdmissionMade {
  Admission admission;
};  // or changed, where there is one of that id
struct AdmissionEnded {
  AdmissionId id = 0;
};
struct SlotMade {
  Slot slot;
};
struct SlotEnded {
  SlotId id = 0;
  std::int64_t at = 0;  // Unix time, ms; 0: not known, or not here
};

using Change = std::variant<Counters, ShareMade, ShareEnded, AdmissionMade, AdmissionEnded,
                            SlotMade, SlotEnded>;

// What all changes so far come to.
struct State {
  Counters counters{};
  std::map<std::uint64_t, Share> shares{};
  std::map<AdmissionId, Admission> admissions{};
  std::map<SlotId, Slot> slots{};

  // An Error, and nothing has changed, where it does not fit what is there. A slot has its
  // instance and device from its admission. Counters only go up.
  Result<void> apply(const Change& change);
  bool operator==(const State&) const = default;
};

}  // namespace mps::share
