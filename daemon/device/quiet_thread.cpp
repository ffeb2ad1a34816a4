#include "device/quiet_thread.h"

#include <pthread.h>

#include <csignal>
#include <system_error>
#include <utility>

namespace mps::device {

std::thread start_quiet_thread(std::function<void()> run) {
  std::thread thread;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  // A new thread inherits the mask.
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread = std::thread(std::move(run));
  } catch (const std::system_error&) {  // the caller sees that it has none
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace mps::device
