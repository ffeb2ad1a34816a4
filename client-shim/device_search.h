// The share of a certain device, among those beside one's own: by what the agents there say of
// themselves. Blocks, within a deadline in ms of CLOCK_MONOTONIC.
#pragma once

#include "ask.h"
#include "place.h"

namespace mps::client {

// Whether that agent's device is the one that somebody means by "0", "gpu0", "gpu0.shared", a
// share's id, or a UUID or eight characters and more of its beginning. Pure.
bool is_meant(const Agent& agent, const char* wanted);

// `own`, or the share beside it that is of that device: <folder>/../*, and for an open share on the
// node <folder>/../../*/open. False: `why` says that there is none, or more than one.
bool find_device(const Place& own, const char* wanted, long long until, Place& found,
                 Text<512>& why);

}  // namespace mps::client
