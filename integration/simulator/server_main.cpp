#include <csignal>
#include <cstdio>

#include "server.h"

// Started by the control daemon alone, without arguments.
int main(int count, char**) {
  if (count > 1) {
    (void)std::puts("MPS Server for Linux/Unix.");
    return 0;
  }
  (void)std::signal(SIGPIPE, SIG_IGN);
  // A forced shutdown is a SIGINT, which shells ignore in what they start in the background.
  (void)std::signal(SIGINT, SIG_DFL);
  return mps::sim::Server(mps::sim::Steering::load(mps::sim::own_program())).run();
}
