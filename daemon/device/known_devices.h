// The devices seen so far, held against what NVML says now: who is gone stays in the list with an
// error, who is back has its old place, what could not be asked now keeps its last value. Pure.
#pragma once

#include <string>
#include <vector>

#include "device/device.h"
#include "device/nvml_scan.h"

namespace mps::device {

class KnownDevices {
 public:
  // A device keeps the index, and so the short name, under which it was first seen: NVML numbers
  // anew when a GPU falls off the bus. A newcomer whose index is taken by a living device gets the
  // lowest free one; a lost device is forgotten only when a newcomer has its short name.
  Inventory update(const nvml::Scan& scan);

  // NVML said nothing in time: the devices stand as they were, each with the error.
  [[nodiscard]] Inventory unanswered(const std::string& error) const;
  // NVML as a whole failed ("nvmlInit: Driver Not Loaded"): the inventory shows it too.
  [[nodiscard]] Inventory failed(const std::string& error) const;

 private:
  std::vector<Device> devices_;
  std::string driver_version_;
};

}  // namespace mps::device
