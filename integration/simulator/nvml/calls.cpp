#include "calls.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

namespace mps::sim {
namespace {

bool hangs(const SimInventory& inventory, const char* entry) {
  return std::ranges::find(inventory.hangs, entry) != inventory.hangs.end();
}

}  // namespace

Library& library() {
  static auto* the_library = new Library;  // never destroyed: a thread may still be in a call
  return *the_library;
}

nvml::Handle handle_of(const std::string& uuid) {
  auto& lib = library();
  const std::lock_guard lock(lib.mutex);
  auto& handle = lib.handles[uuid];
  if (!handle) handle = std::make_unique<nvml::DeviceHandle>(nvml::DeviceHandle{uuid});
  return handle.get();
}

nvml::Return enter(const char* entry, const std::string& uuid, SimInventory& inventory) {
  auto loaded = load_inventory();
  while (loaded && hangs(*loaded, entry)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    loaded = load_inventory();
  }
  if (!loaded) {
    std::fprintf(stderr, "simulated NVML: %s\n", loaded.error().message.c_str());
    return k_unknown;
  }
  inventory = std::move(*loaded);
  for (const auto& failure : inventory.failures) {
    if (failure.entry == entry && (failure.uuid.empty() || failure.uuid == uuid)) {
      return failure.code;
    }
  }
  return nvml::k_success;
}

}  // namespace mps::sim
