// nvidia-cuda-mps-control without arguments: commands from stdin, answers to stdout.
#pragma once

#include "steering.h"

namespace mps::sim {

// The exit status. As the real one it prefers control_privileged, sends without waiting for
// answers, and when the daemon hangs up ends by chance with 1 and a message, or with 0 and nothing.
int run_front_end(const Steering& steering);

}  // namespace mps::sim
