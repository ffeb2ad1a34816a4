#include "control/commands.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "base/text.h"

namespace mps::control {

namespace {

constexpr std::string_view k_unknown = "Unknown command \"";
constexpr std::string_view k_marker = "end-of-";
constexpr std::string_view k_no_server_at_all = "Server not found";

// The daemon answers a command it will not carry out with one of these as its first line, and with
// status 0 all the same. Seen on 535 and 550 unless said otherwise; "Server 77 not found" has a
// number in it and is matched apart.
constexpr std::array<std::string_view, 11> k_refusals{
    k_unknown,                  // a command of another version
    "Insufficient privileges",  // 550: a setter through `control` instead of `control_privileged`
    "Not enough privilege",     // quit through `control`
    k_no_server_at_all,         // to what needs one, whichever
    "Invalid ",                 // "Invalid priority value - must be 0 or 1!", "Invalid process …"
    "A user id (UID) is required",              // start_server
    "A server PID is required",                 // 550: get_server_status without one
    "The MPS control daemon is shutting down",  // from the binary, not seen
    "Failed to ",                               // 550 and on, from the binary
    "Unable to ",                               // the same
    "Internal error",                           // the same
};

bool names_missing_server(std::string_view line) {
  return line.starts_with("Server ") && line.find(" not found") != std::string_view::npos;
}

bool is_refusal(std::string_view line) {
  return names_missing_server(line) ||
         std::any_of(k_refusals.begin(), k_refusals.end(),
                     [&](std::string_view words) { return line.starts_with(words); });
}

Answer to_answer(std::vector<std::string> lines) {
  if (lines.empty() || !is_refusal(lines.front())) return Reply{std::move(lines)};
  return Refusal{printable(lines.front())};
}

std::string marker(std::size_t number) {
  return std::string(k_marker) + std::to_string(number);
}

std::string complaint(std::size_t number) {
  return std::string(k_unknown) + marker(number) + '"';
}

bool looks_like_complaint(std::string_view line) {
  return line.starts_with(k_unknown) && line.substr(k_unknown.size()).starts_with(k_marker);
}

// Tenths, rounded down, as that is what the daemon prints: "50", "12.5". What is out of range
// becomes the nearest value in it, and no number at all the smallest: a cap must never grow.
std::string to_percentage(double percentage) {
  const double tenths = std::floor(percentage * 10.0 + 1e-6);
  const auto value = tenths >= 1.0 ? static_cast<int>(std::min(tenths, 1000.0)) : 1;
  auto text = std::to_string(value / 10);
  if (value % 10 != 0) text += "." + std::to_string(value % 10);
  return text;
}

Command command(std::string_view verb) {
  return {std::string(verb)};
}

template <typename... Words>
Command command(std::string_view verb, const Words&... words) {
  Command result{std::string(verb)};
  const auto append = [&](const auto& word) {
    result.text += ' ';
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(word)>>) {
      result.text += std::to_string(word);
    } else {
      result.text += word;
    }
  };
  (append(words), ...);
  return result;
}

std::string to_limit(std::uint64_t mebibytes) {
  return std::to_string(mebibytes) + "M";
}

// The one line of a reply that has exactly one; blank lines do not count.
std::optional<std::string_view> only_line(const Answer& answer) {
  const auto* reply = std::get_if<Reply>(&answer);
  if (reply == nullptr) return std::nullopt;
  std::optional<std::string_view> found;
  for (const auto& line : reply->lines) {
    if (trim(line).empty()) continue;
    if (found) return std::nullopt;
    found = trim(line);
  }
  return found;
}

bool is_empty_reply(const Answer& answer) {
  const auto* reply = std::get_if<Reply>(&answer);
  return reply != nullptr && std::all_of(reply->lines.begin(), reply->lines.end(),
                                         [](const auto& line) { return trim(line).empty(); });
}

bool is_known(const Answer& answer) {
  const auto* refusal = std::get_if<Refusal>(&answer);
  return refusal == nullptr || !refusal->words.starts_with(k_unknown);
}

}  // namespace

Command set_default_active_thread_percentage(double percentage) {
  return command("set_default_active_thread_percentage", to_percentage(percentage));
}
Command get_default_active_thread_percentage() {
  return command("get_default_active_thread_percentage");
}
Command set_default_device_pinned_mem_limit(unsigned ordinal, std::uint64_t mebibytes) {
  return command("set_default_device_pinned_mem_limit", ordinal, to_limit(mebibytes));
}
Command get_default_device_pinned_mem_limit(unsigned ordinal) {
  return command("get_default_device_pinned_mem_limit", ordinal);
}
Command set_default_client_priority(unsigned priority) {
  return command("set_default_client_priority", priority);
}
Command get_default_client_priority() {
  return command("get_default_client_priority");
}
Command get_server_list() {
  return command("get_server_list");
}
Command get_server_status(pid_t server) {
  return command("get_server_status", server);
}
Command get_client_list(pid_t server) {
  return command("get_client_list", server);
}
Command set_active_thread_percentage(pid_t server, double percentage) {
  return command("set_active_thread_percentage", server, to_percentage(percentage));
}
Command get_active_thread_percentage(pid_t server) {
  return command("get_active_thread_percentage", server);
}
Command set_device_pinned_mem_limit(pid_t server, unsigned ordinal, std::uint64_t mebibytes) {
  return command("set_device_pinned_mem_limit", server, ordinal, to_limit(mebibytes));
}
Command get_device_pinned_mem_limit(pid_t server, unsigned ordinal) {
  return command("get_device_pinned_mem_limit", server, ordinal);
}
Command terminate_client(pid_t server, pid_t client) {
  return command("terminate_client", server, client);
}
Command shutdown_server(pid_t server, bool force) {
  return force ? command("shutdown_server", server, "-f") : command("shutdown_server", server);
}
Command quit(std::optional<unsigned> timeout_seconds) {
  return timeout_seconds ? command("quit", "-t", *timeout_seconds) : command("quit");
}

std::string script(const std::vector<Command>& batch) {
  std::string text;
  for (std::size_t index = 0; index < batch.size(); ++index) {
    text += batch[index].text;
    text += '\n' + marker(index + 1) + '\n';
  }
  return text;
}

std::optional<std::vector<Answer>> parse_answers(const std::vector<Command>& batch,
                                                 std::string_view output) {
  std::vector<Answer> answers;
  std::vector<std::string> lines;
  for (const auto line : split_lines(output)) {
    if (answers.size() < batch.size() && line == complaint(answers.size() + 1)) {
      answers.push_back(to_answer(std::exchange(lines, {})));
      continue;
    }
    // A marker out of turn means that some answer forged or lost one. With every real marker still
    // to come, such a batch cannot end in order and is never misread, only not believed.
    if (looks_like_complaint(line)) return std::nullopt;
    lines.emplace_back(line);
  }
  const bool rest =
      std::any_of(lines.begin(), lines.end(), [](const auto& line) { return !trim(line).empty(); });
  if (rest || answers.size() != batch.size()) return std::nullopt;
  return answers;
}

std::vector<Command> capability_probe() {
  // Pid 1 is no server: a daemon that knows the command says "Server 1 not found".
  return {get_server_status(1), command("device_query"), command("lspart")};
}

Capabilities capabilities(const std::vector<Answer>& answers) {
  if (answers.size() != capability_probe().size()) return {};
  return {is_known(answers[0]), is_known(answers[1]), is_known(answers[2])};
}

std::optional<double> read_percentage(const Answer& answer) {
  const auto line = only_line(answer);
  const auto value = line ? parse_number<double>(*line) : std::nullopt;
  if (!value || !(*value > 0.0 && *value <= 100.0)) return std::nullopt;
  return value;
}

std::optional<PinnedLimit> read_pinned_limit(const Answer& answer) {
  if (is_empty_reply(answer)) return PinnedLimit{};
  const auto line = only_line(answer);
  if (!line || line->size() < 2) return std::nullopt;
  const auto number = parse_number<std::uint64_t>(line->substr(0, line->size() - 1));
  const bool gibibytes = line->back() == 'G';
  if (!number || (!gibibytes && line->back() != 'M')) return std::nullopt;
  const std::uint64_t factor = gibibytes ? 1024 : 1;
  if (*number > std::numeric_limits<std::uint64_t>::max() / factor) return std::nullopt;
  return PinnedLimit{*number * factor, gibibytes};
}

std::optional<unsigned> read_priority(const Answer& answer) {
  const auto line = only_line(answer);
  const auto value = line ? parse_number<unsigned>(*line) : std::nullopt;
  if (!value || *value > 1) return std::nullopt;
  return value;
}

std::optional<std::vector<pid_t>> read_pids(const Answer& answer) {
  const auto* reply = std::get_if<Reply>(&answer);
  if (reply == nullptr) return std::nullopt;
  std::vector<pid_t> pids;
  for (const auto& line : reply->lines) {
    if (trim(line).empty()) continue;
    const auto pid = parse_number<pid_t>(trim(line));
    // A client of another pid namespace that the daemon cannot see is listed as 0.
    if (!pid || *pid < 0) return std::nullopt;
    pids.push_back(*pid);
  }
  return pids;
}

bool prints_as(std::optional<std::uint64_t> wanted_mebibytes, const PinnedLimit& seen) {
  const auto wanted = wanted_mebibytes.value_or(0);
  if (wanted == 0 || !seen.mebibytes) return wanted == 0 && !seen.mebibytes;
  if (!seen.whole_gibibytes) return wanted == *seen.mebibytes;
  return wanted / 1024 == *seen.mebibytes / 1024;
}

}  // namespace mps::control
