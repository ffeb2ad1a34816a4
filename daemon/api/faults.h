// Incidents and the quarantine, as the API shows and steers them.
//
// Metrics: mps_supervisor_incidents_total{device,domain,kind}, those that are over, since the
// supervisor's start; mps_supervisor_recovery_seconds{device,domain,kind}, a histogram of the time
// from the fault to serving again; mps_supervisor_quarantined{namespace}, entries that hold;
// mps_supervisor_device_out_of_service{device,needs}, 1 for each device that is.
#pragma once

#include <deque>
#include <string>

#include "api/http.h"
#include "base/result.h"
#include "fault/keeper.h"

namespace mps::api {

// What the API needs of it; the fault room's Keeper has all of it. Threading: the API's executor.
class FaultDesk {
 public:
  virtual ~FaultDesk() = default;
  [[nodiscard]] virtual const std::deque<fault::Incident>& incidents() const = 0;  // by number
  [[nodiscard]] virtual const fault::QuarantineState& quarantine() const = 0;
  [[nodiscard]] virtual const fault::Keeper::Counts& counts() const = 0;
  [[nodiscard]] virtual const fault::DevicesOut& devices_out() const = 0;
  [[nodiscard]] virtual const fault::Keeper::Times& times() const = 0;
  virtual Result<fault::Entry> keep_out(const fault::Order& order, const std::string& by) = 0;
  virtual Result<fault::Entry> lift(const std::string& id, const std::string& by) = 0;
};

// `desk` may be null: of an agent that keeps none of this.
Reply list_faults(const FaultDesk* desk, const Request& request);
Reply show_fault(const FaultDesk* desk, const std::string& id);
Reply list_quarantine(const FaultDesk* desk);
// The peer is there, and may do it.
Reply add_to_quarantine(FaultDesk* desk, const Request& request);
Reply remove_from_quarantine(FaultDesk* desk, const Request& request, const std::string& id);

}  // namespace mps::api
