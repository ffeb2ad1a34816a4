#include "apply.h"

#include "environment.h"

namespace mps::client {

UserValues user_values() {
  return {variable(k_percentage_variable), variable(k_memory_variable),
          variable(k_priority_variable), variable(k_devices_variable)};
}

int apply(const Place& place, const Settings& settings) {
  struct Pair {
    const char* name;
    const Setting& setting;
  };
  const Pair pairs[] = {{k_percentage_variable, settings.percentage},
                        {k_memory_variable, settings.memory},
                        {k_priority_variable, settings.priority},
                        {k_devices_variable, settings.visible_devices}};
  int error = set_variable(k_pipe_variable, place.pipe.data);
  for (const auto& [name, setting] : pairs) {
    const int failed = setting.set ? set_variable(name, setting.value.data) : 0;
    if (error == 0) error = failed;
  }
  return error;
}

int apply_no_mps() {
  return set_variable(k_pipe_variable, "/dev/null");
}

int apply_no_devices() {
  return set_variable(k_devices_variable, "");
}

}  // namespace mps::client
