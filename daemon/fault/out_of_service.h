// Devices that MPS must not run on before they were reset, or their node was rebooted: which they
// are, why, and what brings them back. Pure; what survives a restart is in book.h.
//
//   * An Xid takes a device out by its number alone where the driver does not say what is to be
//     done about the GPU. Where it does, its word is waited for (5 s), and is what counts: an Xid
//     after which it asks for nothing takes nothing out, whichever of the two came first.
//   * A recovery action is a GPU's, and so is every reset. An Xid that the driver puts down to one
//     MIG device takes out that one.
//   * Back: the driver asks for nothing any more; another boot of the kernel; an operator's word.
//     The last holds against what the driver asked for then, until it says something else or an Xid
//     comes that would take the device out.
//   * What cannot be known changes nothing: a device stays out where the boot cannot be told.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "fault/incident.h"
#include "fault/xid.h"

namespace mps::fault {

inline constexpr std::size_t k_out_limit = 256;

struct OutOfService {
  std::string device{};  // UUID: of a GPU, or of the one MIG device that the driver spoke of
  std::string gpu{};     // that it is, or is a part of
  Consequence needs = Consequence::out_until_reset;
  std::optional<unsigned> xid{};           // one of these two, or both
  std::optional<RecoveryAction> action{};  // none and unknown are no reason
  Time since{};
  std::uint64_t incident = 0;  // 0: none was open
  std::string boot_id{};       // the kernel's then; empty: not known
  bool operator==(const OutOfService&) const = default;
};
// What brings it back: "reset", or "reboot" of the node.
const char* need_of(const OutOfService& entry);
// "Xid 79 (GPU has fallen off the bus), recovery action node_reboot"
std::string reason_of(const OutOfService& entry);
// "GPU-1 is out of service since 2026-11-20T10:00:00.000Z until it is reset: Xid 46 (GPU timeout),
// incident f3"
std::string describe(const OutOfService& entry);

struct DeviceTakenOut {  // or what is said of it has changed
  OutOfService entry{};
  bool operator==(const DeviceTakenOut&) const = default;
};
struct DeviceReturned {
  std::string device{};
  std::string why{};
  bool operator==(const DeviceReturned&) const = default;
};
// An operator has put the GPU back although the driver asks for this. `none`: it is over.
struct DriverOverruled {
  std::string gpu{};
  RecoveryAction action = RecoveryAction::none;
  std::string boot_id{};
  bool operator==(const DriverOverruled&) const = default;
};
using DeviceChange = std::variant<DeviceTakenOut, DeviceReturned, DriverOverruled>;
using DeviceChanges = std::vector<DeviceChange>;

struct DevicesOut {
  std::map<std::string, OutOfService> entries{};       // by device
  std::map<std::string, DriverOverruled> overruled{};  // by GPU

  void apply(const DeviceChange& change);
  // What keeps this device out, which is that GPU or a part of it; nullptr: nothing does.
  [[nodiscard]] const OutOfService* of(const std::string& device, const std::string& gpu) const;
  bool operator==(const DevicesOut&) const = default;
};

// `boot_id`: empty where it cannot be read, as in the entries: then nothing is concluded.
DeviceChanges after_boot(const DevicesOut& out, const std::string& boot_id);
// MIG devices that were made anew: their GPUs are there, and they are not. `devices`: all that
// there are, for sure.
DeviceChanges without_the_gone(const DevicesOut& out, const std::set<std::string>& devices);
// An operator puts it back in service: the device, and the GPU that it is a part of.
DeviceChanges put_back(const DevicesOut& out, const std::string& device, const std::string& gpu,
                       const std::string& why);

// What the driver says, judged. Knows what has been said since the supervisor's start, bounded.
class DeviceJudge {
 public:
  explicit DeviceJudge(std::string boot_id) : boot_id_(std::move(boot_id)) {}

  struct Trouble {
    std::string device{};
    std::string gpu{};
    unsigned xid = 0;
    std::uint64_t incident = 0;
    Time at{};
  };
  DeviceChanges on_xid(const DevicesOut& out, const Trouble& trouble);
  DeviceChanges on_action(const DevicesOut& out, const std::string& gpu, RecoveryAction action,
                          std::uint64_t incident, Time at);
  // Whose recovery action did not come in time.
  DeviceChanges tick(const DevicesOut& out, Time now);
  [[nodiscard]] std::optional<Time> deadline() const;

 private:
  [[nodiscard]] DeviceChanges by_number(const DevicesOut& out, const Trouble& trouble) const;
  [[nodiscard]] DeviceChanges by_action(const DevicesOut& out, const std::string& gpu,
                                        RecoveryAction action, const std::optional<Trouble>& xid,
                                        std::uint64_t incident, Time at) const;
  std::optional<Trouble> take_pending(const std::string& gpu);

  std::string boot_id_;
  std::set<std::string> tells_actions_;     // GPUs of which the driver has said what they need
  std::map<std::string, Trouble> pending_;  // by GPU: the gravest Xid that waits for an action
};

}  // namespace mps::fault
