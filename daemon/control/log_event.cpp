#include "control/log_event.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <span>
#include <string>
#include <utility>

#include "base/text.h"

namespace mps::control {

namespace {

// Reads along a text: each step takes what it asks for, or takes nothing and says so.
class Scan {
 public:
  explicit Scan(std::string_view text) : rest_(text) {}

  bool literal(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(' '), rest_.size())); }
  bool past(std::string_view word) {
    const auto at = rest_.find(word);
    if (at == std::string_view::npos) return false;
    rest_.remove_prefix(at + word.size());
    return true;
  }
  template <typename Number>
  bool number(Number& value) {
    const auto digits =
        rest_.substr(0, std::min(rest_.find_first_not_of("+-.0123456789"), rest_.size()));
    // A sentence may end behind the number.
    const auto exact = digits.substr(0, digits.find_last_not_of('.') + 1);
    const auto parsed = parse_number<Number>(exact);
    if (!parsed) return false;
    value = *parsed;
    rest_.remove_prefix(exact.size());
    return true;
  }
  // A pid or a uid, which is never negative.
  bool id(pid_t& value) { return number(value) && value >= 0; }
  bool id(uid_t& value) { return number(value); }

  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

struct ClientIds {
  pid_t pid = 0;
  unsigned context = 0;
};

// "{11641, 1}" and, from 580, "{PID: 4267, Context ID: 0}".
bool client_ids(Scan& scan, ClientIds& ids) {
  if (!scan.literal("{")) return false;
  if (scan.literal("PID:")) scan.blanks();
  if (!scan.id(ids.pid) || !scan.literal(",")) return false;
  scan.blanks();
  if (scan.literal("Context ID:")) scan.blanks();
  return scan.number(ids.context) && scan.literal("}");
}

bool starts_with_any(std::string_view text, std::span<const std::string_view> words) {
  return std::any_of(words.begin(), words.end(),
                     [&](std::string_view word) { return text.starts_with(word); });
}

// ---- what the control daemon says

using Reader = std::optional<LogEventKind> (*)(Scan scan, pid_t writer);

std::optional<LogEventKind> daemon_listening(Scan scan, pid_t) {
  if (!scan.literal("Starting control daemon using socket ")) return std::nullopt;
  return DaemonListening{printable(scan.rest())};
}

std::optional<LogEventKind> client_asked(Scan scan, pid_t) {
  ClientAsked event;
  if (!scan.literal("NEW CLIENT ") || !scan.id(event.pid)) return std::nullopt;
  if (!scan.literal(" from user ") || !scan.id(event.uid)) return std::nullopt;
  event.queued = scan.past("pending list");
  return event;
}

std::optional<LogEventKind> server_starting(Scan scan, pid_t) {
  ServerStarting event;
  if (!scan.literal("Starting new server ") || !scan.id(event.pid)) return std::nullopt;
  if (!scan.literal(" for user ") || !scan.id(event.uid)) return std::nullopt;
  return event;
}

std::optional<LogEventKind> server_ready(Scan scan, pid_t) {
  ServerReady event;
  if (!scan.literal("NEW SERVER ") || !scan.id(event.pid)) return std::nullopt;
  if (!scan.literal(": Ready")) return std::nullopt;
  return event;
}

std::optional<LogEventKind> server_exited(Scan scan, pid_t) {
  ServerExited event;
  if (!scan.literal("Server ") || !scan.id(event.pid)) return std::nullopt;
  if (!scan.literal(" exited with status ") || !scan.number(event.status)) return std::nullopt;
  return event;
}

std::optional<LogEventKind> daemon_exiting(Scan scan, pid_t) {
  DaemonExiting event;
  if (!scan.literal("Exit with status ") || !scan.number(event.status)) return std::nullopt;
  return event;
}

std::optional<LogEventKind> server_not_forked(Scan scan, pid_t writer) {
  if (!scan.literal("Failed to start server using uid ") || !scan.past(". ")) return std::nullopt;
  return ServerStartFailed{writer, printable(scan.rest())};
}

std::optional<LogEventKind> server_to_end(Scan scan, pid_t) {
  ServerToEnd event;
  const bool said =
      scan.literal("Try shutting down server ") || scan.literal("Force shutting down server ");
  if (!said || !scan.id(event.pid)) return std::nullopt;
  return event;
}

std::optional<LogEventKind> server_stays(Scan scan, pid_t) {
  ServerStays event;
  if (!scan.literal("Server ") || !scan.id(event.pid) || !scan.literal(" has ")) {
    return std::nullopt;
  }
  if (!scan.past("Server will not shutdown")) return std::nullopt;
  return event;
}

std::optional<LogEventKind> command_refused(Scan scan, pid_t) {
  if (!scan.literal("Not enough privilege") && !scan.literal("Insufficient privileges")) {
    return std::nullopt;
  }
  return CommandRefused{};
}

constexpr std::array<Reader, 10> k_control_readers{
    daemon_listening, client_asked,  server_starting, server_ready,    server_exited,
    daemon_exiting,   server_to_end, server_stays,    command_refused, server_not_forked};

// Known lines of the daemon that say nothing new, answers to commands among them.
constexpr std::array<std::string_view, 23> k_control_noise{
    "To connect CUDA applications to this daemon",
    "CUDA MPS Control",
    "User did not send valid credentials",  // a client's probe; also before each that is let in
    "Unable to accept",
    "Unable to read new connection type information",
    "Unknown type of connection",
    "Server encountered a fatal exception",  // its exit follows
    "NEW SERVER ",                           // "…: Ignoring old connection request"
    "NEW DEBUGGEE ",
    "Removed Shm file at",
    "Using log directory",
    "Warning: ",
    "quit command issued with timeout",
    "Control will try shutting down server",  // and says so again when it does
    "Unknown command \"",
    "Server not found",
    "Invalid ",
    "No default pinned memory limit set",
    "A user id (UID) is required",
    "A server PID is required",
    "The MPS control daemon is shutting down",
    "PID       ID",  // ps
    "Failed to create control pid file",
};

// An answer that is a value: "100.0", "1G", "512M", "3064", a state.
bool is_value(std::string_view text) {
  if (text == "ACTIVE" || text == "FAULT" || text == "INITIALIZING") return true;
  if (!text.empty() && (text.back() == 'G' || text.back() == 'M')) text.remove_suffix(1);
  return !text.empty() && text.find_first_not_of("-.0123456789") == std::string_view::npos;
}

bool is_control_noise(std::string_view text) {
  if (text.empty() || is_value(text) || starts_with_any(text, k_control_noise)) return true;
  Scan scan(text);
  pid_t server = 0;
  if (!scan.literal("Server ") || !scan.id(server)) return false;
  return scan.literal(" not found") || scan.literal(" is <busy>") || scan.literal(" has ");
}

LogEventKind first_of(std::span<const Reader> readers, std::string_view text, pid_t writer) {
  for (const auto reader : readers) {
    if (auto kind = reader(Scan(text), writer)) return std::move(*kind);
  }
  return Unknown{};
}

LogEventKind control_kind(std::string_view text, pid_t writer) {
  // First, so that no command's text is ever taken for anything else.
  if (text.starts_with("Cmd:")) return CommandLogged{printable(text.substr(4))};
  if (text == "Accepting connection...") return ConnectionAwaited{};
  if (text == "NEW UI") return SessionOpened{};
  if (text == "UI closed") return SessionClosed{};
  auto kind = first_of(k_control_readers, text, writer);
  if (std::holds_alternative<Unknown>(kind) && is_control_noise(text)) return Noise{};
  return kind;
}

// ---- what a server says

std::optional<LogEventKind> start_failed(Scan scan, pid_t writer) {
  if (!scan.literal("Failed to start")) return std::nullopt;
  scan.blanks();
  if (scan.literal(":")) scan.blanks();
  return ServerStartFailed{writer, printable(scan.rest())};
}

std::optional<LogEventKind> client_came_or_went(Scan scan, pid_t) {
  ClientIds ids;
  if (!scan.literal("Client ")) return std::nullopt;
  if (!client_ids(scan, ids) && !scan.id(ids.pid)) return std::nullopt;
  if (scan.literal(" connected")) return ClientConnected{ids.pid, ids.context};
  if (scan.literal(" exit") || scan.literal(" disconnected")) return ClientGone{ids.pid};
  return std::nullopt;
}

std::optional<LogEventKind> fatal_fault(Scan scan, pid_t writer) {
  if (!scan.literal("Server is handling a fatal GPU error")) return std::nullopt;
  return FatalFault{writer};
}

std::optional<LogEventKind> fault_culprit(Scan scan, pid_t) {
  ClientIds ids;
  if (!scan.literal("Client process ")) return std::nullopt;
  if (!client_ids(scan, ids) && !scan.id(ids.pid)) return std::nullopt;
  if (!scan.literal(" encountered a fatal GPU error")) return std::nullopt;
  return FaultCulprit{ids.pid};
}

std::optional<LogEventKind> fault_list(Scan scan, pid_t writer) {
  if (scan.literal("The following clients have a sticky error")) return StickyListBegins{writer};
  if (scan.literal("The following devices")) return DeviceListBegins{};
  return std::nullopt;
}

std::optional<LogEventKind> client_status(Scan scan, pid_t) {
  ClientIds ids;
  if (!scan.literal("Status of client ") && !scan.literal("status of client ")) return std::nullopt;
  if (!client_ids(scan, ids) || !scan.literal(" is ")) return std::nullopt;
  if (scan.rest() != "ACTIVE" && scan.rest() != "INACTIVE") return std::nullopt;
  return ClientStatus{ids.pid, scan.rest() == "ACTIVE"};
}

std::optional<LogEventKind> context_created(Scan scan, pid_t) {
  ContextCreated event;
  if (!scan.literal("Creating server context on device ")) return std::nullopt;
  if (!scan.number(event.device)) return std::nullopt;
  return event;
}

std::optional<LogEventKind> percentage_confirmed(Scan scan, pid_t writer) {
  double percentage = 0;
  if (!scan.literal("Active Threads Percentage set to ")) return std::nullopt;
  if (!scan.number(percentage)) return std::nullopt;
  return LimitConfirmed{writer, percentage, std::nullopt};
}

std::optional<LogEventKind> memory_confirmed(Scan scan, pid_t writer) {
  if (!scan.literal("Device pinned memory limit for device ")) return std::nullopt;
  if (!scan.past(" set to 0x")) return std::nullopt;
  const auto digits = scan.rest().substr(0, scan.rest().find(' '));
  std::uint64_t bytes = 0;
  const auto [stop, error] = std::from_chars(digits.begin(), digits.end(), bytes, 16);
  if (error != std::errc{} || stop != digits.end()) return std::nullopt;
  return LimitConfirmed{writer, std::nullopt, bytes};
}

std::optional<LogEventKind> clients_exceeded(Scan scan, pid_t) {
  const auto text = scan.rest();
  if (!scan.literal("Failed to accept new client")) return std::nullopt;
  return ClientsExceeded{printable(text)};
}

constexpr std::array<Reader, 10> k_server_readers{
    fault_list,    start_failed,    client_came_or_went,  fatal_fault,      fault_culprit,
    client_status, context_created, percentage_confirmed, memory_confirmed, clients_exceeded};

constexpr std::array<std::string_view, 29> k_server_noise{
    "Startup",
    "Using log directory",
    "Connecting to control daemon",
    "Server connecting to control daemon",
    "Initializing server process",
    "Driver initialization failed with",  // "Failed to start" follows, with the same words
    "Created named shared memory region",
    "Created anonymous shared memory region",
    "CUDA MPS Server",
    "Display Driver version",
    "Server Priority set to",
    "Client Priority set to",
    "Server has started",
    "Received new client request",  // 580 puts ids behind it that are no pids
    "Worker created",
    "Creating worker thread",
    "Device ",  // "… is associated", "… is invisible to this MPS server."
    "Pre-Volta device ",
    "Receive command failed, assuming client exit",
    "Client process disconnected",
    "Client disconnected",
    "Client termination",
    "Destroy server context on device",
    "Forcefully terminating client",
    "Worker is in reset",
    "Waiting for current clients to finish",
    "User did not send valid credentials",
    "Server has been notified to shutdown",
    "Exiting",
};

LogEventKind server_kind(std::string_view text, pid_t writer) {
  // Drivers before 535 put these in front.
  for (const std::string_view before : {"Volta MPS: ", "MPS "}) {
    if (text.starts_with(before)) text.remove_prefix(before.size());
  }
  auto kind = first_of(k_server_readers, text, writer);
  if (!std::holds_alternative<Unknown>(kind)) return kind;
  // The lists of devices and of clients in a fault are lines of bare numbers (fault_lists.h).
  if (text.empty() || text == "Start" || is_value(text) || starts_with_any(text, k_server_noise))
    return Noise{};
  return kind;
}

// ---- the prefix: "[2026-11-20 23:22:15.182 Control  3056] "

bool in_range(int value, int low, int high) {
  return value >= low && value <= high;
}

// Without TZ in the environment the C library looks at /etc/localtime each time it is asked, which
// costs more than all the rest of a line; so the hour that the last line was in is remembered. Time
// zones change their minds at full hours only.
std::time_t start_of_hour(std::string_view date_and_hour, std::tm parts) {
  thread_local std::string last_hour;
  thread_local std::time_t last_start = 0;
  if (date_and_hour == last_hour) return last_start;
  parts.tm_min = 0;
  parts.tm_sec = 0;
  // The hour that a clock change brings twice is ambiguous; the C library chooses.
  parts.tm_isdst = -1;
  last_start = std::mktime(&parts);
  last_hour = date_and_hour;
  return last_start;
}

std::optional<std::chrono::system_clock::time_point> local_time(std::string_view stamp) {
  constexpr std::string_view shape = "dddd-dd-dd dd:dd:dd.ddd";
  if (stamp.size() != shape.size()) return std::nullopt;
  for (std::size_t index = 0; index < shape.size(); ++index) {
    const bool digit = stamp[index] >= '0' && stamp[index] <= '9';
    if (shape[index] == 'd' ? !digit : stamp[index] != shape[index]) return std::nullopt;
  }
  const auto part = [&](std::size_t at, std::size_t length) {
    return parse_number<int>(stamp.substr(at, length)).value_or(0);
  };
  std::tm parts{};
  parts.tm_year = part(0, 4) - 1900;
  parts.tm_mon = part(5, 2) - 1;
  parts.tm_mday = part(8, 2);
  parts.tm_hour = part(11, 2);
  const int minute = part(14, 2);
  const int second = part(17, 2);
  // system_clock counts nanoseconds in 64 bits, which ends in the year 2262.
  const bool sane = in_range(parts.tm_year, 70, 300) && in_range(parts.tm_mon, 0, 11) &&
                    in_range(parts.tm_mday, 1, 31) && in_range(parts.tm_hour, 0, 23) &&
                    in_range(minute, 0, 59) && in_range(second, 0, 60);
  if (!sane) return std::nullopt;
  return std::chrono::system_clock::from_time_t(start_of_hour(stamp.substr(0, 13), parts)) +
         std::chrono::minutes(minute) + std::chrono::seconds(second) +
         std::chrono::milliseconds(part(20, 3));
}

struct Prefix {
  std::optional<std::chrono::system_clock::time_point> time;
  std::string_view role;
  pid_t pid = 0;
  std::string_view text;
};

std::optional<Prefix> read_prefix(std::string_view line) {
  constexpr std::size_t stamp_size = 23;
  constexpr std::size_t longest = 80;  // of a prefix; the real ones have about 45 bytes
  const auto end = line.substr(0, longest).find(']');
  if (!line.starts_with('[') || end == std::string_view::npos || end < stamp_size + 2) {
    return std::nullopt;
  }
  Prefix prefix;
  prefix.time = local_time(line.substr(1, stamp_size));
  const auto who = trim(line.substr(stamp_size + 1, end - stamp_size - 1));
  const auto last_blank = who.rfind(' ');
  if (!prefix.time || last_blank == std::string_view::npos) return std::nullopt;
  const auto pid = parse_number<pid_t>(who.substr(last_blank + 1));
  prefix.role = trim(who.substr(0, last_blank));
  const bool letters = std::all_of(prefix.role.begin(), prefix.role.end(), [](char letter) {
    return letter == ' ' || (letter >= 'A' && letter <= 'Z') || (letter >= 'a' && letter <= 'z');
  });
  if (!pid || *pid < 0 || !letters || prefix.role.empty()) return std::nullopt;
  prefix.pid = *pid;
  prefix.text = trim(line.substr(end + 1));
  return prefix;
}

}  // namespace

LogEvent parse_log_line(std::string_view line) {
  constexpr std::size_t longest_text = 1000;
  LogEvent event;
  const auto prefix = read_prefix(line);
  if (!prefix) {
    const auto text = trim(line);
    event.text = printable(text, longest_text);
    event.kind = Unknown{};
    if (text == "An instance of this daemon is already running") event.kind = AlreadyRunning{};
    if (text.empty()) event.kind = Noise{};
    return event;
  }
  event.time = prefix->time;
  event.role = prefix->role;
  event.pid = prefix->pid;
  event.text = printable(prefix->text, longest_text);
  event.kind = prefix->role == "Control" ? control_kind(prefix->text, prefix->pid)
                                         : server_kind(prefix->text, prefix->pid);
  return event;
}

}  // namespace mps::control
