// The command line of mps-run. Pure.
#pragma once

#include "text.h"

namespace mps::client {

inline constexpr const char* k_usage =
    "usage: mps-run [options] [--] COMMAND [ARGUMENT...]\n"
    "Starts COMMAND as a client of CUDA MPS: asks mps-supervisor first, and sets what it was "
    "granted.\n"
    "  --device D                     the share of device D: a number, a name as gpu0, or a UUID\n"
    "  --wait DURATION                wait so long for a place, or for mps-supervisor (30s, 5m, "
    "1h)\n"
    "  --on-refusal=fail|run-without-mps\n"
    "                                 fail (default): do not start; or start without MPS\n"
    "  --guard                        stay as the parent: pass signals and the exit status on, "
    "reap,\n"
    "                                 and have CUDA ended in order before a signal ends the "
    "command\n"
    "  --grace DURATION               with --guard: how long a command that handles SIGTERM may "
    "take\n"
    "                                 for its end before its CUDA is ended (8s)\n"
    "  --help, --version\n"
    "Exit status: the command's own; 125 not started, 126 not executable, 127 not found.\n";

struct Options {
  const char* device = nullptr;
  long long wait_ms = 0;
  long long grace_ms = 8000;
  bool run_without_mps = false;
  bool guard = false;
  bool help = false;
  bool version = false;
  char* const* command = nullptr;  // null-terminated, as in main()
};

// False: `error` says what is wrong and with which word.
bool read_options(int count, char* const* words, Options& options, Text<256>& error);

}  // namespace mps::client
