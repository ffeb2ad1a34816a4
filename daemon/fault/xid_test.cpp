#include "fault/xid.h"

#include <doctest/doctest.h>

#include <vector>

using namespace mps::fault;

TEST_CASE("an Xid and a recovery action, and what they mean for a device") {
  using enum Consequence;
  using Action = RecoveryAction;
  struct Case {
    std::optional<unsigned> xid;
    std::optional<Action> action;
    Consequence meant;
  };
  const std::vector<Case> cases{
      // The table alone.
      {13, {}, client_fault},
      {31, {}, client_fault},
      {32, {}, client_fault},
      {68, {}, client_fault},
      {69, {}, client_fault},
      {94, {}, client_fault},
      {43, {}, nothing},
      {44, {}, nothing},
      {45, {}, nothing},
      {63, {}, nothing},
      {74, {}, nothing},
      {92, {}, nothing},
      {154, {}, nothing},
      {160, {}, nothing},
      {999, {}, nothing},
      {46, {}, out_until_reset},
      {48, {}, out_until_reset},
      {62, {}, out_until_reset},
      {64, {}, out_until_reset},
      {95, {}, out_until_reset},
      {110, {}, out_until_reset},
      {119, {}, out_until_reset},
      {120, {}, out_until_reset},
      {140, {}, out_until_reset},
      {143, {}, out_until_reset},
      {158, {}, out_until_reset},
      {79, {}, out_until_reboot},
      // The catalogue and the device plugin disagree.
      {109, {}, client_fault},
      // The action beats the table, both ways.
      {109, Action::gpu_reset, out_until_reset},
      {109, Action::none, client_fault},
      {31, Action::gpu_reset, out_until_reset},
      {31, Action::node_reboot, out_until_reboot},
      {31, Action::none, client_fault},
      {95, Action::none, client_fault},
      {79, Action::none, client_fault},
      {79, Action::gpu_reset, out_until_reset},
      {45, Action::none, nothing},
      {154, Action::drain_p2p, out_until_reset},
      {154, Action::drain_and_reset, out_until_reset},
      {154, Action::bus_reset, out_until_reset},
      {154, Action::node_reboot, out_until_reboot},
      {154, Action::none, nothing},
      {95, Action::unknown, out_until_reset},
      {31, Action::unknown, client_fault},
      {{}, Action::gpu_reset, out_until_reset},
      {{}, Action::none, nothing},
      {{}, {}, nothing},
  };
  for (const auto& [xid, action, meant] : cases) {
    CAPTURE(xid.value_or(0));
    CAPTURE(to_string(action.value_or(Action::unknown)));
    CHECK(judge(xid, action) == meant);
  }
}

// Else a tenant could take a device away from everybody.
TEST_CASE("what a program can bring about takes no device out by its number") {
  for (const unsigned xid : {13U, 31U, 32U, 43U, 44U, 45U, 68U, 69U, 94U, 109U}) {
    CAPTURE(xid);
    for (const auto action : {std::optional<RecoveryAction>(), std::optional(RecoveryAction::none),
                              std::optional(RecoveryAction::unknown)}) {
      CHECK_FALSE(takes_out(judge(xid, action)));
    }
  }
}

TEST_CASE("whom an Xid blames") {
  for (const unsigned xid : {13U, 31U, 32U, 43U, 45U, 68U, 69U, 109U, 154U, 999U}) {
    CHECK_FALSE(blames_hardware(xid));
  }
  for (const unsigned xid : {46U, 48U, 79U, 94U, 95U, 119U, 140U}) CHECK(blames_hardware(xid));
}

TEST_CASE("an Xid in words") {
  CHECK(describe_xid(31) == "Xid 31 (MMU page fault)");
  CHECK(describe_xid(79) == "Xid 79 (GPU has fallen off the bus)");
  CHECK(describe_xid(7) == "Xid 7 (not known to this version)");
  CHECK(look_up_xid(45) == XidEntry{45, XidClass::follow_up, look_up_xid(45).text});
}

TEST_CASE("NVML's recovery actions") {
  const std::vector<std::string> names{"none",      "gpu_reset",       "node_reboot",
                                       "drain_p2p", "drain_and_reset", "unknown",
                                       "bus_reset", "node_reboot",     "unknown"};
  for (unsigned value = 0; value < names.size(); ++value) {
    CAPTURE(value);
    CHECK(to_string(recovery_action(value)) == names[value]);
  }
}
