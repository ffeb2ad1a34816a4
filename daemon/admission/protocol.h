// What is said at admission.sock, as docs/admission-protocol.md describes it: one message is one
// packet of text, a kind in its first line and key=value in each further one. Pure.
//
// What a peer says is checked to the last byte and nothing of it is guessed; what is said to it is
// cut to the limits here, whatever it is made of.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "admission/desk.h"
#include "base/result.h"

namespace mps::admission {

inline constexpr unsigned k_protocol = 1;
inline constexpr std::size_t k_question_limit = 512;  // bytes of a message to us
inline constexpr std::size_t k_message_limit = 4096;  // and of one from us
inline constexpr std::size_t k_line_limit = 32;       // lines of either
inline constexpr std::size_t k_name_limit = 32;       // bytes of a kind or a key
inline constexpr std::size_t k_value_limit = 1024;
inline constexpr std::size_t k_pids_limit = 64;  // said of those that were asked to end

// Why a connection is ended; "error" in the protocol. What is decided about a request is a Refusal.
enum class Trouble {
  bad_message,
  unknown_request,
  too_long,
  had_descriptors,
  too_early,
  wrong_process,
  already_granted,
  too_slow,
  unanswered,
  too_many_connections,
  out_of_resources,
  unidentified,
  closed,
};
inline constexpr std::size_t k_troubles = static_cast<std::size_t>(Trouble::closed) + 1;
const char* to_string(Trouble code);  // "bad_message", …

struct Fault {
  Trouble code{};
  std::string sentence;
  bool operator==(const Fault&) const = default;
};

// ---- any message ----

struct Message {
  std::string_view kind;
  std::vector<std::pair<std::string_view, std::string_view>> fields{};

  [[nodiscard]] std::optional<std::string_view> find(std::string_view key) const;
};
// Views into `text`. The Error is the sentence for a Fault.
Result<Message> parse(std::string_view text);

// ---- what a peer asks ----

// Milliseconds of the clock that `hello` states.
using ClockTime = std::chrono::milliseconds;

struct Ask {
  bool may_wait = false;
  std::optional<ClockTime> deadline{};  // none, and it may wait: as long as the settings say
  bool operator==(const Ask&) const = default;
};
struct AskStanding {
  bool operator==(const AskStanding&) const = default;
};
struct TerminateOwn {
  Scope scope = Scope::container;
  bool operator==(const TerminateOwn&) const = default;
};
using Question = std::variant<Ask, AskStanding, TerminateOwn>;

std::variant<Question, Fault> decode(std::string_view text);
std::string encode(const Question& question);

// At most `longest`; a deadline that has passed is none.
Wish wish_of(const Ask& ask, ClockTime now, std::chrono::milliseconds longest);

// ---- what it is told ----

struct Hello {
  std::string instance;
  std::string share;
  ClockTime clock{};
  std::chrono::milliseconds longest_wait{};
  std::string device{};       // UUID; empty: not known
  std::string device_name{};  // "gpu0"
};

std::string encode(const Hello& hello);
// `visible_devices`: what CUDA_VISIBLE_DEVICES has to be; empty: whatever it is.
std::string encode(const share::LetIn& granted, std::string_view visible_devices = {});
std::string encode(const share::Waits& waits);
std::string encode(const share::Refusal& refused);
std::string encode(const Standing& standing, std::string_view visible_devices = {});
std::string encode(const Terminated& terminated);
std::string encode(const Fault& fault);

}  // namespace mps::admission
