// mps-xid-watch: says what NVML tells about the GPUs' troubles as it comes, one line of JSON each,
// until its stdin closes: Xid errors and, where the driver knows them, recovery actions. The
// library is libnvidia-ml.so.1, the simulated one or the real one.
#include <dlfcn.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "json_line.h"

namespace {

using mps::probe::JsonLine;

constexpr unsigned long long k_xid_events = 0x8;
constexpr unsigned long long k_recovery_events = 0x8000;
constexpr unsigned k_recovery_field = 230;
constexpr int k_timeout = 10;
constexpr unsigned k_between_looks_ms = 200;  // at stdin

struct EventData {
  void* device;
  unsigned long long type;
  unsigned long long data;
  unsigned gpu_instance;
  unsigned compute_instance;
};

struct FieldValue {
  unsigned field;
  unsigned scope;
  long long timestamp;
  long long latency;
  unsigned value_type;
  int code;
  unsigned long long value;
};

class Nvml {
 public:
  Nvml() : library_(::dlopen("libnvidia-ml.so.1", RTLD_NOW)) {}
  [[nodiscard]] bool is_loaded() const { return library_ != nullptr; }

  // 13, 'function not found', where this library has no such function.
  template <typename... Arguments>
  int call(const char* name, Arguments... arguments) const {
    using Function = int (*)(Arguments...);
    const auto function = reinterpret_cast<Function>(::dlsym(library_, name));
    return function == nullptr ? 13 : function(arguments...);
  }

 private:
  void* library_;
};

std::string uuid_of(const Nvml& nvml, void* device) {
  std::array<char, 96> uuid{};
  (void)nvml.call("nvmlDeviceGetUUID", device, uuid.data(), static_cast<unsigned>(uuid.size()));
  return uuid.data();
}

// -1 where it is not told.
long long recovery_action(const Nvml& nvml, void* device) {
  FieldValue value{};
  value.field = k_recovery_field;
  FieldValue* const values = &value;
  const int code = nvml.call("nvmlDeviceGetFieldValues", device, 1, values);
  return code == 0 && value.code == 0 ? static_cast<long long>(value.value & 0xffffffffU) : -1;
}

void watch_device(const Nvml& nvml, void* device, void* set) {
  unsigned long long types = 0;
  (void)nvml.call("nvmlDeviceGetSupportedEventTypes", device, &types);
  types &= k_xid_events | k_recovery_events;
  const int code = nvml.call("nvmlDeviceRegisterEvents", device, types, set);
  JsonLine()
      .text("watched", uuid_of(nvml, device))
      .number("types", static_cast<std::int64_t>(types))
      .number("result", code)
      .number("recoveryAction", recovery_action(nvml, device))
      .print();
}

bool is_told_to_end() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  std::array<char, 64> ignored{};
  return ::poll(&input, 1, 0) > 0 && ::read(STDIN_FILENO, ignored.data(), ignored.size()) <= 0;
}

int watch(const Nvml& nvml, void* set) {
  while (!is_told_to_end()) {
    EventData event{};
    EventData* const into = &event;
    const int code = nvml.call("nvmlEventSetWait_v2", set, into, k_between_looks_ms);
    if (code == k_timeout) continue;
    if (code != 0) {
      JsonLine().number("result", code).print();
      return 1;
    }
    JsonLine()
        .text("device", uuid_of(nvml, event.device))
        .text("event", event.type == k_xid_events ? "xid" : "recoveryAction")
        .number("number", static_cast<std::int64_t>(event.data))
        .number("gpuInstance", static_cast<std::int32_t>(event.gpu_instance))
        .number("computeInstance", static_cast<std::int32_t>(event.compute_instance))
        .number("recoveryAction", recovery_action(nvml, event.device))
        .print();
  }
  return 0;
}

}  // namespace

int main() {
  const Nvml nvml;
  void* set = nullptr;
  unsigned count = 0;
  if (!nvml.is_loaded() || nvml.call("nvmlInit_v2") != 0 ||
      nvml.call("nvmlDeviceGetCount_v2", &count) != 0 ||
      nvml.call("nvmlEventSetCreate", &set) != 0) {
    (void)std::fputs("mps-xid-watch: no libnvidia-ml.so.1 that can be used\n", stderr);
    return 1;
  }
  for (unsigned index = 0; index < count; ++index) {
    void* device = nullptr;
    if (nvml.call("nvmlDeviceGetHandleByIndex_v2", index, &device) == 0) {
      watch_device(nvml, device, set);
    }
  }
  const int status = watch(nvml, set);
  (void)nvml.call("nvmlEventSetFree", set);
  (void)nvml.call("nvmlShutdown");
  return status;
}
