#include "ask.h"

#include <errno.h>
#include <string.h>

namespace mps::client {

namespace {

constexpr long long k_first_pause_ms = 20;
constexpr long long k_longest_pause_ms = 1000;

Answer away(int error, const char* what) {
  Answer answer;
  answer.error = error;
  const char* reason =
      strerror(error);  // NOLINT(concurrency-mt-unsafe): known errors' are constant
  answer.sentence.print("mps-supervisor does not answer: %s: %s", what, reason);
  return answer;
}

Answer broken(const char* why, int error = 0) {
  Answer answer;
  answer.verdict = Verdict::broken;
  answer.error = error;
  answer.sentence.print("%s", why);
  return answer;
}

// Errors of the protocol after which another try may go better.
bool is_passing(const char* code) {
  static constexpr const char* passing[] = {"too_many_connections", "out_of_resources",
                                            "unanswered", "closed", "too_slow"};
  for (const char* one : passing) {
    if (equal(code, one)) return true;
  }
  return false;
}

Answer with_words(Verdict verdict, const Message& message) {
  Answer answer;
  answer.verdict = verdict;
  value(message, "code", answer.code);
  value(message, "sentence", answer.sentence);
  make_printable(answer.code.data);
  make_printable(answer.sentence.data);
  return answer;
}

Answer error_of(const Message& message) {
  auto answer = with_words(Verdict::broken, message);
  if (is_passing(answer.code.data)) answer.verdict = Verdict::away;
  return answer;
}

// The errors of our own making and those of the place; all others may be the agent's being away.
bool is_ours(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS ||
         error == ENAMETOOLONG || error == EACCES || error == EPERM || error == EPROTOTYPE ||
         error == EAFNOSUPPORT;
}

Answer not_reached(int error, const char* what) {
  if (error == EBADMSG) return broken("what answers is not mps-supervisor");
  auto answer = away(error, what);
  if (is_ours(error)) answer.verdict = Verdict::broken;
  return answer;
}

Answer granted(const Message& message) {
  Answer answer;
  answer.verdict = Verdict::granted;
  if (!read_grant(message, answer.grant))
    return broken("mps-supervisor's answer is not understood");
  return answer;
}

Answer decision(const Message& message) {
  if (is(message, "granted")) return granted(message);
  if (is(message, "refused")) return with_words(Verdict::refused, message);
  if (is(message, "error")) return error_of(message);
  return broken("mps-supervisor's answer is not understood");
}

// One connection's worth.
Answer ask_once(const char* socket, long long until, SayWaiting say_waiting) {
  Connection connection;
  Agent agent;
  const long long patience = now_ms() + k_answer_ms;
  auto met = meet(connection, socket, patience > until ? patience : until, agent);
  if (met.verdict != Verdict::granted) return met;
  const long long left = until - now_ms();
  Text<64> request;
  if (left > 0) {
    request.print("ask\ndeadline=%lld\n", agent.clock + left);
  } else {
    request.print("ask\n");
  }
  // What the agent says before it closes can be read all the same.
  const int said = connection.say(request.data);
  Message message;
  for (;;) {
    const int heard = connection.hear(message, (left > 0 ? until : now_ms()) + k_answer_ms);
    if (heard != 0) return not_reached(said != 0 ? said : heard, "no answer");
    if (!is(message, "waiting")) return decision(message);
    const auto waiting = with_words(Verdict::waiting, message);
    if (say_waiting != nullptr) say_waiting(waiting.sentence.data);
  }
}

}  // namespace

Answer meet(Connection& connection, const char* socket, long long until, Agent& agent) {
  if (const int error = connection.dial(socket, until); error != 0) {
    return not_reached(error, socket);
  }
  Message message;
  if (const int error = connection.hear(message, until); error != 0) {
    return not_reached(error, "no greeting");
  }
  if (is(message, "error")) return error_of(message);
  if (!is(message, "hello") || number(message, "protocol") != 1) {
    return broken("mps-supervisor speaks another protocol than this program");
  }
  agent.clock = number(message, "clock");
  value(message, "instance", agent.instance);
  value(message, "share", agent.share);
  value(message, "device", agent.device);
  value(message, "device-name", agent.device_name);
  Answer answer;
  answer.verdict = Verdict::granted;
  return answer;
}

Answer ask(const char* socket, long long wait_ms, SayWaiting say_waiting) {
  const long long until = now_ms() + wait_ms;
  for (long long pause = k_first_pause_ms;; pause *= 2) {
    auto answer = ask_once(socket, until, say_waiting);
    const long long left = until - now_ms();
    if (answer.verdict != Verdict::away || left <= 0) return answer;
    if (pause > k_longest_pause_ms) pause = k_longest_pause_ms;
    sleep_ms(pause < left ? pause : left);
  }
}

Answer look(const char* socket, long long until) {
  Connection connection;
  Agent agent;
  auto met = meet(connection, socket, until, agent);
  if (met.verdict != Verdict::granted) return met;
  const int said = connection.say("standing\n");
  Message message;
  const int heard = connection.hear(message, until);
  if (heard != 0) return not_reached(said != 0 ? said : heard, "no answer");
  if (!is(message, "standing")) return decision(message);
  auto answer = granted(message);
  Text<16> next;
  if (!value(message, "next", next)) return answer;
  if (answer.verdict != Verdict::granted || equal(next.data, "granted")) return answer;
  auto words =
      with_words(equal(next.data, "waiting") ? Verdict::waiting : Verdict::refused, message);
  words.grant = answer.grant;
  return words;
}

namespace {

struct Hint {
  const char* code;
  bool waiting_helps;
  const char* words;  // what else does, or null
};

// What whoever is refused can do about it.
constexpr Hint k_hints[] = {
    {"not_ready", true, nullptr},
    {"timeout", true, nullptr},
    {"quota_clients", true, "end another program of yours"},
    {"quota_threads", true, "end another program of yours"},
    {"quota_memory", true, "end another program of yours"},
    {"device_clients", true, "take another device"},
    {"device_memory", true, "take another device"},
    {"device_threads", true, "take another device"},
    {"uid_conflict", true, "run as the user that has the device"},
    {"too_many_waiting", false, "try again later"},
    {"draining", false, "take another device, or ask this node's operators"},
    {"failed", false, "take another device, or ask this node's operators"},
    {"device_out", false, "take another device, or ask this node's operators"},
    {"share_deleted", false, "start again with a share that is there"},
    {"no_policy", false, "ask this node's operators for a policy"},
    {"unidentified", false, "start it in a container, a systemd unit or a login session"},
    {"wrong_pod", false, "use the share that was made for this pod"},
    {"wrong_domain", false, "use the share of your namespace"},
    {"quarantined", false, "ask this node's operators"},
};
constexpr Hint k_away{"", true, nullptr};
constexpr Hint k_none{"", false, nullptr};

const Hint& hint_for(const Answer& answer) {
  if (answer.verdict == Verdict::away) return k_away;
  for (const auto& hint : k_hints) {
    if (answer.verdict != Verdict::broken && equal(hint.code, answer.code.data)) return hint;
  }
  return k_none;
}

void advise(const Hint& hint, Waited waited, Text<128>& advice) {
  const bool wait = hint.waiting_helps && waited != Waited::cannot;
  const char* how = waited == Waited::yes ? "wait longer with --wait" : "wait with --wait 60s";
  const char* before = wait || hint.words != nullptr ? "; " : "";
  const char* between = wait && hint.words != nullptr ? ", or " : "";
  advice.print("%s%s%s%s", before, wait ? how : "", between,
               hint.words == nullptr ? "" : hint.words);
}

}  // namespace

void describe(const Answer& answer, Waited waited, Text<1400>& line) {
  Text<128> advice;
  advise(hint_for(answer), waited, advice);
  if (answer.verdict == Verdict::refused || answer.verdict == Verdict::waiting) {
    line.print("refused (%s): %s%s", answer.code.data, answer.sentence.data, advice.data);
  } else {
    line.print("%s%s", answer.sentence.data, advice.data);
  }
}

}  // namespace mps::client
