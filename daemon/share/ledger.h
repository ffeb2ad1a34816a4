// Who has been let in, who waits, and what that comes to: every decision about who may use a GPU
// is made here. Pure: the time is given, and what follows is returned.
//
// Rules:
//  * quotas are a namespace's, on one device, over all its instances there. A client without a
//    percentage of its own counts as 100 %;
//  * MPS's limit of clients is an instance's. A device's memory (less what is reserved) and its
//    threads are shared by its instances, times the settings' overcommit. Only what is limited
//    counts there: a client with 100 % has no limit and counts as nothing against the threads, one
//    without a memory limit as nothing against the memory;
//  * a client that could not be let in even if it were alone is refused at once;
//  * who waits stands in the line of its instance and namespace, first come first served; the lines
//    of a device take turns, one client each. Room goes to who waits before anybody new sees it;
//  * once 16 others have taken of what a line's first lacks and only the device can give (memory,
//    threads, the uid), the room is kept for it from the next end of a slot on: others may take
//    what leaves enough for it. That is for 10 s at most and for one at a time on a device, and
//    when it was in vain there is none for 30 s, so that nobody can shut a device by asking for
//    what does not come;
//  * a process that has a slot on a share gets the same slot for further connections, past all
//    lines and quotas. The slot ends with the process, whatever its connections do.
//
// Sums are kept in tenths of a percent and MiB, so they are exact. A call costs the same however
// many slots there are; an end of a slot looks at the first of each line that waits on the device.
//
// Threading: one thread. Breaks of the contract (an id that waits already) throw logic_error.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "policy/policy.h"
#include "share/records.h"
#include "share/refusal.h"

namespace mps::share {

using TimePoint = std::chrono::steady_clock::time_point;
using RequestId = std::uint64_t;

struct Request {
  RequestId id = 0;  // the caller's, never used twice
  std::string share{};
  std::string instance{};
  std::string container{};
  std::string subject{};
  std::string cgroup{};       // see Admission
  std::string description{};  // likewise
  std::string pod{};
  std::string container_name{};
  std::string owner{};
  std::string command{};  // see Slot
  Process process{};
  uid_t uid = 0;
  Grant grant{};
  policy::Quota quota{};
  bool may_wait = true;
  TimePoint deadline{};
};

struct LetIn {
  Grant grant{};
  SlotId slot = 0;
  AdmissionId admission = 0;
  bool again = false;  // it has had this slot before
  bool operator==(const LetIn&) const = default;
};
struct Waits : Refusal {};    // and why; another decision follows
struct Refused : Refusal {};  // for good

struct Decision {
  RequestId request = 0;
  std::variant<LetIn, Refused, Waits> verdict{};
};

// The changes are to be recorded before anybody hears of the decisions.
struct Effects {
  std::vector<Decision> decisions{};
  std::vector<Change> changes{};
};

// What a request comes to.
struct Prospect {
  enum class Kind { granted, waits, refused } kind = Kind::granted;
  Refusal why{};  // not granted
  bool operator==(const Prospect&) const = default;
};

struct Serving {};
struct NotReady {
  std::string state;  // "starting"
};
struct Closed {
  Refusal refusal{};
  bool running_may_go_on = false;  // processes with a slot may still open connections (draining)
};
using Door = std::variant<Serving, NotReady, Closed>;

struct InstanceFacts {
  std::string id{};
  std::string device{};       // UUID
  std::string device_name{};  // "gpu0"
  Door door = NotReady{"unknown"};
  std::optional<unsigned> max_clients{};  // MPS's; none: not known, no limit
  std::uint64_t memory_mebibytes = 0;     // the device's; 0: not known, no limit
  std::uint64_t reserved_mebibytes = 0;
  bool single_uid = false;       // its server serves one uid at a time
  std::uint64_t generation = 0;  // facts of an earlier one are passed over
};

struct Bounds {
  std::size_t waiting = 4096;
  std::size_t waiting_of_namespace = 512;
  std::size_t slots = 65536;
  std::size_t admissions = 16384;
  unsigned connections_of_slot = 256;
};

struct LedgerSettings {
  double overcommit_threads = 2.0;
  double overcommit_memory = 1.0;
  bool uid_conflict_waits = false;  // else it is refused
  Bounds bounds{};
  unsigned passes = 16;  // see the rules
  std::chrono::milliseconds keep_room{10000};
  std::chrono::milliseconds keep_none{30000};
};

// A request that waits is judged anew: a policy has changed, or its container is quarantined.
struct Plan {
  Grant grant{};
  policy::Quota quota{};
};
struct Revision {
  RequestId request = 0;
  std::variant<Plan, Refusal> now{};
};

// Copies for the API.
struct Use {
  std::uint64_t clients = 0;
  double active_thread_percentage = 0;  // clients without a limit count as 100
  double limited_percentage = 0;        // only those with one
  std::uint64_t pinned_memory_mebibytes = 0;
  bool operator==(const Use&) const = default;
};
struct AdmissionView {
  Admission admission;
  std::size_t slots = 0;
};
struct SlotView {
  Slot slot;
  unsigned connections = 0;
};
struct WaitingView {
  Request request;
  Refusal why;
  TimePoint since{};
  bool room_is_kept = false;
};
struct NamespaceView {
  std::string subject;
  std::string device;
  Use use;
  std::size_t lines = 0;
};
struct DeviceView {
  std::string device;
  std::string name;
  Use use;  // `clients` of all its instances, also adopted ones
  std::size_t namespaces = 0;
  std::optional<RequestId> room_kept_for;
};

class Ledger {
 public:
  explicit Ledger(LedgerSettings settings = {});
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // Before anything else. Nobody's connections are known then: see connection_found().
  void restore(const State& state);

  // A client that nothing explains: it counts against the instance's clients and holds its uid. Not
  // for a process that has a slot on that instance, nor beyond the bound: then nothing changes. Its
  // slot gives way to the one that it gets when it asks.
  Effects adopt(const std::string& instance, const Process& process, uid_t uid);

  Effects request(const Request& request, TimePoint now);
  // What it would come to, were it made now; its id does not matter. Nothing changes by that.
  [[nodiscard]] Prospect foresee(const Request& request, TimePoint now) const;
  // Who waits has left. Of one that has been let in tell connection_closed().
  Effects peer_gone(RequestId request, TimePoint now);
  void connection_found(SlotId slot);
  void connection_closed(SlotId slot);
  // Its process has ended.
  Effects slot_ended(SlotId slot, TimePoint now);
  // Nobody is in its cgroup. It ends now or with its last slot, unless somebody is let in before:
  // so look again after each let_in. Without a cgroup of its own it ends with its last slot.
  Effects cgroup_empty(AdmissionId admission);

  // New ones too. What waits is let in or refused as the door says.
  Effects instance_changed(const InstanceFacts& facts, TimePoint now);
  // Its slots go on until their processes end.
  Effects instance_removed(const std::string& instance, TimePoint now);
  Effects revise(std::span<const Revision> revisions, TimePoint now);
  Effects settings_changed(const LedgerSettings& settings, TimePoint now);
  Effects time_passed(TimePoint now);
  // When time_passed() is next worth calling.
  [[nodiscard]] std::optional<TimePoint> next_due() const;

  [[nodiscard]] std::vector<AdmissionView> admissions(std::size_t limit) const;
  [[nodiscard]] std::vector<SlotView> slots(std::size_t limit) const;
  [[nodiscard]] std::vector<WaitingView> waiting(std::size_t limit) const;  // by deadline
  [[nodiscard]] std::vector<NamespaceView> namespaces() const;
  [[nodiscard]] std::vector<DeviceView> devices() const;
  [[nodiscard]] std::size_t slot_count() const { return slots_.size(); }
  [[nodiscard]] std::size_t waiting_count() const { return waiting_.size(); }
  // The slot of a process on an instance; none: a client that nothing explains.
  [[nodiscard]] std::optional<SlotId> slot_of(std::string_view instance,
                                              const Process& process) const;
  // None: nobody has told of that instance.
  [[nodiscard]] std::optional<Door> door_of(const std::string& instance) const;
  // How many slots a container has on a share.
  [[nodiscard]] std::size_t clients_of(std::string_view share, std::string_view container) const;
  // Their processes, `limit` at most.
  [[nodiscard]] std::vector<Process> processes_of(std::string_view share,
                                                  std::string_view container,
                                                  std::size_t limit) const;
  // Whose that process is; none: it has no slot, or one that nothing explains.
  [[nodiscard]] std::optional<Admission> admission_of(const Process& process) const;
  // Living slots through a share.
  [[nodiscard]] std::vector<SlotId> slots_of_share(std::string_view share) const;
  [[nodiscard]] bool has_slot(std::string_view share, const Process& process) const;

 private:
  struct Instance;
  struct Device;
  struct Line;

  struct Sums {
    std::uint64_t clients = 0, tenths = 0, limited_tenths = 0, memory = 0;
    void add(const Sums& other);
    void subtract(const Sums& other);
  };
  struct QuotaLimits {
    std::optional<std::uint64_t> clients, tenths, memory;
  };
  struct Account {  // a namespace on a device
    std::string subject;
    Sums sums;
    std::size_t lines = 0;
  };
  struct Asking {
    Request request;
    Sums need;
    QuotaLimits quota;
    TimePoint since{};
    Line* line = nullptr;
  };
  struct Line {  // of a namespace at an instance
    Instance* instance = nullptr;
    Account* account = nullptr;
    std::deque<Asking*> asking;
    std::list<Line*>::iterator turn;
    std::optional<std::uint64_t> passed_from;  // the device's `let_in` since which its first waits
    std::optional<Code> short_of;              // what its first lacked when last looked at
  };
  struct KeptRoom {
    RequestId request = 0;
    TimePoint until{};
  };
  struct Device {
    std::string uuid, name;
    Sums sums;
    std::uint64_t memory = 0, reserved = 0, let_in = 0;
    std::list<Line*> turns;
    std::optional<KeptRoom> kept;
    TimePoint keeps_none_until{};
    std::unordered_map<std::string, Account> accounts;
  };
  struct Instance {
    InstanceFacts facts;
    Device* device = nullptr;
    std::uint64_t clients = 0;
    std::map<uid_t, std::size_t> uids;
    std::unordered_map<std::string, Line> lines;
    bool removed = false;
  };
  struct AdmissionEntry {
    Admission admission;
    std::size_t slots = 0;
    bool empty = false;
  };
  struct SlotEntry {
    Slot slot;
    Sums need;
    Instance* instance = nullptr;
    Device* device = nullptr;
    Account* account = nullptr;  // none: adopted
    AdmissionEntry* admission = nullptr;
    unsigned connections = 0;
  };
  // What keeps somebody out.
  struct Blocker {
    enum class Kind { door, node, limit, no_memory_limit, other_uid, kept, behind } kind{};
    Code code{};
    bool final = false;
    std::uint64_t used = 0, need = 0, limit = 0;
    uid_t uid = 0;
  };
  // What an end of a slot has set free.
  struct Freed {
    const Account* account = nullptr;
    const Instance* instance = nullptr;
    bool memory = false, threads = false;
  };
  struct Measure {
    Code code{};
    std::uint64_t used = 0, need = 0;
    std::optional<std::uint64_t> limit;
  };
  struct ProcessHash {
    std::size_t operator()(const Process& process) const {
      return std::hash<std::uint64_t>{}(process.start_ticks * std::uint64_t{0x9e3779b97f4a7c15} +
                                        static_cast<std::uint64_t>(process.pid));
    }
  };

  static Use use_of(const Sums& sums);

  // the rules
  static std::string admission_key(std::string_view share, std::string_view container);
  static Sums need_of(const Grant& grant);
  static QuotaLimits limits_of(const policy::Quota& quota);
  [[nodiscard]] Asking asking_from(const Request& request, TimePoint now) const;
  [[nodiscard]] Measure measure(Code code, const Asking& asking, const Instance& instance,
                                const Account* account) const;
  [[nodiscard]] std::optional<Blocker> blocker(const Asking& asking, const Instance& instance,
                                               const Account* account) const;
  [[nodiscard]] std::optional<Blocker> door_blocker(const Instance& instance) const;
  [[nodiscard]] std::optional<Blocker> bound_blocker(const Request& request) const;
  [[nodiscard]] std::optional<Blocker> uid_blocker(const Asking& asking,
                                                   const Instance& instance) const;
  [[nodiscard]] std::optional<Blocker> kept_blocker(const Asking& asking,
                                                    const Instance& instance) const;
  [[nodiscard]] bool still_short(const Line& line, const Freed* freed) const;
  static bool helps(const Freed& freed, const Line& line);
  [[nodiscard]] std::optional<Blocker> waiting_blocker(const Asking& asking) const;
  [[nodiscard]] Refusal explain(const Blocker& blocker, const Asking& asking,
                                const Instance& instance) const;
  static std::string describe_limit(const Blocker& blocker, const Asking& asking,
                                    const Instance& instance);
  [[nodiscard]] Refusal explain_behind(const Asking& asking, const Instance& instance) const;
  [[nodiscard]] Refusal explain_waiting(const Asking& asking) const;

  // letting in
  Instance& instance_at(const std::string& id, const std::string& device);
  Device& device_at(const std::string& uuid);
  Account& account_at(Device& device, const std::string& subject);
  static void drop_if_idle(Device& device, Account& account);
  void drop_if_idle(Instance& instance);
  [[nodiscard]] const SlotEntry* slot_on(std::string_view share, const Process& process) const;
  SlotEntry* slot_on(std::string_view share, const Process& process);
  AdmissionEntry& admission_for(const Request& request, const Instance& instance);
  SlotEntry& insert_slot(Slot slot, Sums need, Instance& instance, AdmissionEntry* admission);
  void erase_slot(SlotEntry& entry);
  void end_if_over(AdmissionEntry& entry);
  void let_in(const Asking& asking, Instance& instance);
  void let_in_again(const Request& request, SlotEntry& entry);
  void let_in_siblings(const Request& request, SlotEntry& entry);
  void let_back_in(Instance& instance);
  void give_way(const Request& request);
  void refuse(RequestId request, Refusal why);
  [[nodiscard]] std::optional<Refusal> no_further(const Request& request,
                                                  const SlotEntry& entry) const;
  [[nodiscard]] std::optional<Blocker> newcomer_blocker(const Asking& asking,
                                                        const Instance& instance) const;
  [[nodiscard]] Prospect judge(const Asking& asking, const Instance& instance) const;

  // lines
  void stand_in_line(const Asking& asking, Instance& instance, const Refusal& why);
  [[nodiscard]] std::optional<Refusal> no_place(const Request& request) const;
  Asking leave_line(Asking& asking);
  // `freed`: nothing else has changed.
  void serve(Device& device, const Freed* freed = nullptr);
  std::list<Line*>::iterator serve_first(Device& device, std::list<Line*>::iterator turn,
                                         const Freed* freed);
  void keep_room_if_due(Device& device);
  void keep_no_more(Device& device);
  // True: room is kept no more, so others may have a chance now.
  bool note_passing(Line& line, const Blocker& blocker);
  void refuse_waiting_at(Instance& instance, const Refusal& why);
  void expire();
  Effects finish() { return std::exchange(effects_, {}); }

  LedgerSettings settings_;
  Counters counters_;
  std::unordered_map<std::string, Device> devices_;
  std::unordered_map<std::string, Instance> instances_;
  std::map<AdmissionId, AdmissionEntry> admissions_;
  std::unordered_map<std::string, AdmissionId> admission_of_;  // by share and container
  std::map<SlotId, SlotEntry> slots_;
  std::unordered_map<Process, std::vector<SlotId>, ProcessHash> slots_of_;
  std::unordered_map<RequestId, Asking> waiting_;
  std::unordered_map<Process, std::vector<RequestId>, ProcessHash> waiting_of_;
  std::unordered_map<std::string, std::size_t> waiting_in_;  // by namespace
  std::set<std::pair<TimePoint, RequestId>> deadlines_;
  TimePoint now_{};
  Effects effects_;
};

}  // namespace mps::share
