// A connection to admission.sock. Everything has a deadline, in milliseconds of CLOCK_MONOTONIC.
// One thread; the descriptor is close-on-exec, non-blocking, and never 0, 1 or 2.
#pragma once

#include "message.h"

namespace mps::client {

long long now_ms();
void sleep_ms(long long ms);

class Connection {
 public:
  Connection() = default;
  ~Connection() { close(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // 0, or an errno: ETIMEDOUT where the agent's backlog stayed full until then.
  int dial(const char* path, long long until);
  // 0, or an errno.
  int say(const char* text);
  // 0: `message` is one of the protocol. ETIMEDOUT, ECONNRESET where the agent closed, EBADMSG
  // where it was no such message, or another errno.
  int hear(Message& message, long long until);
  // The same for what is there already: EAGAIN where there is nothing.
  int hear_now(Message& message);

  void close();
  [[nodiscard]] int descriptor() const { return descriptor_; }

 private:
  int descriptor_ = -1;
};

}  // namespace mps::client
