// Compute modes that we changed, so that they can be put back, also after a crash: written to
// <state>/compute-modes.json (whole, renamed, synced) before a mode is changed, removed after it
// was put back. The first recorded value wins: it is the one from before us.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/result.h"
#include "device/device.h"

namespace mps::device {

class ComputeModeLedger {
 public:
  // An unreadable file is an Error that names it; it is never overwritten.
  static Result<ComputeModeLedger> open(const std::filesystem::path& file);

  [[nodiscard]] const std::map<std::string, ComputeMode>& original() const { return original_; }
  Result<void> remember(const std::string& uuid, ComputeMode before);
  Result<void> forget(const std::string& uuid);

 private:
  [[nodiscard]] Result<void> save() const;
  std::filesystem::path file_;
  std::map<std::string, ComputeMode> original_;
};

}  // namespace mps::device
