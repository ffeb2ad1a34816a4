// What a policy file says, as plain values that know their places. No behaviour; what follows from
// them is in effective.h and generation.h. The format: docs/policies.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "yaml/tree.h"

namespace mps::policy {

using yaml::Mark;

// A value, and where the file has it.
template <typename T>
struct Given {
  T value{};
  Mark mark{};
};

enum class Isolation { shared, dedicated };
enum class Priority { normal, below_normal };
const char* to_string(Isolation isolation);
const char* to_string(Priority priority);

// What each client process may have at most; what is not given is not limited.
struct Client {
  std::optional<Given<double>> active_thread_percentage;  // of the SMs; above 0, at most 100
  std::optional<Given<std::uint64_t>> pinned_memory_mebibytes;
  std::optional<Given<Priority>> priority;
};

// The sum of a namespace's clients on one device.
struct Quota {
  std::optional<Given<unsigned>> clients;
  std::optional<Given<double>> active_thread_percentage;
  std::optional<Given<std::uint64_t>> pinned_memory_mebibytes;
};

using Labels = std::map<std::string, std::string>;

struct Override {
  Labels pod_labels;  // all of them must be on the pod
  Client client;      // what it does not give is the policy's own
  Mark mark{};
};

struct DeviceName {
  enum class Kind { any, uuid, index, mig_index } kind = Kind::any;
  std::string uuid;
  unsigned index = 0;  // NVML's, of the GPU
  unsigned mig_index = 0;
  std::string text;  // as given: "*", "0", "0:3", "GPU-…"
  Mark mark{};
};

struct Quarantine {
  unsigned after = 0;  // faults
  std::chrono::milliseconds within{0};
  std::chrono::milliseconds duration{0};
  bool on_suspicion = false;  // counts also for those of whom nobody knows which one it was
};

struct Policy {
  std::string subject;  // the namespace: "team-a", "*", "unit:*", "docker:web"
  std::string file;
  Mark mark{};                      // of the namespace
  std::vector<DeviceName> devices;  // empty: any
  Given<Isolation> isolation{};
  Client client;
  Quota quota;
  std::vector<Override> overrides;
  bool terminate_violators = false;  // else they are reported
  bool wait_for_faulted = false;     // else clients that hold a fault are terminated
  std::optional<Quarantine> quarantine;
};

// What is known of a device that policies are for. Zero and none: not known.
struct DeviceFacts {
  std::string name;  // "gpu0", "gpu0-mig3"
  std::string uuid;
  unsigned index = 0;
  std::optional<unsigned> mig_index{};
  std::uint64_t memory_mebibytes = 0;
  unsigned sm_count = 0;
  bool exclusive = false;                 // in an exclusive compute mode, or meant to be
  std::optional<unsigned> max_clients{};  // what MPS allows
  bool operator==(const DeviceFacts&) const = default;
};

bool names(const Policy& policy, const DeviceFacts& device);

// "team-a.yaml:9:29", as errors begin.
std::string place(const Policy& policy, const Mark& mark);

}  // namespace mps::policy
