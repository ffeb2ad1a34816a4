#include "app/bypass.h"

#include <doctest/doctest.h>

#include <optional>
#include <string>

using namespace mps;
using namespace mps::app;
using device::ComputeMode;
using device::Kind;
using instance::Bypass;
using instance::ServerStatus;

namespace {

instance::Server server(ServerStatus status, pid_t pid) {
  instance::Server made;
  made.pid = pid;
  made.status = status;
  return made;
}

}  // namespace

TEST_CASE("bypass is closed where a server has the device for itself, else audited or open") {
  struct Row {
    const char* what;
    std::optional<ComputeMode> mode;
    Kind kind;
    const char* domain;
    std::optional<ServerStatus> server;
    bool audited;
    Bypass bypass;
  };
  const auto exclusive = ComputeMode::exclusive_process;
  const auto active = ServerStatus::active;
  const Row rows[] = {
      {"all that it takes", exclusive, Kind::gpu, "shared", active, false, Bypass::closed},
      {"audited besides", exclusive, Kind::gpu, "shared", active, true, Bypass::closed},
      {"a fault keeps it", exclusive, Kind::gpu, "shared", ServerStatus::fault, false,
       Bypass::closed},
      {"no server yet", exclusive, Kind::gpu, "shared", std::nullopt, false, Bypass::open},
      {"no server, audited", exclusive, Kind::gpu, "shared", std::nullopt, true, Bypass::audited},
      {"one that starts", exclusive, Kind::gpu, "shared", ServerStatus::starting, false,
       Bypass::open},
      {"one that failed", exclusive, Kind::gpu, "shared", ServerStatus::start_failed, false,
       Bypass::open},
      {"one that ended", exclusive, Kind::gpu, "shared", ServerStatus::exited, false, Bypass::open},
      {"a namespace's own", exclusive, Kind::gpu, "ns-team-a", active, true, Bypass::audited},
      {"a MIG device", exclusive, Kind::mig, "shared", active, false, Bypass::open},
      {"the default mode", ComputeMode::default_mode, Kind::gpu, "shared", active, false,
       Bypass::open},
      {"the default mode, audited", ComputeMode::default_mode, Kind::gpu, "shared", active, true,
       Bypass::audited},
      {"the mode is not known", std::nullopt, Kind::gpu, "shared", active, false, Bypass::open}};
  for (const auto& row : rows) {
    CAPTURE(row.what);
    device::Device device;
    device.kind = row.kind;
    device.compute_mode = row.mode;
    instance::Snapshot instance;
    instance.domain = row.domain;
    if (row.server) instance.server = server(*row.server, 42);
    CHECK(bypass_of(instance, &device, row.audited) == row.bypass);
  }
}

TEST_CASE("of a device that is not known, or a server that never came up, it is not closed") {
  device::Device device;
  device.compute_mode = ComputeMode::exclusive_process;
  instance::Snapshot instance;
  instance.server = server(ServerStatus::active, 0);
  CHECK(bypass_of(instance, &device, false) == Bypass::open);
  instance.server->pid = 42;
  CHECK(bypass_of(instance, &device, false) == Bypass::closed);
  CHECK(bypass_of(instance, nullptr, false) == Bypass::open);
  device.mig_enabled = true;
  CHECK(bypass_of(instance, &device, true) == Bypass::audited);
}
