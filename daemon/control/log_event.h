// Lines of the control daemon's and its servers' log, as events. The wording is that of 535 to 580;
// it changes between branches, so matching is loose, and what is not known is kept as Unknown
// rather than dropped. Pure, but for the time zone of the process.
//
// How far a line can be trusted: it is a hint, to be held against /proc and pidfds before anything
// is done to a process. Commands are logged as "Cmd:…" and cannot hold a line end, and the answers
// that ours bring about are numbers and fixed words, which are Noise here. It stays so: `ps` is
// never asked for, whose answer holds each client's argv[0], line ends included, and is logged too,
// so that a client could forge whole lines, and say that its neighbour did it. Who reaches the
// daemon's socket (root; in a share without a gate anybody) can ask for it nevertheless.
// So a pid of a line counts only where it is a client or a server that is known without it, and
// what follows from a forged one is what follows from a fault, which a client can bring about
// anyway.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace mps::control {

// What the control daemon says.
struct DaemonListening {  // "Starting control daemon using socket /x/control"
  std::string socket;
  bool operator==(const DaemonListening&) const = default;
};
struct ConnectionAwaited {  // "Accepting connection...": it takes one at a time
  bool operator==(const ConnectionAwaited&) const = default;
};
struct SessionOpened {  // "NEW UI"
  bool operator==(const SessionOpened&) const = default;
};
struct SessionClosed {  // "UI closed"
  bool operator==(const SessionClosed&) const = default;
};
struct CommandLogged {  // "Cmd:get_server_list"
  std::string text;
  bool operator==(const CommandLogged&) const = default;
};
// "NEW CLIENT 1 from user 0: Server already exists", "…: Server is not ready, push client to
// pending list". The pid is 0 where the client's pid namespace hides it from the daemon.
struct ClientAsked {
  pid_t pid = 0;
  uid_t uid = 0;
  bool queued = false;
  bool operator==(const ClientAsked&) const = default;
};
struct ServerStarting {  // "Starting new server 1 for user 0"
  pid_t pid = 0;
  uid_t uid = 0;
  bool operator==(const ServerStarting&) const = default;
};
struct ServerReady {  // "NEW SERVER 1: Ready"
  pid_t pid = 0;
  bool operator==(const ServerReady&) const = default;
};
struct ServerExited {  // "Server 1 exited with status 1"
  pid_t pid = 0;
  int status = 0;
  bool operator==(const ServerExited&) const = default;
};
// "Try shutting down server 1, …", "Force shutting down server 1": the daemon has it end, since it
// was told to or a client of another uid waits. 550; 535 says nothing of it.
struct ServerToEnd {
  pid_t pid = 0;
  bool operator==(const ServerToEnd&) const = default;
};
struct ServerStays {  // "Server 1 has 2 active worker threads. Server will not shutdown."
  pid_t pid = 0;
  bool operator==(const ServerStays&) const = default;
};
struct CommandRefused {  // "Not enough privilege …", "Insufficient privileges …": the last one
  bool operator==(const CommandRefused&) const = default;
};
struct DaemonExiting {  // "Exit with status 1"
  int status = 0;
  bool operator==(const DaemonExiting&) const = default;
};
struct AlreadyRunning {  // "An instance of this daemon is already running", no prefix
  bool operator==(const AlreadyRunning&) const = default;
};

// What a server says; `pid` is the server's own where it names no other.
struct ServerStartFailed {  // "Failed to start : no CUDA-capable device is detected"
  pid_t pid = 0;
  std::string cause;
  bool operator==(const ServerStartFailed&) const = default;
};
// 580: "Client {PID: 1, Context ID: 0} connected". Before that no line names a client that
// connects, but see ClientStatus.
struct ClientConnected {
  pid_t pid = 0;
  unsigned context = 0;
  bool operator==(const ClientConnected&) const = default;
};
struct ClientGone {  // "Client {1, 0} exit", "Client 1 disconnected"
  pid_t pid = 0;
  bool operator==(const ClientGone&) const = default;
};
struct FatalFault {  // "Server is handling a fatal GPU error."
  pid_t server = 0;
  bool operator==(const FatalFault&) const = default;
};
struct FaultCulprit {  // "Client process 1 encountered a fatal GPU error."
  pid_t pid = 0;
  bool operator==(const FaultCulprit&) const = default;
};
// The two lists of a fault, by their first lines; what is in them are lines of bare numbers. Those
// of clients fault_lists.h finds; the others say nothing.
struct StickyListBegins {  // "The following clients have a sticky error set:"
  pid_t server = 0;
  bool operator==(const StickyListBegins&) const = default;
};
struct DeviceListBegins {  // "The following devices will be reset:"
  bool operator==(const DeviceListBegins&) const = default;
};
struct StickyClient {  // a number in the first
  pid_t pid = 0;
  bool operator==(const StickyClient&) const = default;
};
struct ClientStatus {  // "Status of client {1, 0} is INACTIVE"
  pid_t pid = 0;
  bool active = false;
  bool operator==(const ClientStatus&) const = default;
};
struct ContextCreated {  // "Creating server context on device 0 (…)": started, or recovered
  unsigned device = 0;
  bool operator==(const ContextCreated&) const = default;
};
// "Active Threads Percentage set to 12.0", "Device pinned memory limit for device 0 set to 0x…
// bytes": one of the two a line.
struct LimitConfirmed {
  pid_t server = 0;
  std::optional<double> percentage;
  std::optional<std::uint64_t> pinned_bytes;
  bool operator==(const LimitConfirmed&) const = default;
};
struct ClientsExceeded {  // "Failed to accept new client. Maximum number of clients (48) reached."
  std::string text;
  bool operator==(const ClientsExceeded&) const = default;
};

struct Noise {  // known and without meaning: answers to commands, a probe's missing credentials, …
  bool operator==(const Noise&) const = default;
};
struct Unknown {
  bool operator==(const Unknown&) const = default;
};

using LogEventKind =
    std::variant<DaemonListening, ConnectionAwaited, SessionOpened, SessionClosed, CommandLogged,
                 ClientAsked, ClientConnected, ClientGone, ServerStarting, ServerReady,
                 ServerStartFailed, ServerExited, ServerToEnd, ServerStays, CommandRefused,
                 FatalFault, FaultCulprit, StickyListBegins, DeviceListBegins, StickyClient,
                 ClientStatus, ContextCreated, LimitConfirmed, ClientsExceeded, DaemonExiting,
                 AlreadyRunning, Noise, Unknown>;

struct LogEvent {
  // The line's own time, which is the local time of the daemon's time zone, taken to be ours.
  std::optional<std::chrono::system_clock::time_point> time;
  std::string role;  // "Control", "Server", "Legacy Server", "Other", …; empty: no prefix
  // Who wrote it. On 550 and on, "Starting new server" comes from the server's pid, before its
  // exec.
  pid_t pid = 0;
  std::string text;  // the line behind its prefix, printable, and cut when it is very long
  LogEventKind kind;
};

// Any bytes are fine. The daemon's own events are read from lines of the role "Control" alone and
// a server's from the others.
LogEvent parse_log_line(std::string_view line);

}  // namespace mps::control
