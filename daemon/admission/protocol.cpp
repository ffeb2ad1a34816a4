#include "admission/protocol.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "base/text.h"

namespace mps::admission {

namespace {

using std::chrono::milliseconds;

constexpr std::string_view k_capabilities = "ask standing terminate-own";

bool is_name(std::string_view text) {
  const auto fits = [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; };
  return !text.empty() && text.size() <= k_name_limit && std::ranges::all_of(text, fits);
}

// A value is part of a line, so a line end within it is as odd as any control character.
bool is_value(std::string_view text) {
  return text.size() <= k_value_limit && !find_odd_character(text) &&
         text.find_first_of("\t\r\n") == std::string_view::npos;
}

std::string quoted(std::string_view text) {
  return "\"" + printable(text, 64) + "\"";
}

Error odd_line(std::size_t number, std::string_view what) {
  return Error{"line " + std::to_string(number) + " is not " + std::string(what)};
}

// Printable, and never longer than `limit`: what printable() makes of odd bytes is longer than they
// are.
std::string fitting(std::string_view text, std::size_t limit = k_value_limit) {
  constexpr std::size_t k_ellipsis = 3;
  auto out = printable(text, limit);
  return out.size() <= limit ? out : printable(out, limit - k_ellipsis);
}

class Writer {
 public:
  explicit Writer(std::string_view kind) { (text_ += kind) += '\n'; }
  Writer& add(std::string_view key, std::string_view value, std::size_t limit = k_value_limit) {
    (((text_ += key) += '=') += fitting(value, limit)) += '\n';
    return *this;
  }
  // A word or two; none, and there is no such line.
  Writer& add_short(std::string_view key, std::string_view value) {
    constexpr std::size_t k_limit = 128;
    return value.empty() ? *this : add(key, value, k_limit);
  }
  template <typename Number>
  requires std::is_integral_v<Number> Writer& add(std::string_view key, Number value) {
    return add(key, std::string_view(std::to_string(value)));
  }
  Writer& add(const share::Grant& grant) {
    const auto tenths = std::lround(grant.active_thread_percentage * 10);
    add("active-thread-percentage",
        std::to_string(tenths / 10) + "." + std::to_string(tenths % 10));
    if (grant.pinned_memory_mebibytes) add("pinned-memory-mib", *grant.pinned_memory_mebibytes);
    if (grant.below_normal) add("client-priority", 1);
    return *this;
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string with_reason(std::string_view kind, const share::Refusal& why) {
  return Writer(kind).add("code", share::to_string(why.code)).add("sentence", why.sentence).take();
}

// A deadline beyond what a clock can say is as good as the latest.
std::optional<Ask> decode_deadline(std::string_view value) {
  if (value == "default") return Ask{true, std::nullopt};
  constexpr std::size_t k_most_digits = 18;
  if (value.empty() || value.size() > k_most_digits) return std::nullopt;
  if (value.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  return Ask{true, ClockTime(parse_number<std::int64_t>(value).value())};
}

std::optional<Fault> other_key(const Message& message, std::string_view allowed) {
  for (const auto& [key, value] : message.fields) {
    if (key != allowed) {
      return Fault{Trouble::bad_message, quoted(message.kind) + " has no key " + quoted(key)};
    }
  }
  return std::nullopt;
}

std::variant<Question, Fault> decode_ask(const Message& message) {
  if (const auto fault = other_key(message, "deadline")) return *fault;
  const auto deadline = message.find("deadline");
  if (!deadline) return Ask{};
  if (const auto ask = decode_deadline(*deadline)) return *ask;
  return Fault{
      Trouble::bad_message,
      "deadline must be \"default\" or milliseconds of the clock in hello: " + quoted(*deadline)};
}

std::variant<Question, Fault> decode_terminate(const Message& message) {
  if (const auto fault = other_key(message, "scope")) return *fault;
  const auto scope = message.find("scope").value_or("container");
  if (scope == "container") return TerminateOwn{};
  if (scope == "descendants") return TerminateOwn{Scope::descendants};
  return Fault{Trouble::bad_message,
               "scope must be \"container\" or \"descendants\": " + quoted(scope)};
}

}  // namespace

const char* to_string(Trouble code) {
  static constexpr std::array<const char*, k_troubles> k_names = {
      "bad_message",      "unknown_request", "too_long", "had_descriptors", "too_early",
      "wrong_process",    "already_granted", "too_slow", "unanswered",      "too_many_connections",
      "out_of_resources", "unidentified",    "closed"};
  return k_names.at(static_cast<std::size_t>(code));
}

std::optional<std::string_view> Message::find(std::string_view key) const {
  for (const auto& [name, value] : fields) {
    if (name == key) return value;
  }
  return std::nullopt;
}

Result<Message> parse(std::string_view text) {
  if (text.empty()) return Error{"the message is empty"};
  if (!text.ends_with('\n')) return Error{"the last line has no end"};
  Message message;
  for (std::size_t number = 1; !text.empty(); ++number) {
    if (number > k_line_limit) return Error{"it has too many lines"};
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() + 1);
    if (number == 1) {
      if (!is_name(line)) return odd_line(number, "a kind of message");
      message.kind = line;
      continue;
    }
    const auto sign = std::min(line.find('='), line.size());
    const auto key = line.substr(0, sign);
    if (sign == line.size() || !is_name(key) || !is_value(line.substr(sign + 1))) {
      return odd_line(number, "key=value");
    }
    if (message.find(key)) return Error{quoted(key) + " is there twice"};
    message.fields.emplace_back(key, line.substr(sign + 1));
  }
  return message;
}

std::variant<Question, Fault> decode(std::string_view text) {
  if (text.size() > k_question_limit) {
    return Fault{Trouble::too_long,
                 "a request has at most " + std::to_string(k_question_limit) + " bytes"};
  }
  const auto message = parse(text);
  if (!message) return Fault{Trouble::bad_message, message.error().message};
  if (message->kind == "ask") return decode_ask(*message);
  if (message->kind == "terminate-own") return decode_terminate(*message);
  if (message->kind != "standing") {
    return Fault{Trouble::unknown_request, "unknown request " + quoted(message->kind)};
  }
  if (const auto fault = other_key(*message, {})) return *fault;
  return AskStanding{};
}

std::string encode(const Question& question) {
  if (std::holds_alternative<AskStanding>(question)) return "standing\n";
  if (const auto* terminate = std::get_if<TerminateOwn>(&question)) {
    const bool all = terminate->scope == Scope::container;
    return all ? "terminate-own\n" : "terminate-own\nscope=descendants\n";
  }
  const auto& ask = std::get<Ask>(question);
  if (!ask.may_wait) return "ask\n";
  if (!ask.deadline) return "ask\ndeadline=default\n";
  return "ask\ndeadline=" + std::to_string(ask.deadline->count()) + "\n";
}

Wish wish_of(const Ask& ask, ClockTime now, milliseconds longest) {
  if (!ask.may_wait) return {.may_wait = false};
  if (!ask.deadline) return {};
  if (*ask.deadline <= now) return {.may_wait = false};
  return {.may_wait = true, .wait = std::min(*ask.deadline - now, longest)};
}

std::string encode(const Hello& hello) {
  return Writer("hello")
      .add("protocol", k_protocol)
      .add("capabilities", k_capabilities)
      .add("agent", std::string_view(MPS_VERSION))
      .add("instance", hello.instance)
      .add("share", hello.share)
      .add_short("device", hello.device)
      .add_short("device-name", hello.device_name)
      .add("clock", hello.clock.count())
      .add("longest-wait", hello.longest_wait.count())
      .take();
}

std::string encode(const share::LetIn& granted, std::string_view visible_devices) {
  return Writer("granted")
      .add("slot", granted.slot)
      .add("again", granted.again ? std::string_view("yes") : "no")
      .add(granted.grant)
      .add_short("visible-devices", visible_devices)
      .take();
}

std::string encode(const share::Waits& waits) {
  return with_reason("waiting", waits);
}

std::string encode(const share::Refusal& refused) {
  return with_reason("refused", refused);
}

std::string encode(const Standing& standing, std::string_view visible_devices) {
  static constexpr std::array<std::string_view, 3> k_words = {"granted", "waiting", "refused"};
  const auto& next = standing.next;
  Writer message("standing");
  message.add("namespace", standing.subject)
      .add("container", standing.container)
      .add("clients", standing.clients)
      .add_short("instance-state", standing.instance_state)
      .add(standing.grant)
      .add_short("visible-devices", visible_devices)
      .add("next", k_words.at(static_cast<std::size_t>(next.kind)));
  if (next.kind != share::Prospect::Kind::granted) {
    message.add("code", share::to_string(next.why.code)).add("sentence", next.why.sentence);
  }
  return message.take();
}

std::string encode(const Terminated& terminated) {
  const std::span<const pid_t> all(terminated.asked);
  std::string pids;
  for (const auto pid : all.first(std::min(all.size(), k_pids_limit))) {
    (pids += pids.empty() ? "" : " ") += std::to_string(pid);
  }
  Writer message("terminated");
  message.add("asked", all.size()).add("pids", pids).add("failed", terminated.failed.size());
  std::string reasons;
  for (const auto& reason : terminated.failed) {
    if (reasons.size() > k_value_limit) break;
    (reasons += reasons.empty() ? "" : "; ") += reason;
  }
  if (!reasons.empty()) message.add("sentence", reasons);
  return message.take();
}

std::string encode(const Fault& fault) {
  return Writer("error").add("code", to_string(fault.code)).add("sentence", fault.sentence).take();
}

}  // namespace mps::admission
