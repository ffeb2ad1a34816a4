// What can be noticed of faults, and of those who may have caused them. Plain values; each comes to
// the tracker with the time at which it was said or seen.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "fault/incident.h"

namespace mps::fault {

// Of the log. A pid of 0 is one that a pid namespace hides: it names nobody.
struct FatalFaultLogged {  // "Server is handling a fatal GPU error."
  pid_t server = 0;
};
struct CulpritNamed {  // "Client process 1 encountered a fatal GPU error."
  pid_t pid = 0;
};
// "The following clients have a sticky error set:", which has no pid, and each line of that list.
struct StickyClients {
  std::vector<pid_t> pids{};
};
// "Status of client {1, 0} is INACTIVE": also what follows when a client is terminated.
struct ClientStatusSeen {
  pid_t pid = 0;
  bool active = false;
};
struct ContextRecreated {};  // "Creating server context on device 0"

// Of NVML.
struct XidReported {
  unsigned number = 0;
};
struct ActionReported {
  RecoveryAction action = RecoveryAction::none;
};

// Of probes and processes. `asked`: it was to end, since we or somebody else had it end.
struct ServerStatusSeen {};  // get_server_status: FAULT
struct ServerEnded {
  pid_t pid = 0;
  std::string how{};
  bool asked = false;
};
struct DaemonEnded {
  std::string how{};
  bool asked = false;
};
struct Wedged {  // unanswered as often as the settings say, and nothing explains it
  std::string why{};
};
struct AnswersAgain {};  // the daemon: what was wedged is not
struct StartFailed {
  std::string cause{};
};

// Of clients: from when it was let in, or seen in a list, until its process has ended.
struct ClientCame {
  ClientFacts facts{};
};
struct ClientWent {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  // 0: whoever has that pid
};
struct ClientServed {  // MPS has it
  pid_t pid = 0;
};
// Whether all who are there have been told of. Not, where an earlier supervisor's records are not
// whole, where a client's pid is hidden from us, or where nobody was there to see them come.
struct ClientsKnown {
  bool all = true;
};

// Of recovery.
struct StepTaken {
  std::string name{};     // "terminate_client 41"
  std::string outcome{};  // "answered", "no answer within 2s"
};
struct Serving {};  // newcomers are let in again
struct GivenUp {
  std::string why{};
};

using Signal = std::variant<FatalFaultLogged, CulpritNamed, StickyClients, ClientStatusSeen,
                            ContextRecreated, XidReported, ActionReported, ServerStatusSeen,
                            ServerEnded, DaemonEnded, Wedged, AnswersAgain, StartFailed, ClientCame,
                            ClientWent, ClientServed, ClientsKnown, StepTaken, Serving, GivenUp>;

// As an incident lists it; the kind is empty for what is not listed.
Note note_of(const Signal& signal, Time at);

}  // namespace mps::fault
