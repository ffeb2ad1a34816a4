// Who was on an instance in an earlier supervisor's time, as it was recorded when they came: by the
// desk (admissions.log) where there is a gate, and by the journal. What neither says is not known,
// and stays so. Pure.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "admission/controller.h"
#include "api/event_log.h"
#include "fault/incident.h"

namespace mps::app {

struct RecalledClient {
  fault::ClientFacts facts;
  std::optional<fault::Time> until{};  // none: it had not gone when that supervisor ended
};

struct RecalledClients {
  std::vector<RecalledClient> clients;  // at most fault::k_client_limit who are there, and gone
  // Whether nobody else was there: with a gate its records say so, without one the journal where
  // it reaches back to the start of the server.
  bool all = false;
};

// `desk`: of all instances; none: there is no gate. `events`: in order.
RecalledClients recall_clients(const std::optional<std::vector<admission::LetIn>>& desk,
                               bool desk_is_whole, const std::deque<api::Event>& events,
                               const std::string& instance);

}  // namespace mps::app
