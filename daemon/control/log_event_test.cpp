#include "control/log_event.h"

#include <doctest/doctest.h>

#include <ctime>
#include <string>
#include <vector>

namespace mps::control {
namespace {

using std::string_literals::operator""s;

struct Row {
  std::string text;
  LogEventKind kind;
};

const std::string k_stamp = "[2026-11-20 23:22:15.182 ";

LogEvent from(const std::string& role, const std::string& text) {
  return parse_log_line(k_stamp + role + "  3064] " + text);
}

void check(const std::string& role, const std::vector<Row>& rows) {
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto event = from(role, row.text);
    CHECK(event.role == role);
    CHECK(event.pid == 3064);
    CHECK(event.time.has_value());
    CHECK(event.kind.index() == row.kind.index());
    CHECK((event.kind == row.kind));
  }
}

TEST_CASE("what the control daemon says") {
  check(
      "Control",
      {
          {"Starting control daemon using socket /run/mps/gpu0.shared/pipe/control",
           DaemonListening{"/run/mps/gpu0.shared/pipe/control"}},
          {"Accepting connection...", ConnectionAwaited{}},
          {"NEW UI", SessionOpened{}},
          {"UI closed", SessionClosed{}},
          {"Cmd:get_server_list", CommandLogged{"get_server_list"}},
          {"Cmd:", CommandLogged{""}},
          {"NEW CLIENT 3063 from user 0: Server is not ready, push client to pending list",
           ClientAsked{3063, 0, true}},
          {"NEW CLIENT 7520 from user 1000: Server already exists", ClientAsked{7520, 1000, false}},
          {"NEW CLIENT 0 from user 4294967294: Server already exists",
           ClientAsked{0, 4294967294U, false}},
          {"Starting new server 3064 for user 1000", ServerStarting{3064, 1000}},
          {"NEW SERVER 7447: Ready", ServerReady{7447}},
          {"Server 3064 exited with status 1", ServerExited{3064, 1}},
          {"Server 3064 exited with status -9", ServerExited{3064, -9}},
          {"Exit with status 1", DaemonExiting{1}},
          {"Exit with status 0", DaemonExiting{0}},
          {"Try shutting down server 77, backoff is disabled", ServerToEnd{77}},
          {"Force shutting down server 77", ServerToEnd{77}},
          {"Server 77 has 2 active worker threads. Server will not shutdown.", ServerStays{77}},
          {"Not enough privilege to execute quit command", CommandRefused{}},
          {"Insufficient privileges for UID 0. Control deamon settings can only be modified by "
           "the user started it or by the root user.",
           CommandRefused{}},
          {"Failed to start server using uid 5. Operation not permitted",
           ServerStartFailed{3064, "Operation not permitted"}},
      });
}

TEST_CASE("what the control daemon says without meaning, and answers to commands") {
  for (const std::string text : {
           "To connect CUDA applications to this daemon, set env CUDA_MPS_PIPE_DIRECTORY=/x",
           "CUDA MPS Control binary version: 13000",
           "User did not send valid credentials",
           "Unable to accept connection",
           "Unable to accept priviliged connection from other user",
           "Server encountered a fatal exception. Shutting down",
           "NEW SERVER 5: Ignoring old connection request",
           "Removed Shm file at ",
           "quit command issued with timeout of 1",
           "Unknown command \"end-of-1\"",
           "Unknown command \"Server 1 exited with status 1\"",
           "Server not found",
           "Server 77 not found",
           "Server 77 not found!",
           "Server 77 is <busy>",
           "Invalid percentage, expected between (0.0, 100.0]",
           "Invalid priority value - must be 0 or 1!",
           "No default pinned memory limit set for the device!",
           "A user id (UID) is required to start a new server",
           "A server PID is required",
           "Control will try shutting down server 77 again in at most 100ms",
           "100.0",
           "1G",
           "512M",
           "3064",
           "ACTIVE",
           "",
       }) {
    CAPTURE(text);
    CHECK((from("Control", text).kind == LogEventKind(Noise{})));
  }
}

TEST_CASE("what a server says") {
  check(
      "Server",
      {
          {"Failed to start : no CUDA-capable device is detected",
           ServerStartFailed{3064, "no CUDA-capable device is detected"}},
          {"Failed to start", ServerStartFailed{3064, ""}},
          {"Client {PID: 4267, Context ID: 0} connected", ClientConnected{4267, 0}},
          {"Client {PID: 4267, Context ID: 2} exit", ClientGone{4267}},
          {"Client {11641, 1} exit", ClientGone{11641}},
          {"Client 11641 disconnected", ClientGone{11641}},
          {"Server is handling a fatal GPU error.", FatalFault{3064}},
          {"Volta MPS: Server is handling a fatal GPU error.", FatalFault{3064}},
          {"Client process 11641 encountered a fatal GPU error.", FaultCulprit{11641}},
          {"Client process {PID: 11641, Context ID: 1} encountered a fatal GPU error.",
           FaultCulprit{11641}},
          {"Status of client {11641, 1} is INACTIVE", ClientStatus{11641, false}},
          {"Status of client {11641, 1} is ACTIVE", ClientStatus{11641, true}},
          {"Volta MPS: status of client {11641, 1} is INACTIVE", ClientStatus{11641, false}},
          {"Status of client {PID: 11641, Context ID: 1} is ACTIVE", ClientStatus{11641, true}},
          {"Creating server context on device 0 (NVIDIA A16)", ContextCreated{0}},
          {"Volta MPS: Creating server context on device 1", ContextCreated{1}},
          {"Active Threads Percentage set to 12.0", LimitConfirmed{3064, 12.0, {}}},
          {"Active Threads Percentage set to 33.3.", LimitConfirmed{3064, 33.3, {}}},
          {"Device pinned memory limit for device 0 set to 0x77f00000 bytes",
           LimitConfirmed{3064, {}, 0x77f00000}},
          {"Failed to accept new client. Maximum number of clients (48) reached.",
           ClientsExceeded{"Failed to accept new client. Maximum number of clients (48) reached."}},
          {"Failed to accept new client. Reached maximum number of device connections.",
           ClientsExceeded{
               "Failed to accept new client. Reached maximum number of device connections."}},
      });
}

TEST_CASE("what a server says without meaning") {
  for (const std::string text : {
           "Startup",
           "Start",
           "Connecting to control daemon on socket: /run/mps/gpu0.shared/pipe/control",
           "MPS Server connecting to control daemon on socket: /x/control",
           "Initializing server process",
           "Using log directory: /var/log/nvidia-mps",
           "Driver initialization failed with: no CUDA-capable device is detected",
           "Created named shared memory region /cuda.shm.0.52.1",
           "Created anonymous shared memory region mps.shm.1000.4428",
           "CUDA MPS Server for Linux/Unix. Binary version: 13000",
           "Display Driver version: 580",
           "Server Priority set to 0",
           "Server has started",
           "Received new client request",
           "Received new client request for {PID: 1073741824, Context ID: 1}",
           "Worker created",
           "Creating worker thread",
           "Creating worker thread for client {PID: 4267, Context ID: 0}",
           "Device NVIDIA A16 (uuid GPU-077f7bb7-c8e8-46db-77e3-e2c1e5665c78) is associated",
           "Receive command failed, assuming client exit",
           "Client process disconnected",
           "Client disconnected. Number of active client contexts is 0.",
           "Volta MPS: Client disconnected. Number of active client contexts is 0.",
           "Volta MPS: Destroy server context on device 0",
           "0",
           "11641",
           "Client termination succeeded.",
           "Forcefully terminating client 7",
           "Exiting",
           "",
       }) {
    CAPTURE(text);
    CHECK((from("Other", text).kind == LogEventKind(Noise{})));
  }
}

TEST_CASE("what is not known is kept") {
  for (const std::string text : {
           "Something new",
           "NEW CLIENT x from user 0: y",
           "NEW CLIENT -5 from user 0: y",
           "NEW CLIENT 99999999999 from user 0: y",
           "Starting new server 5 for user",
           "Server 5 exited",
           "Server 5 exited with status x",
           "Exit with status",
           "Starting server",
       }) {
    CAPTURE(text);
    const auto event = from("Control", text);
    CHECK((event.kind == LogEventKind(Unknown{})));
    CHECK(event.text == text);
  }
  for (const std::string text : {
           "Starting",
           "Client {1, 2 exit",
           "Client {1} exit",
           "Client {-1, 0} exit",
           "Client {1, 2} sleeps",
           "Status of client {1, 2} is UNSURE",
           "Client {PID: , } exit",
           "Active Threads Percentage set to x",
           "Device pinned memory limit for device 0 set to 0xzz bytes",
           "Creating server context on device x",
       }) {
    CAPTURE(text);
    const bool odd_device = text.starts_with("Device ");
    CHECK((from("Server", text).kind == (odd_device ? LogEventKind(Noise{}) : Unknown{})));
  }
}

TEST_CASE("a command's text is never more than a command") {
  for (const std::string text :
       {"Server 1 exited with status 1", "NEW UI", "UI closed", "Exit with status 0",
        "[2026-11-20 23:22:15.182 Control  3056] NEW SERVER 1: Ready"}) {
    CHECK((from("Control", "Cmd:" + text).kind == LogEventKind(CommandLogged{text})));
  }
}

TEST_CASE("a role says its own things only") {
  CHECK((from("Server", "Server 1 exited with status 1").kind == LogEventKind(Unknown{})));
  CHECK((from("Server", "NEW UI").kind == LogEventKind(Unknown{})));
  CHECK((from("Other", "Cmd:quit").kind == LogEventKind(Unknown{})));
  CHECK((from("Control", "Client {1, 0} exit").kind == LogEventKind(Unknown{})));
  CHECK((from("Control", "Server is handling a fatal GPU error.").kind == LogEventKind(Unknown{})));
}

TEST_CASE("lines without a prefix") {
  const auto running = parse_log_line("An instance of this daemon is already running");
  CHECK((running.kind == LogEventKind(AlreadyRunning{})));
  CHECK(running.role.empty());
  CHECK(running.pid == 0);
  CHECK_FALSE(running.time);
  const auto access = parse_log_line("Cannot access CUDA_MPS_PIPE_DIRECTORY=/x\n");
  CHECK((access.kind == LogEventKind(Unknown{})));
  CHECK(access.text == "Cannot access CUDA_MPS_PIPE_DIRECTORY=/x");
  CHECK((parse_log_line("").kind == LogEventKind(Noise{})));
  CHECK((parse_log_line("NEW UI").kind == LogEventKind(Unknown{})));
  CHECK((parse_log_line("Server 1 exited with status 1").kind == LogEventKind(Unknown{})));
}

TEST_CASE("prefixes") {
  const auto event =
      parse_log_line("[2026-04-28 18:20:41.855 Legacy Server   425] Failed to start : x");
  CHECK(event.role == "Legacy Server");
  CHECK(event.pid == 425);
  CHECK((event.kind == LogEventKind(ServerStartFailed{425, "x"})));

  for (const std::string line : {
           "[2026-04-28 18:20:41.855 Control 1",
           "[2026-04-28 18:20:41.855 Control] NEW UI",
           "[2026-04-28 18:20:41.855 1] NEW UI",
           "[2026-04-28 18:20:41.855  1] NEW UI",
           "[2026-04-28 18:20:41.855 Control x] NEW UI",
           "[2026-04-28 18:20:41.855 Control -1] NEW UI",
           "[2026-04-28 18:20:41.855 Con;trol 1] NEW UI",
           "[2026-13-28 18:20:41.855 Control 1] NEW UI",
           "[2026-00-28 18:20:41.855 Control 1] NEW UI",
           "[2026-04-32 18:20:41.855 Control 1] NEW UI",
           "[2026-04-28 24:20:41.855 Control 1] NEW UI",
           "[2026-04-28 18:60:41.855 Control 1] NEW UI",
           "[2026-04-28 18:20:61.855 Control 1] NEW UI",
           "[1969-04-28 18:20:41.855 Control 1] NEW UI",
           "[9999-04-28 18:20:41.855 Control 1] NEW UI",
           "[2026-04-28T18:20:41.855 Control 1] NEW UI",
           "[2026-04-28 18:20:41,855 Control 1] NEW UI",
           "[2026-0x-28 18:20:41.855 Control 1] NEW UI",
           "[2026-04-28 18:20:41.855 Control 99999999999] NEW UI",
           "[] NEW UI",
           "[",
           "]",
           " [2026-04-28 18:20:41.855 Control 1] NEW UI",
       }) {
    CAPTURE(line);
    const auto odd = parse_log_line(line);
    CHECK(odd.role.empty());
    CHECK_FALSE(odd.time);
    CHECK((odd.kind == LogEventKind(Unknown{})));
  }
}

TEST_CASE("the time is the local one") {
  std::tm parts{};
  parts.tm_year = 126;
  parts.tm_mon = 10;
  parts.tm_mday = 20;
  parts.tm_hour = 23;
  parts.tm_min = 22;
  parts.tm_sec = 15;
  parts.tm_isdst = -1;
  const auto expected = std::chrono::system_clock::from_time_t(std::mktime(&parts));
  const auto event = from("Control", "NEW UI");
  REQUIRE(event.time);
  CHECK((*event.time == expected + std::chrono::milliseconds(182)));
  const auto later = parse_log_line("[2026-11-21 00:00:01.000 Control 1] NEW UI");
  REQUIRE(later.time);
  CHECK((*later.time - *event.time == std::chrono::milliseconds(37 * 60000 + 45818)));
}

TEST_CASE("any bytes become a printable text of bounded length") {
  const auto event = from("Control", "Cmd:\x1b[2J\0x\x7f"s);
  CHECK(event.text == "Cmd:\\x1b[2J\\x00x\\x7f");
  CHECK((event.kind == LogEventKind(CommandLogged{"\\x1b[2J\\x00x\\x7f"})));
  const auto flood = from("Control", "Cmd:" + std::string(1 << 20, 'x'));
  CHECK(flood.text.size() < 1100);
  REQUIRE(std::holds_alternative<CommandLogged>(flood.kind));
  CHECK(std::get<CommandLogged>(flood.kind).text.size() < 300);
  CHECK(parse_log_line(std::string(1 << 20, '[')).text.size() < 1100);
  CHECK(from("Control", "NEW UI\r").text == "NEW UI");
}

struct Line {
  const char* text;
  LogEventKind kind;
};

void check_log(const std::vector<Line>& lines) {
  for (const auto& line : lines) {
    CAPTURE(line.text);
    const auto event = parse_log_line(line.text);
    CHECK(event.time.has_value());
    CHECK((event.kind == line.kind));
  }
}

TEST_CASE("a log of 535: a batch, a client, its server that cannot start, a quit") {
  check_log({
      {"[2026-11-20 23:22:15.182 Control  3056] Starting control daemon using socket "
       "/run/mps/a/control",
       DaemonListening{"/run/mps/a/control"}},
      {"[2026-11-20 23:22:15.182 Control  3056] To connect CUDA applications to this daemon, set "
       "env CUDA_MPS_PIPE_DIRECTORY=/run/mps/a",
       Noise{}},
      {"[2026-11-20 23:22:15.384 Control  3056] Accepting connection...", ConnectionAwaited{}},
      {"[2026-11-20 23:22:15.384 Control  3056] NEW UI", SessionOpened{}},
      {"[2026-11-20 23:22:15.384 Control  3056] Cmd:set_default_active_thread_percentage 50",
       CommandLogged{"set_default_active_thread_percentage 50"}},
      {"[2026-11-20 23:22:15.384 Control  3056] 50.0", Noise{}},
      {"[2026-11-20 23:22:15.384 Control  3056] Cmd:end-of-1", CommandLogged{"end-of-1"}},
      {"[2026-11-20 23:22:15.384 Control  3056] Unknown command \"end-of-1\"", Noise{}},
      {"[2026-11-20 23:22:15.384 Control  3056] UI closed", SessionClosed{}},
      {"[2026-11-20 23:22:15.387 Control  3056] User did not send valid credentials", Noise{}},
      {"[2026-11-20 23:22:15.387 Control  3056] NEW CLIENT 3063 from user 0: Server is not ready, "
       "push client to pending list",
       ClientAsked{3063, 0, true}},
      {"[2026-11-20 23:22:15.387 Control  3056] Starting new server 3064 for user 0",
       ServerStarting{3064, 0}},
      {"[2026-11-20 23:22:15.390 Other  3064] Startup", Noise{}},
      {"[2026-11-20 23:22:15.390 Other  3064] Connecting to control daemon on socket: "
       "/run/mps/a/control",
       Noise{}},
      {"[2026-11-20 23:22:15.390 Other  3064] Initializing server process", Noise{}},
      {"[2026-11-20 23:22:15.405 Other  3064] Driver initialization failed with: no CUDA-capable "
       "device is detected",
       Noise{}},
      {"[2026-11-20 23:22:15.406 Other  3064] Failed to start : no CUDA-capable device is detected",
       ServerStartFailed{3064, "no CUDA-capable device is detected"}},
      {"[2026-11-20 23:22:15.406 Control  3056] Server encountered a fatal exception. Shutting "
       "down",
       Noise{}},
      {"[2026-11-20 23:22:15.406 Control  3056] Server 3064 exited with status 1",
       ServerExited{3064, 1}},
      {"[2026-11-20 23:22:15.506 Control  3056] Removed Shm file at ", Noise{}},
      {"[2026-11-20 23:22:16.030 Control  3056] Cmd:quit", CommandLogged{"quit"}},
      {"[2026-11-20 23:22:16.031 Control  3056] Exit with status 1", DaemonExiting{1}},
  });
}

TEST_CASE("550 announces a server from the server's own pid") {
  check_log({
      {"[2026-11-20 23:33:42.486 Control  7467] NEW CLIENT 7523 from user 0: Server is not ready, "
       "push client to pending list",
       ClientAsked{7523, 0, true}},
      {"[2026-11-20 23:33:42.486 Control  7525] Starting new server 7525 for user 0",
       ServerStarting{7525, 0}},
      {"[2026-11-20 23:33:42.502 Other  7525] Failed to start : no CUDA-capable device is detected",
       ServerStartFailed{7525, "no CUDA-capable device is detected"}},
      {"[2026-11-20 23:33:42.502 Control  7467] Server 7525 exited with status 1",
       ServerExited{7525, 1}},
  });
  CHECK(
      parse_log_line("[2026-11-20 23:33:42.486 Control  7525] Starting new server 7525 for user 0")
          .pid == 7525);
}

}  // namespace
}  // namespace mps::control
