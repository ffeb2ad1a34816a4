// The supervisor's settings: /etc/mps-supervisor/supervisor.yaml, then flags. Text becomes plain
// values here, checked to the last field; nothing is opened or started.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "instance/snapshot.h"

namespace mps::app {

struct Settings {
  std::filesystem::path run_dir = "/run/mps";
  std::filesystem::path state_dir = "/var/lib/mps-supervisor";
  std::filesystem::path policy_dir = "/etc/mps-supervisor/policies";
  std::filesystem::path cdi_dir = "/var/run/cdi";  // empty: no share is a CDI device
  std::string operators_group = "mps-operators";
  std::optional<std::vector<device::Device>> devices;  // none: auto, that is NVML
  std::string nvml_library = "libnvidia-ml.so.1";
  std::vector<std::filesystem::path> mps_path;  // folders; then PATH, then where drivers put them
  std::vector<std::filesystem::path> library_path;  // first in the daemons' LD_LIBRARY_PATH
  bool exclusive_compute_mode = false;
  std::string metrics_listen = "127.0.0.1:9464";  // empty: off
  bool stop_instances = false;
  // automatic: direct in this version.
  enum class Gate { automatic, on, off } gate = Gate::automatic;
  double overcommit_threads = 2.0;
  double overcommit_memory = 1.0;
  std::chrono::milliseconds admission_wait{60000};
  std::chrono::milliseconds audit_interval{10000};
  bool hard_limits = false;         // a newcomer's own limits are the server's when it comes in
  bool uid_conflict_waits = false;  // else it is refused
  instance::Limits limits;          // of an instance whose device no policy names
  struct Probe {
    std::chrono::milliseconds interval{30000};
    std::chrono::milliseconds timeout{3000};
    unsigned failures = 3;
    bool operator==(const Probe&) const = default;
  } probe;
  bool end_channel_holder = false;
  struct Backoff {
    std::chrono::milliseconds initial{100};
    std::chrono::milliseconds max{30000};
    unsigned budget_failures = 5;
    std::chrono::milliseconds budget_within{120000};
    bool operator==(const Backoff&) const = default;
  } backoff;
  std::chrono::milliseconds drain_timeout{0};  // with stopInstances: what running clients get
  std::chrono::milliseconds shutdown_timeout{
      20000};  // and then the daemons, before we give up on them
};

// Every error of the text at once, each "file:line:column: path: reason: "value"" (1-based).
struct SettingsErrors {
  std::vector<std::string> messages;
};
// `base` holds the values that the text does not set.
std::variant<Settings, SettingsErrors> parse_settings(std::string_view text, std::string_view file,
                                                      const Settings& base = {});
// What no single field can say: lengths of socket paths and the like. Empty: fine.
std::vector<std::string> check_settings(const Settings& settings);
}  // namespace mps::app
