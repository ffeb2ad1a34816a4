// An incident: one fault with all that belongs to it, and what became of it. Plain values, each
// bounded; what goes beyond a bound is counted. How they grow is in tracker.h, their JSON in
// incident_json.h.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "fault/xid.h"

namespace mps::fault {

inline constexpr std::size_t k_signal_limit = 64;  // of an incident
inline constexpr std::size_t k_step_limit = 64;
inline constexpr std::size_t k_people_limit = 64;  // of each list: victims, suspects, culprits
inline constexpr std::size_t k_xid_limit = 16;
inline constexpr std::size_t k_consequence_limit = 16;

// As journals and the API have them.
using Time = std::chrono::sys_time<std::chrono::milliseconds>;
inline Time time_of(std::chrono::system_clock::time_point time) {
  return std::chrono::floor<std::chrono::milliseconds>(time);
}

// A client as it was when it connected, since it may be gone when it is asked about.
struct ClientFacts {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  // field 22 of /proc/<pid>/stat; 0: not known
  std::optional<uid_t> uid{};     // none: not known
  std::string command{};          // its command line
  std::string container{};        // empty, as the rest: it has none, or nobody knows
  std::string pod{};
  std::string subject{};  // the namespace: "team-a", "docker:web", "unit:cron.service"
  std::string owner{};    // the pod's: "Deployment/web"
  std::string share{};
  std::optional<double> active_thread_percentage{};  // none: its limits are not known
  std::optional<std::uint64_t> pinned_memory_mebibytes{};
  Time since{};  // when it came, not when we heard of it; the epoch: not known
  bool operator==(const ClientFacts&) const = default;
};
// Texts from outside made printable, and cut.
ClientFacts bounded(ClientFacts facts);
inline bool same_process(const ClientFacts& a, const ClientFacts& b) {
  return a.pid == b.pid && a.start_ticks == b.start_ticks;
}

// How far a daemon's log was read; `log` tells one file from its successors.
struct LogPlace {
  std::string log{};
  std::uint64_t end_offset = 0;  // behind the line
  bool operator==(const LogPlace&) const = default;
};

// From the mildest to the gravest.
enum class Kind { app_fault, server_died, start_failure, wedged, daemon_died, device_trouble };
const char* to_string(Kind kind);
inline std::ostream& operator<<(std::ostream& out, Kind kind) {
  return out << to_string(kind);
}

// How it is known whose doing it was; of the latest fault.
enum class Attribution {
  none,          // not a client's doing, as far as anybody can tell
  named,         // MPS named a process, and it was a client
  only_client,   // there was no other
  one_of,        // of the suspects, or of more; nobody knows which
  not_a_client,  // MPS named a process that was none
  nobody,        // no client was there that we know of
};
const char* to_string(Attribution attribution);
inline std::ostream& operator<<(std::ostream& out, Attribution attribution) {
  return out << to_string(attribution);
}

// Once for each round that it has faulted in.
struct Culprit {
  ClientFacts client{};
  unsigned round = 1;
  Attribution by = Attribution::named;  // or only_client
  Time at{};
  bool operator==(const Culprit&) const = default;
};

struct XidSeen {
  unsigned number = 0;
  unsigned times = 1;
  Time first{};
  bool operator==(const XidSeen&) const = default;
};

// Something graver that followed.
struct Aftermath {
  Kind kind{};
  Time at{};
  std::string text{};
  bool operator==(const Aftermath&) const = default;
};

struct Note {  // a signal, in words
  Time at{};
  std::string kind{};  // "fatal_fault", "xid", …
  std::string text{};
  bool operator==(const Note&) const = default;
};

struct Step {  // of recovery
  Time at{};
  std::string name{};
  std::string outcome{};
  unsigned round = 1;
  bool operator==(const Step&) const = default;
};

enum class End {
  none,  // it is open
  serving,
  given_up,
  unconfirmed,  // nothing but the driver spoke of it: MPS went on, it was some other program
};
const char* to_string(End end);
inline std::ostream& operator<<(std::ostream& out, End end) {
  return out << to_string(end);
}

// The first newcomer that was served after an incident: one who came after the fault, and whom MPS
// was seen to have once newcomers were let in again (a line of its log, or its list of clients).
// MPS says so of a client that has a context, so this is an upper bound.
struct FirstServed {
  pid_t pid = 0;
  Time at{};
  bool operator==(const FirstServed&) const = default;
};

struct Incident {
  std::uint64_t number = 0;  // never used twice
  std::string instance{};
  std::string device{};  // UUID
  std::string domain{};
  Kind kind{};
  // Its first sign: when that came about, as a line of the log says of itself, and when we heard of
  // it. The same within milliseconds, but where nobody listened in between.
  Time happened{};
  Time noticed{};
  std::optional<Time> attributed{};  // a culprit was known
  std::optional<Time> serving{};
  std::optional<FirstServed> first_served{};
  std::optional<Time> closed{};
  End end = End::none;
  std::string cause{};  // of a start failure, a death, a wedge, of having given up
  unsigned faults = 0;  // of clients
  unsigned rounds = 1;  // one more for each fault that came while another was recovered from
  std::vector<XidSeen> xids{};
  std::optional<RecoveryAction> action{};
  Consequence needs = Consequence::nothing;  // what the device needs
  bool hardware = false;                     // the driver blames the device: nobody's doing
  std::vector<Aftermath> consequences{};

  Attribution attribution = Attribution::none;
  std::vector<Culprit> culprits{};
  std::size_t culprits_left_out = 0;
  std::vector<pid_t> strangers{};       // named, and no clients
  unsigned unattributed_rounds = 0;     // of faults whose culprit nobody knows
  std::vector<ClientFacts> suspects{};  // of those
  std::size_t suspect_count = 0;
  bool others_possible = false;        // somebody may have been there whom we do not know of
  std::vector<ClientFacts> victims{};  // culprits are none
  std::size_t victim_count = 0;

  std::vector<Note> signals{};
  std::size_t signals_left_out = 0;
  std::vector<Step> steps{};
  std::size_t steps_left_out = 0;

  // The last line of the log that counts here already: told again (a supervisor that was killed
  // before it had noted how far it had read), it is passed over. In the book alone.
  std::optional<LogPlace> read_to{};

  bool operator==(const Incident&) const = default;
};

std::string id_of(std::uint64_t number);  // "f12"
std::optional<std::uint64_t> incident_number(const std::string& id);

// "pid 42 (train.py) of team-a, pod web-0"
std::string describe(const ClientFacts& client);
// In a sentence: what happened, and whose doing it was.
std::string summary(const Incident& incident);

}  // namespace mps::fault
