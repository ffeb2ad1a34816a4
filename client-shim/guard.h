// mps-run --guard: the parent of the command, which passes signals and the exit status on as if it
// were not there, reaps, and has CUDA ended in order before a signal ends the command.
//
// What a parent cannot do: be stopped by SIGSTOP for its command. What it does about SIGKILL: the
// command gets it, too, as it is asked for at the parent's death.
// One thread; owns the process.
#pragma once

#include "place.h"

namespace mps::client {

// Forks. In the child it returns, with the signal mask as it was: the command is to be started
// there. The parent stays until the command has ended and never returns. An errno: no fork.
int stay_as_guard(const Place& place, long long grace_ms);

}  // namespace mps::client
