// Events: what the simulated server's faults and a test's orders write on the board
// (../event_board.h), as NVML tells it; and the recovery action as a field. The numbers are those
// of the public nvml.h.
#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "base/text.h"
#include "calls.h"
#include "device_model.h"
#include "event_board.h"

namespace {

using namespace mps::sim;  // NOLINT: this file is that namespace's C face
using std::chrono::milliseconds;

constexpr unsigned long long k_xid_event = 0x8;
constexpr unsigned long long k_recovery_event = 0x8000;
constexpr unsigned k_recovery_changed_xid = 154;
constexpr unsigned k_recovery_field = 230;
constexpr unsigned k_driver_with_recovery = 570;
constexpr milliseconds k_between_looks{50};  // at what the inventory says about the call

struct EventData {
  nvml::Handle device;
  unsigned long long type;
  unsigned long long data;
  unsigned gpu_instance;
  unsigned compute_instance;
};
static_assert(sizeof(EventData) == 32);

struct FieldValue {
  unsigned field;
  unsigned scope;
  long long timestamp;
  long long latency;
  unsigned value_type;  // 1: unsigned int
  nvml::Return code;
  unsigned long long value;
};
static_assert(sizeof(FieldValue) == 40);

struct EventSet {
  std::mutex mutex;
  std::unique_ptr<BoardReader> board;                            // none where no file is named
  std::map<std::string, unsigned long long, std::less<>> types;  // by the device's UUID
  std::deque<EventData> pending;
};

bool has_recovery(const SimInventory& inventory) {
  const std::string_view driver = inventory.driver;
  const auto major = mps::parse_number<unsigned>(driver.substr(0, driver.find('.')));
  return major && *major >= k_driver_with_recovery;
}

unsigned long long supported_types(const SimInventory& inventory) {
  return k_xid_event | (has_recovery(inventory) ? k_recovery_event : 0);
}

// As a server writes it, who has read a UUID as sixteen bytes.
std::string full_uuid(const std::string& uuid) {
  const auto device = device_of_uuid(uuid);
  return device ? uuid_text(*device) : uuid;
}

const SimDevice* device_on_board(const SimInventory& inventory, const std::string& uuid) {
  const std::string wanted = full_uuid(uuid);
  const auto found = std::ranges::find_if(inventory.devices, [&wanted](const SimDevice& device) {
    return full_uuid(device.uuid) == wanted;
  });
  return found == inventory.devices.end() ? nullptr : &*found;
}

// A MIG device's events are its GPU's, with the instances named.
void take(EventSet& set, const SimInventory& inventory, const BoardEvent& event) {
  const SimDevice* device = device_on_board(inventory, event.uuid);
  if (device == nullptr) return;
  const std::string& gpu = device->parent ? *device->parent : device->uuid;
  const auto wanted = set.types.find(gpu);
  if (wanted == set.types.end()) return;
  EventData data{handle_of(gpu), k_xid_event, event.number, nvml::k_no_instance,
                 nvml::k_no_instance};
  if (device->parent) {
    data.gpu_instance = device->place + 1;
    data.compute_instance = 0;
  }
  const bool is_action = event.kind == BoardEvent::Kind::k_action;
  if (is_action && !has_recovery(inventory)) return;
  if (is_action) data.data = k_recovery_changed_xid;
  if ((wanted->second & k_xid_event) != 0) set.pending.push_back(data);
  if (!is_action || (wanted->second & k_recovery_event) == 0) return;
  data.type = k_recovery_event;
  data.data = event.number;
  set.pending.push_back(data);
}

bool take_pending(EventSet& set, const SimInventory& inventory, EventData* data) {
  const std::lock_guard lock(set.mutex);
  while (set.pending.empty()) {
    const auto event = set.board ? set.board->next() : std::nullopt;
    if (!event) return false;
    take(set, inventory, *event);
  }
  *data = set.pending.front();
  set.pending.pop_front();
  return true;
}

nvml::Return wait_for_event(EventSet& set, EventData* data, unsigned timeout) {
  const auto end = std::chrono::steady_clock::now() + milliseconds(timeout);
  while (true) {
    SimInventory inventory;
    const auto code = enter("nvmlEventSetWait_v2", {}, inventory);
    if (code != nvml::k_success) return code;
    if (take_pending(set, inventory, data)) return nvml::k_success;
    const auto left = std::chrono::ceil<milliseconds>(end - std::chrono::steady_clock::now());
    if (left <= milliseconds(0)) return k_timeout;
    const auto step = std::min(left, k_between_looks);
    if (set.board) {
      set.board->wait(static_cast<int>(step.count()));
    } else {
      std::this_thread::sleep_for(step);
    }
  }
}

}  // namespace

extern "C" {

MPS_SIM_ENTRY nvmlEventSetCreate(EventSet** set) {
  return global_call("nvmlEventSetCreate", [set](const SimInventory&) {
    if (set == nullptr) return k_invalid_argument;
    auto made = std::make_unique<EventSet>();
    if (const auto file = board_file(); !file.empty()) {
      made->board = std::make_unique<BoardReader>(file);
    }
    *set = made.release();
    return nvml::k_success;
  });
}

MPS_SIM_ENTRY nvmlEventSetFree(EventSet* set) {
  return global_call("nvmlEventSetFree", [set](const SimInventory&) {
    const std::unique_ptr<EventSet> freed(set);
    return set == nullptr ? k_invalid_argument : nvml::k_success;
  });
}

MPS_SIM_ENTRY nvmlDeviceGetSupportedEventTypes(nvml::Handle handle, unsigned long long* types) {
  return device_call("nvmlDeviceGetSupportedEventTypes", handle,
                     [=](const SimInventory& inventory, const SimDevice& device) {
                       if (device.parent) return nvml::k_not_supported;
                       *types = supported_types(inventory);
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlDeviceRegisterEvents(nvml::Handle handle, unsigned long long types,
                                       EventSet* set) {
  return device_call("nvmlDeviceRegisterEvents", handle,
                     [=](const SimInventory& inventory, const SimDevice& device) {
                       if (set == nullptr) return k_invalid_argument;
                       const bool is_known = (types & ~supported_types(inventory)) == 0;
                       if (device.parent || !is_known) return nvml::k_not_supported;
                       const std::lock_guard lock(set->mutex);
                       set->types[device.uuid] |= types;
                       return nvml::k_success;
                     });
}

MPS_SIM_ENTRY nvmlEventSetWait_v2(EventSet* set, EventData* data, unsigned timeout) {
  return global_call("nvmlEventSetWait_v2", [=](const SimInventory&) {
    if (set == nullptr || data == nullptr) return k_invalid_argument;
    return wait_for_event(*set, data, timeout);
  });
}

MPS_SIM_ENTRY nvmlDeviceGetFieldValues(nvml::Handle handle, int count, FieldValue* values) {
  return device_call(
      "nvmlDeviceGetFieldValues", handle,
      [=](const SimInventory& inventory, const SimDevice& device) {
        if (values == nullptr || count <= 0) return k_invalid_argument;
        for (int index = 0; index < count; ++index) {
          FieldValue& value = values[index];
          const bool is_known = value.field == k_recovery_field && has_recovery(inventory);
          value.code = is_known ? nvml::k_success : nvml::k_not_supported;
          value.value_type = 1;
          value.value = is_known ? last_action(board_file(), full_uuid(device.uuid)) : 0;
        }
        return nvml::k_success;
      });
}

}  // extern "C"
