// What an instance's events, its daemon's log and admissions say of faults: signals for the
// trackers (fault/signal.h). Pure.
#pragma once

#include <optional>
#include <string>

#include "admission/controller.h"
#include "control/log_event.h"
#include "fault/signal.h"
#include "instance/machine.h"

namespace mps::app {

// `shut_down`: the instance's server is being ended by us. None: it says nothing of faults.
std::optional<fault::Signal> signal_of(const instance::Emit& event, bool shut_down);

// Of those lines that count before the instance has dealt with them: so what they say is on disk
// before the journal says that they were read.
std::optional<fault::Signal> signal_of(const control::LogEvent& line);

// A client that an event tells of, with the little that the event knows.
std::optional<fault::ClientFacts> client_of(const instance::Emit& event, fault::Time at);

fault::ClientFacts facts_of(const admission::LetIn& in, fault::Time at);

}  // namespace mps::app
