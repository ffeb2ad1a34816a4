#include "guard_plan.h"

#include <signal.h>
#include <string.h>

namespace mps::client {

namespace {

// The 16 hexadecimal digits behind "\nSigCgt:\t".
bool read_mask(const char* status, const char* name, unsigned long long& mask) {
  const char* at = strstr(status, name);
  if (at == nullptr) return false;
  at += strlen(name);
  at += strspn(at, "\t ");
  const size_t digits = strspn(at, "0123456789abcdef");
  if (digits == 0 || digits > 16) return false;
  unsigned long long value = 0;
  for (size_t i = 0; i < digits; ++i) {
    const auto digit = static_cast<unsigned>(at[i] <= '9' ? at[i] - '0' : at[i] - 'a' + 10);
    value = value << 4 | digit;
  }
  mask |= value;
  return true;
}

// What a terminal sends to all of its foreground group, or the kernel to all of an orphaned one.
bool reaches_the_group(int signal, bool leads_session) {
  switch (signal) {
    case SIGINT:
    case SIGQUIT:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGWINCH:
      return true;
    case SIGHUP:
    case SIGCONT:
      return !leads_session;
    default:
      return false;
  }
}

}  // namespace

Handled read_handled(const char* status) {
  Handled handled;
  handled.known = read_mask(status, "\nSigBlk:", handled.signals) &&
                  read_mask(status, "\nSigIgn:", handled.signals) &&
                  read_mask(status, "\nSigCgt:", handled.signals);
  return handled;
}

bool ends_by_default(int signal) {
  switch (signal) {
    case SIGCHLD:
    case SIGCONT:
    case SIGURG:
    case SIGWINCH:
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
      return false;
    default:
      return true;
  }
}

Treatment treatment_of(int signal, bool from_kernel, bool leads_session, const Handled& handled) {
  if (from_kernel && reaches_the_group(signal, leads_session)) return Treatment::drop;
  if (ends_by_default(signal) && !handled.has(signal)) return Treatment::hold;
  return signal == SIGTERM ? Treatment::pass_and_wait : Treatment::pass;
}

}  // namespace mps::client
