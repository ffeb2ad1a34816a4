#include "memory_book.h"

#include <algorithm>

namespace mps::sim {

std::uint64_t MemoryBook::used(std::uint32_t device) const {
  std::uint64_t sum = 0;
  for (const auto& [address, block] : blocks_) sum += block.device == device ? block.size : 0;
  return sum;
}

std::uint64_t MemoryBook::used_by(int owner, std::uint32_t device) const {
  std::uint64_t sum = 0;
  for (const auto& [address, block] : blocks_) {
    if (block.owner == owner && block.device == device) sum += block.size;
  }
  return sum;
}

Reply MemoryBook::allocate(int owner, const PinnedLimits& limits, const Request& request) {
  Reply reply = report(owner, limits, request.device);
  if (request.value == 0) {
    reply.result = k_invalid_value;
  } else if (request.value > reply.first) {
    reply.result = k_out_of_memory;
  } else {
    reply.first = next_address_;
    blocks_[next_address_] = {owner, request.device, request.value};
    next_address_ += (request.value + 0x1fffff) & ~std::uint64_t{0x1fffff};
  }
  return reply;
}

Reply MemoryBook::report(int owner, const PinnedLimits& limits, std::uint32_t device) const {
  Reply reply;
  reply.second = devices_[device].memory;
  reply.first = reply.second - std::min(used(device), reply.second);
  if (limits[device] != 0) {
    const auto mine = std::min(used_by(owner, device), limits[device]);
    reply.first = std::min(reply.first, limits[device] - mine);
    reply.second = std::min(reply.second, limits[device]);
  }
  return reply;
}

Reply MemoryBook::handle(int owner, const PinnedLimits& limits, const Request& request) {
  Reply reply;
  if (request.device >= devices_.size()) {
    reply.result = k_invalid_device;
    return reply;
  }
  if (request.ask == Ask::k_allocate) return allocate(owner, limits, request);
  if (request.ask == Ask::k_memory) return report(owner, limits, request.device);
  if (request.ask == Ask::k_free) {
    const auto found = blocks_.find(request.value);
    if (found == blocks_.end() || found->second.owner != owner) {
      reply.result = k_invalid_value;
    } else {
      blocks_.erase(found);
    }
  }
  return reply;
}

void MemoryBook::forget(int owner) {
  std::erase_if(blocks_, [owner](const auto& entry) { return entry.second.owner == owner; });
}

}  // namespace mps::sim
