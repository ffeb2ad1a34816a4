// A GPU or a MIG device as the supervisor knows it. Pure values.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mps::device {

enum class Kind { gpu, mig };
enum class ComputeMode { default_mode, exclusive_thread, prohibited, exclusive_process };
// "default", "exclusive-thread", "prohibited", "exclusive-process", and back.
const char* to_string(ComputeMode mode);
std::optional<ComputeMode> parse_compute_mode(std::string_view text);

struct Device {
  std::string uuid{};  // "GPU-…" or "MIG-…"
  Kind kind = Kind::gpu;
  // NVML's index of the GPU (of a MIG device: of its parent), and the MIG device's place in its
  // parent; as they were when the device was first seen, so that its name stays what it is.
  unsigned index = 0;
  std::optional<unsigned> mig_index{};
  std::string name{};                           // "NVIDIA H200"
  std::string pci_bus_id{};                     // empty for declared devices
  std::uint64_t memory_mebibytes = 0;           // total; 0 where unknown
  std::uint64_t reserved_memory_mebibytes = 0;  // kept by the driver
  unsigned sm_count = 0;                        // 0 where unknown
  std::optional<unsigned> compute_capability_major{};
  std::optional<unsigned> compute_capability_minor{};
  std::optional<ComputeMode> compute_mode{};
  bool mig_enabled = false;  // a MIG parent: it has no instance itself, its MIG devices have
  bool declared = false;     // from the settings, not from NVML
  // Why MPS cannot run here (see capability.h for the words); empty: it can.
  std::string not_capable{};
  // False: what decides over it could not be asked now; then not_capable may be of earlier.
  bool capability_known = true;
  // What is wrong with it now ("NVML no longer reports it", "nvmlDeviceGetMemoryInfo: …"); empty:
  // nothing.
  std::string error{};

  // Short, unique on a node, fit for a path and a label: "gpu0", "gpu0-mig3".
  [[nodiscard]] std::string short_name() const;
  bool operator==(const Device&) const = default;
};

struct Inventory {
  std::vector<Device> devices{};
  std::string driver_version{};  // empty where unknown
  std::string error{};  // why there may be none: "NVML: libnvidia-ml.so.1: cannot open …"
  bool operator==(const Inventory&) const = default;
};

// The UUID of the GPU that this is, or that it is a part of; empty: not known.
std::string gpu_of(const Inventory& inventory, std::string_view uuid);

}  // namespace mps::device
