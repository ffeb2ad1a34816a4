// What mps-run --guard does with a signal that it gets in the place of its command. Pure.
//
// A client of MPS that is killed while its kernels run can hang the server, and with it everybody
// (docs/mps-behaviour.md): so before a signal ends a command that does nothing about it, the agent
// is asked to end the command's CUDA in order.
#pragma once

#include "text.h"

namespace mps::client {

// What a process does about signals itself: catches, ignores, or has blocked, as who waits with
// sigwait() or signalfd() has. Bit n-1 is signal n, as in /proc/<pid>/status.
struct Handled {
  bool known = false;
  unsigned long long signals = 0;

  [[nodiscard]] bool has(int signal) const {
    return known && signal >= 1 && signal <= 64 && (signals >> (signal - 1) & 1) != 0;
  }
};
// Out of the text of /proc/<pid>/status. Not known where a line is missing.
Handled read_handled(const char* status);

// Whether a process that does nothing about it ends by it.
[[nodiscard]] bool ends_by_default(int signal);

enum class Treatment {
  drop,           // the terminal sent it to the command as well
  pass,           // on to the command, at once
  pass_and_wait,  // the end was asked for: the command has its time of grace from now on
  hold,           // on to the command when its CUDA has been ended
};
// `from_kernel`: as si_code has it. `leads_session`: a hangup goes to the leader alone.
Treatment treatment_of(int signal, bool from_kernel, bool leads_session, const Handled& handled);

}  // namespace mps::client
