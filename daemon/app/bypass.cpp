#include "app/bypass.h"

namespace mps::app {

namespace {

bool server_runs(const instance::Snapshot& instance) {
  using instance::ServerStatus;
  if (!instance.server || instance.server->pid == 0) return false;
  const auto status = instance.server->status;
  return status == ServerStatus::active || status == ServerStatus::fault;
}

bool is_exclusive(const device::Device& device) {
  return device.kind == device::Kind::gpu && !device.mig_enabled &&
         device.compute_mode == device::ComputeMode::exclusive_process;
}

}  // namespace

instance::Bypass bypass_of(const instance::Snapshot& instance, const device::Device* device,
                           bool audited) {
  const bool closed = device != nullptr && is_exclusive(*device) && instance.domain == "shared" &&
                      server_runs(instance);
  if (closed) return instance::Bypass::closed;
  return audited ? instance::Bypass::audited : instance::Bypass::open;
}

}  // namespace mps::app
