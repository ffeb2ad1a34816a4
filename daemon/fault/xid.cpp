#include "fault/xid.h"

#include <algorithm>
#include <array>

namespace mps::fault {

namespace {

using enum XidClass;

// By number.
constexpr std::array k_table{
    XidEntry{13, app_fault, "graphics engine exception"},
    XidEntry{31, app_fault, "MMU page fault"},
    XidEntry{32, app_fault, "invalid push buffer"},
    XidEntry{43, follow_up, "GPU stopped processing"},
    XidEntry{44, follow_up, "fault during a context switch"},
    XidEntry{45, follow_up, "preemptive channel removal"},
    XidEntry{46, needs_reset, "GPU timeout"},
    XidEntry{48, needs_reset, "double bit ECC error"},
    XidEntry{61, informational, "PMU breakpoint"},
    XidEntry{62, needs_reset, "PMU halt"},
    XidEntry{63, informational, "row remapping"},
    XidEntry{64, needs_reset, "row remapping failed"},
    XidEntry{68, app_fault, "video decoder exception"},
    XidEntry{69, app_fault, "graphics engine class error"},
    XidEntry{74, informational, "NVLink error"},
    XidEntry{79, needs_reboot, "GPU has fallen off the bus"},
    XidEntry{92, informational, "many single bit ECC errors"},
    XidEntry{94, contained_memory, "contained memory error"},
    XidEntry{95, needs_reset, "uncontained memory error"},
    XidEntry{109, app_fault, "context switch timeout"},
    XidEntry{110, needs_reset, "security fault"},
    XidEntry{119, needs_reset, "GSP RPC timeout"},
    XidEntry{120, needs_reset, "GSP error"},
    XidEntry{140, needs_reset, "unrecoverable ECC error"},
    XidEntry{143, needs_reset, "GPU initialization error"},
    XidEntry{154, informational, "recovery action changed"},
    XidEntry{158, needs_reset, "fatal timeout"},
    XidEntry{160, informational, "channel retirement"},
    XidEntry{161, informational, "channel retirement"},
};
static_assert(std::is_sorted(k_table.begin(), k_table.end(),
                             [](const auto& a, const auto& b) { return a.number < b.number; }));

Consequence of_class(XidClass kind) {
  switch (kind) {
    case app_fault:
    case contained_memory:
      return Consequence::client_fault;
    case needs_reset:
      return Consequence::out_until_reset;
    case needs_reboot:
      return Consequence::out_until_reboot;
    case follow_up:
    case informational:
    case unknown:
      break;
  }
  return Consequence::nothing;
}

}  // namespace

const char* to_string(XidClass kind) {
  static constexpr std::array k_names{"app_fault",   "follow_up",    "contained_memory",
                                      "needs_reset", "needs_reboot", "informational",
                                      "unknown"};
  return k_names.at(static_cast<std::size_t>(kind));
}

const char* to_string(RecoveryAction action) {
  static constexpr std::array k_names{
      "none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset", "bus_reset", "unknown"};
  return k_names.at(static_cast<std::size_t>(action));
}

const char* to_string(Consequence consequence) {
  static constexpr std::array k_names{"nothing", "client_fault", "out_until_reset",
                                      "out_until_reboot"};
  return k_names.at(static_cast<std::size_t>(consequence));
}

XidEntry look_up_xid(unsigned number) {
  const auto found =
      std::lower_bound(k_table.begin(), k_table.end(), number,
                       [](const XidEntry& entry, unsigned value) { return entry.number < value; });
  if (found != k_table.end() && found->number == number) return *found;
  return {number, unknown, "not known to this version"};
}

std::string describe_xid(unsigned number) {
  return "Xid " + std::to_string(number) + " (" + look_up_xid(number).text + ")";
}

RecoveryAction recovery_action(unsigned nvml_value) {
  switch (nvml_value) {
    case 0:
      return RecoveryAction::none;
    case 1:
      return RecoveryAction::gpu_reset;
    case 2:
    case 7:  // the system, of which the node is all that we know
      return RecoveryAction::node_reboot;
    case 3:
      return RecoveryAction::drain_p2p;
    case 4:
      return RecoveryAction::drain_and_reset;
    case 6:
      return RecoveryAction::bus_reset;
    default:
      return RecoveryAction::unknown;
  }
}

Consequence judge(std::optional<unsigned> xid, std::optional<RecoveryAction> action) {
  const auto by_table = xid ? of_class(look_up_xid(*xid).kind) : Consequence::nothing;
  switch (action.value_or(RecoveryAction::unknown)) {
    case RecoveryAction::none:
      return takes_out(by_table) ? Consequence::client_fault : by_table;
    case RecoveryAction::node_reboot:
      return Consequence::out_until_reboot;
    case RecoveryAction::gpu_reset:
    case RecoveryAction::drain_p2p:
    case RecoveryAction::drain_and_reset:
    case RecoveryAction::bus_reset:
      return Consequence::out_until_reset;
    case RecoveryAction::unknown:
      break;
  }
  return by_table;
}

bool blames_hardware(unsigned xid) {
  const auto kind = look_up_xid(xid).kind;
  return kind == contained_memory || kind == needs_reset || kind == needs_reboot;
}

}  // namespace mps::fault
