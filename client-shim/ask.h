// Asking the agent: one request over one connection, and again while the agent is away.
// Blocks until there is an answer or its deadline has passed. One thread.
#pragma once

#include "connection.h"
#include "message.h"

namespace mps::client {

enum class Verdict {
  granted,
  refused,  // the agent's decision; `code` and `sentence` are its words
  waiting,  // only of look(): one that came now would wait
  away,     // nobody is there, or it says so itself: it may be tried again
  broken,   // what is there does not speak this protocol, or we cannot ask: no use in trying again
};

struct Answer {
  Verdict verdict = Verdict::away;
  Grant grant;
  Text<33> code;        // of a refusal: "quota_clients"
  Text<1025> sentence;  // for a person, in one line, without a full stop
  int error = 0;        // errno of what went wrong on our side of it, where that is what it was
};

// Who answers at a socket: its `hello`.
struct Agent {
  Text<128> instance;     // "gpu0.shared"
  Text<128> share;        // "open", "s12"
  Text<128> device;       // its UUID
  Text<128> device_name;  // "gpu0"
  long long clock = 0;    // the agent's, when it said so
};

inline constexpr long long k_answer_ms =
    5000;  // for connecting, `hello` and an answer to the point

// Connects and hears `hello`. Granted: it is one that we can talk to.
Answer meet(Connection& connection, const char* socket, long long until, Agent& agent);

using SayWaiting = void (*)(const char* sentence);

// Asks for a slot of this process. `wait_ms` 0: takes the answer as it is now. Else waits in the
// agent's line, and for the agent itself where that is away.
Answer ask(const char* socket, long long wait_ms, SayWaiting say_waiting);

// What a program that came now would come to; takes no slot.
Answer look(const char* socket, long long until);

// What an answer means to whoever reads it, in one line: the sentence, and what can be done about
// it.
enum class Waited { no, yes, cannot };  // cannot: who reads it has no --wait
void describe(const Answer& answer, Waited waited, Text<1400>& line);

}  // namespace mps::client
