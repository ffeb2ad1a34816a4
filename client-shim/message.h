// What is said at admission.sock (docs/admission-protocol.md), from the client's end: one message
// is one packet of text, a kind in its first line and key=value in each further one. Pure.
#pragma once

#include "text.h"

namespace mps::client {

inline constexpr size_t k_message_limit = 4096;  // bytes, of a message from the agent

struct Message {
  char text[k_message_limit + 1] = {};
};

// Whether what came in `size` bytes is a message of the protocol at all: a kind, lines that each
// end with a line feed, no NUL. Ends the text behind them.
bool accept(Message& message, size_t size);

[[nodiscard]] bool is(const Message& message, const char* kind);
// False: there is no such key, or its value does not fit; `out` is then empty.
bool value(const Message& message, const char* key, char* out, size_t size);
template <size_t N>
bool value(const Message& message, const char* key, Text<N>& out) {
  return value(message, key, out.data, N);
}
// -1: there is none, or it is no whole number.
[[nodiscard]] long long number(const Message& message, const char* key);

// What a client was granted, or would be.
struct Grant {
  Text<16> percentage;        // "25.0"; empty: no limit
  long long memory_mib = -1;  // -1: no limit
  bool below_normal = false;  // its priority
  Text<96> visible_devices;   // a UUID; empty: CUDA_VISIBLE_DEVICES need not be set
};
// Out of `granted` or `standing`. False: a value is not what the protocol says.
bool read_grant(const Message& message, Grant& grant);

}  // namespace mps::client
