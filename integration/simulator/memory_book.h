// Who has how much of the simulated devices' memory, and whether a limit allows more. Pure. Unlike
// the real driver, contexts themselves take nothing.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "client_link.h"
#include "device_model.h"

namespace mps::sim {

class MemoryBook {
 public:
  explicit MemoryBook(const std::vector<Device>& devices) : devices_(devices) {}

  Reply handle(int owner, const PinnedLimits& limits, const Request& request);
  void forget(int owner);
  [[nodiscard]] std::uint64_t used(std::uint32_t device) const;
  [[nodiscard]] std::uint64_t used_by(int owner, std::uint32_t device) const;

 private:
  struct Block {
    int owner;
    std::uint32_t device;
    std::uint64_t size;
  };
  Reply allocate(int owner, const PinnedLimits& limits, const Request& request);
  [[nodiscard]] Reply report(int owner, const PinnedLimits& limits, std::uint32_t device) const;
  const std::vector<Device>& devices_;
  std::map<std::uint64_t, Block> blocks_;
  std::uint64_t next_address_ = 0x7f0000000000;
};

}  // namespace mps::sim
