// Who has been let in at the gates, who waits, and what that comes to: copies of what the ledger
// knows, as the API shows them. Pure.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "instance/snapshot.h"
#include "policy/generation.h"
#include "policy/policy.h"
#include "share/ledger.h"

namespace mps::api {

// A namespace at an instance.
struct PlaceUse {
  std::string instance;
  std::string device;  // UUID
  std::string domain;
  std::string subject;  // the namespace
  std::size_t admissions = 0;
  std::uint64_t clients = 0;
  std::size_t waiting = 0;
};

struct NamespaceUse {
  std::string subject;
  std::string device;  // UUID
  share::Use use;
  std::size_t waiting = 0;
  std::optional<policy::Quota> quota{};  // none: no policy is in force for it there
};

struct DeviceUse {
  std::string device;  // UUID
  std::string name;    // "gpu0"
  share::Use use;
  std::uint64_t adopted = 0;  // of its clients, those that nothing explains
  // What its instances may have in all: the device's, times the settings' overcommit.
  double thread_limit = 0;                      // of `use.limited_percentage`
  std::optional<std::uint64_t> memory_limit{};  // MiB; none: its memory is not known
};

struct AdmissionStatus {
  bool gated = false;  // false: no instance has a gate, and the rest is empty
  // The same moment on both clocks.
  share::TimePoint now{};
  std::chrono::system_clock::time_point time{};
  std::vector<share::AdmissionView> admissions;
  std::vector<share::SlotView> slots;
  std::vector<share::WaitingView> waiting;  // by deadline
  // Beyond the bounds.
  std::size_t admissions_left_out = 0;
  std::size_t slots_left_out = 0;
  std::size_t waiting_left_out = 0;
  // Whole, whatever was left out above.
  std::vector<PlaceUse> places;          // by instance and namespace
  std::vector<NamespaceUse> namespaces;  // by device and namespace
  std::vector<DeviceUse> devices;
  std::map<share::Code, std::uint64_t> refused;  // by this supervisor
};

// Many more than a node has clients: MPS has 60 at most per device.
struct AdmissionBounds {
  std::size_t admissions = 4096;
  std::size_t slots = 16384;
  std::size_t waiting = 1024;
};

struct AdmissionSources {
  const share::Ledger& ledger;
  const policy::Generation& policies;
  const std::vector<policy::DeviceFacts>& devices;
  const std::vector<instance::Snapshot>& instances;
  const std::map<share::Code, std::uint64_t>& refused;
  double overcommit_threads = 1;
  double overcommit_memory = 1;
  share::TimePoint now{};
  std::chrono::system_clock::time_point time{};
};

AdmissionStatus admission_status(const AdmissionSources& sources,
                                 const AdmissionBounds& bounds = {});

}  // namespace mps::api
