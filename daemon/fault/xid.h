// What an Xid (the driver's error number) and NVML's recovery action mean for a device that runs
// MPS. Pure.
//
// The table follows NVIDIA's Xid catalogue for Ampere and later
// (docs.nvidia.com/deploy/xid-errors, "analyzing Xid errors with the Xid catalog"), read for MPS,
// where a fault of one client is everybody's. The recovery action is the driver's own judgement
// (nvmlDeviceGpuRecoveryAction_t; Xid 154 says that it has changed) and beats the table.
//
// Known disagreement: the catalogue asks for a reset after 109 (context switch timeout), the
// Kubernetes device plugin takes it for an application's error. Any tenant can bring it about with
// a kernel that runs for too long, so without a recovery action it does not take the device away.
#pragma once

#include <optional>
#include <ostream>
#include <string>

namespace mps::fault {

enum class XidClass {
  app_fault,         // a program's doing: it is to be started again
  follow_up,         // comes with another one, and says nothing by itself
  contained_memory,  // a memory error that hit programs; the device goes on
  needs_reset,
  needs_reboot,
  informational,
  unknown,
};
const char* to_string(XidClass kind);  // "app_fault", …

struct XidEntry {
  unsigned number = 0;
  XidClass kind = XidClass::unknown;
  const char* text = "";  // "MMU page fault"
  bool operator==(const XidEntry&) const = default;
};
XidEntry look_up_xid(unsigned number);      // one that is not in the table: unknown
std::string describe_xid(unsigned number);  // "Xid 31 (MMU page fault)"

enum class RecoveryAction {
  none,
  gpu_reset,
  node_reboot,
  drain_p2p,        // stop peer to peer traffic, then ask again
  drain_and_reset,  // works at reduced capacity: nobody new, and reset once it is idle
  bus_reset,
  unknown,  // to this version
};
const char* to_string(RecoveryAction action);  // "none", "gpu_reset", …
// NVML's number. 5 is unknown: NVML's versions give it to two different actions.
RecoveryAction recovery_action(unsigned nvml_value);

enum class Consequence {
  nothing,
  client_fault,      // programs on the device have failed; the device has not
  out_until_reset,   // no MPS on it before it was reset
  out_until_reboot,  // … before the node was
};
const char* to_string(Consequence consequence);  // "nothing", "client_fault", …
inline bool takes_out(Consequence consequence) {
  return consequence >= Consequence::out_until_reset;
}

// Either may be missing. Where they disagree about the device the action counts: with "none" an
// Xid that the table would take the device out for is a fault of programs.
Consequence judge(std::optional<unsigned> xid, std::optional<RecoveryAction> action);

// Whose doing an Xid is not: a memory error or a broken device, which no program is to blame for.
bool blames_hardware(unsigned xid);

inline std::ostream& operator<<(std::ostream& out, Consequence consequence) {
  return out << to_string(consequence);
}
inline std::ostream& operator<<(std::ostream& out, XidClass kind) {
  return out << to_string(kind);
}

}  // namespace mps::fault
