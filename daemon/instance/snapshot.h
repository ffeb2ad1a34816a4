// What an instance shows of itself: a plain copy, made by its actor, read by the API and the CLI.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mps::instance {

using SystemTime = std::chrono::system_clock::time_point;

enum class State { stopped, starting, ready, faulted, recovering, backoff, failed, draining };
enum class ChannelState { ok, busy, blocked, unanswered };
enum class GateState { standing, direct, down };
enum class Bypass { closed, audited, open };
enum class ServerStatus { starting, active, fault, start_failed, exited };

// As they stand in the API: "stopped", …; server status in camelCase ("startFailed").
const char* to_string(State state);
const char* to_string(ChannelState state);
const char* to_string(GateState state);
const char* to_string(Bypass bypass);
const char* to_string(ServerStatus status);

// The limits that the control daemon gives to each client of its future servers.
struct Limits {
  double active_thread_percentage = 100.0;
  std::optional<std::uint64_t> pinned_memory_mebibytes;  // none: no limit
  unsigned client_priority = 0;                          // 0 normal, 1 below normal
  bool operator==(const Limits&) const = default;
};

struct ControlProcess {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  // field 22 of /proc/<pid>/stat
  SystemTime started_at;
  bool adopted = false;  // started by an earlier supervisor
};

struct Server {
  pid_t pid = 0;  // 0 where it never came up
  std::optional<uid_t> uid;
  ServerStatus status = ServerStatus::starting;
  std::string cause;           // why its start failed
  unsigned failed_starts = 0;  // in this incident
};

struct ChannelView {
  ChannelState state = ChannelState::ok;
  std::optional<pid_t> holder;
  std::string holder_name;
  std::string detail;
};

struct Client {
  pid_t pid = 0;
  uid_t uid = 0;
  std::string command;            // comm of the process when it asked
  std::uint64_t start_ticks = 0;  // with the pid, which process it is; 0: it was gone already
  SystemTime since;
  bool connected = false;  // false: has asked, and no server has taken it yet
  bool adopted = false;    // was there before this supervisor
};

struct Snapshot {
  std::string id;      // "gpu0.shared"
  std::string device;  // UUID
  std::string domain = "shared";
  State state = State::stopped;
  SystemTime state_since;
  std::optional<ControlProcess> control;
  std::optional<Server> server;
  ChannelView channel;
  std::uint64_t restarts = 0;  // control daemons started again after one that was ready
  GateState gate = GateState::direct;
  Bypass bypass = Bypass::open;
  Limits limits;                  // what they are meant to be
  bool limits_confirmed = false;  // read back since the daemon's start
  // Whose limits these are, or because of whom there is none: "team-a.yaml:9:29 (spec.client)".
  std::string percentage_from;
  std::string memory_from;
  std::vector<Client> clients;
  std::string last_error;
  std::string out_of_service;  // why its device is; empty: it is not
  std::string pipe_directory;  // what a container may mount: <run>/<id>/open/pipe
  std::uint64_t unknown_log_lines = 0;
  std::uint64_t limits_drifted = 0;      // how often they had been changed behind our back
  std::optional<SystemTime> next_start;  // in backoff
  bool server_status_known = false;      // the daemon has get_server_status
};

}  // namespace mps::instance
