// The simulated hardware: read from the file named by MPS_SIM_NVML (its format is described at the
// top of inventory.cpp), or the default one. Threading: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mps::sim {

struct SimDevice {
  std::string uuid;
  std::string name = "Simulated H200";
  unsigned long long memory_mebibytes = 143771;
  unsigned long long reserved_mebibytes = 610;
  int major = 9;
  int minor = 0;
  unsigned sms = 132;
  unsigned mode = 0;
  bool mig_enabled = false;
  bool vgpu_guest = false;
  std::string pci;
  std::optional<std::string> parent;  // of a MIG device: its GPU's UUID
  unsigned place = 0;                 // of a GPU: its index; of a MIG device: its index in its GPU
};

struct SimProcess {
  std::string uuid;  // the device that it uses
  unsigned pid = 0;
  std::optional<unsigned long long> memory_mebibytes;
  bool mps = false;  // a client of an MPS server
};

struct Failure {
  std::string entry;
  int code = 0;
  std::string uuid;  // empty: every device
};

struct SimInventory {
  std::string driver = "535.261.03";
  std::vector<SimDevice> devices;
  std::vector<SimProcess> processes;
  unsigned process_size = 24;  // bytes of each entry that _v2 and _v3 write
  std::vector<Failure> failures;
  std::vector<std::string> hangs;

  [[nodiscard]] const SimDevice* find(std::string_view uuid) const;
  [[nodiscard]] std::vector<const SimDevice*> gpus() const;
  [[nodiscard]] const SimDevice* mig_at(std::string_view gpu, unsigned place) const;
};

Result<SimInventory> parse_inventory(std::string_view text);
// What stands in the file now.
Result<SimInventory> load_inventory();
// Writes a GPU's new compute mode back.
Result<void> store_compute_mode(const std::string& uuid, unsigned mode);

}  // namespace mps::sim
