// What the desk cannot see at the door: clients that came past it, clients with more memory than
// they were granted, and programs that use a device without MPS. Pure: what is there now goes in,
// what is new and what is over comes out.
//
// Nothing is found at one look: a process may be between being let in and being listed, or about to
// end. It counts when two looks in a row agree, and is over when two in a row do not see it.
//
// Threading: one thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "device/gpu_process.h"
#include "policy/generation.h"
#include "share/records.h"

namespace mps::admission {

enum class FindingKind { client_without_slot, client_over_memory, outside_mps };
const char* to_string(FindingKind kind);  // "client_without_slot", …

struct AuditedClient {
  share::Process process{};
  std::string name{};
  uid_t uid = 0;
  bool has_slot = false;
  bool adopted = false;  // was there before this supervisor: never ended
};

struct AuditedInstance {
  std::string id{};
  std::string device{};  // UUID
  bool gated = false;    // there are slots
  bool ready = false;
  // Its list of clients is whole: it is neither starting nor coming back from something.
  bool settled = false;
  std::vector<AuditedClient> clients{};
};

struct AuditedSlot {
  share::Slot slot{};
  std::string subject{};      // the namespace
  std::string description{};  // for people: "pod web-0, container cuda"
};

// With a compute context on a device.
struct AuditedProcess {
  share::Process process{};
  std::string name{};
  uid_t uid = 0;
  std::optional<std::uint64_t> memory_mebibytes{};
  bool mps_client = false;  // of whatever MPS server
  bool is_ours = false;     // MPS's own, or a program of the supervisor's
};

struct AuditedDevice {
  std::string uuid{};
  bool known = false;  // else nothing is to be concluded from what is missing here
  std::vector<AuditedProcess> processes{};
};

struct AuditInput {
  std::vector<AuditedInstance> instances{};
  std::vector<AuditedSlot> slots{};
  std::vector<AuditedDevice> devices{};
};

struct Finding {
  FindingKind kind{};
  std::string instance{};
  std::string device{};  // UUID
  share::Process process{};
  std::string name{};
  uid_t uid = 0;
  std::string subject{};      // the namespace; empty: not known
  std::string description{};  // for people: "pod web-0, container cuda"
  bool adopted = false;       // never ended
  std::uint64_t used = 0;     // MiB, of client_over_memory
  std::uint64_t granted = 0;  // likewise
};

// What NVML says a process has is more than what MPS's limit counts: parts of the context, of
// kernels' code and of the server's memory for it are beside it, some hundred MiB, and more with
// more libraries. Who is reported, or ended, is to have allocated past its limit beyond doubt.
constexpr std::uint64_t k_memory_tolerance = 1024;  // MiB; a tenth of the limit where that is more
std::uint64_t tolerated_memory(std::uint64_t granted_mebibytes);

// Whether what NVML says of a device's processes can be used, and why not; empty: it can.
// `node_pids`: we are in the node's own pid namespace. Elsewhere NVML's pids may be strangers,
// unless a process of ours, which is known to use the device, is among them.
std::string why_unusable(const device::DeviceProcesses& told, const std::set<pid_t>& ours,
                         bool node_pids);

// "process 12 (train) of uid 1000, team-a, pod web-0,"; what it does: "is a client of …".
std::string describe_process(const Finding& finding);
std::string describe(const Finding& finding);

// Whether the policy of the finding's namespace has it ended. Never without a namespace, who was
// adopted, or what MPS cannot end.
bool to_be_ended(const Finding& finding, const policy::Generation& policies);

class Audit {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr std::size_t k_most = 256;  // remembered, of each kind on each device
  static constexpr std::chrono::seconds k_ask_again{60};

  struct News {
    std::vector<Finding> begun{};
    std::vector<Finding> over{};
  };
  News look(const AuditInput& input);

  // Its namespace and description, found out after it had begun.
  void know(const Finding& finding);
  // Who is to be ended now: those that last, and again after a while.
  std::vector<Finding> to_end(const policy::Generation& policies, TimePoint now);

  struct Count {
    std::uint64_t standing = 0;  // now
    std::uint64_t found = 0;     // in all
  };
  // By device and kind, for all devices that were ever looked at.
  [[nodiscard]] const std::map<std::string, std::map<FindingKind, Count>>& counts() const {
    return counts_;
  }

 private:
  // The instance (outside MPS: the device), pid and start ticks.
  using Key = std::tuple<FindingKind, std::string, pid_t, std::uint64_t>;
  struct Kept {
    Finding finding{};
    unsigned missed = 0;  // looks since it was seen
    bool begun = false;
    std::optional<TimePoint> asked{};  // for its end
  };

  static Key key_of(const Finding& finding);
  void note(Finding finding, News& news);
  void note_missing(const AuditInput& input, News& news);

  std::map<Key, Kept> kept_;
  std::map<std::string, std::map<FindingKind, Count>> counts_;
  std::map<std::string, std::map<FindingKind, std::size_t>> remembered_;  // by device
};

}  // namespace mps::admission
