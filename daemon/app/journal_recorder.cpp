#include "app/journal_recorder.h"

#include <spdlog/spdlog.h>

#include <map>
#include <set>

#include "base/text.h"

namespace mps::app {

namespace {

// Kinds that an operator should see without looking for them; the rest is information.
const std::set<std::string, std::less<>> k_warnings{"start_failed",    "channel_busy",
                                                    "channel_blocked", "channel_unanswered",
                                                    "wedged",          "limits_drifted",
                                                    "fault",           "fault_shutdown",
                                                    "fault_restart",   "server_start_failed",
                                                    "server_orphaned", "door_mended",
                                                    "log_flood",       "log_lost",
                                                    "door_failed"};

// Those that may begin an incident.
const std::set<std::string, std::less<>> k_told_first{
    "fault", "server_exited", "control_exited", "wedged", "start_failed", "server_start_failed"};

instance::Client client_of(const api::Event& event, pid_t pid) {
  instance::Client client;
  client.pid = pid;
  client.uid = parse_number<uid_t>(api::text_in(event, "uid")).value_or(0);
  client.command = api::text_in(event, "command");
  client.start_ticks = parse_number<std::uint64_t>(api::text_in(event, "startTicks")).value_or(0);
  client.since = event.time;
  client.connected = event.kind == "client_connected";
  return client;
}

// 535 does not say that a server is in a fault when it is asked.
void remember_fault(const api::Event& event, instance::Remembered& remembered) {
  if (event.kind == "fault") {
    remembered.faulted_server = parse_number<pid_t>(api::text_in(event, "server"));
  } else if (event.kind == "fault_over" || event.kind == "fault_recovered" ||
             event.kind == "server_exited" || event.kind == "server_ready" ||
             event.kind == "control_started" ||
             (event.kind == "ready" && api::text_in(event, "faulted") == "false")) {
    remembered.faulted_server.reset();
  }
}

// The event of its start may be too old to be here still.
void remember_daemon(const api::Event& event, instance::Remembered& remembered) {
  static const std::set<std::string, std::less<>> of_its_life{"ready", "client_asked",
                                                              "client_connected", "server_ready"};
  if (event.kind == "control_exited" || event.kind == "stopped") {
    remembered.daemon.reset();
  } else if (event.kind == "control_started" || event.kind == "control_adopted") {
    const auto pid = parse_number<pid_t>(api::text_in(event, "pid")).value_or(0);
    remembered.daemon = instance::RememberedDaemon{pid, event.time};
  } else if (of_its_life.contains(event.kind)) {
    if (!remembered.daemon) remembered.daemon.emplace();
    remembered.daemon->seen = event.time;
  }
}

}  // namespace

instance::Remembered recall(const std::deque<api::Event>& events, const std::string& instance) {
  instance::Remembered remembered;
  std::map<pid_t, instance::Client> clients;
  for (const auto& event : events) {
    if (event.instance != instance) continue;
    const auto pid = parse_number<pid_t>(api::text_in(event, "pid")).value_or(0);
    if (event.kind == "client_asked") {
      clients[pid] = client_of(event, pid);
    } else if (event.kind == "client_connected") {
      auto [place, fresh] = clients.try_emplace(pid, client_of(event, pid));
      place->second.connected = true;
    } else if (event.kind == "client_gone") {
      clients.erase(pid);
    } else if (event.kind == "server_start_failed") {
      remembered.start_failure = api::text_in(event, "cause");
    } else if (event.kind == "server_ready" || event.kind == "control_started") {
      remembered.start_failure.reset();
    }
    remember_fault(event, remembered);
    remember_daemon(event, remembered);
  }
  for (auto& [pid, client] : clients) {
    if (pid > 0) remembered.clients.push_back(std::move(client));
  }
  return remembered;
}

void JournalRecorder::record(const std::string& instance, const instance::Emit& event,
                             const std::optional<instance::ReadPosition>& position) {
  const bool first = k_told_first.contains(event.kind);
  if (listener_ && first) listener_(instance, event);
  api::Event recorded;
  recorded.kind = event.kind;
  recorded.instance = instance;
  recorded.message = event.message;
  for (const auto& [key, value] : event.data) recorded.data[key] = value;
  if (position) recorded.position = api::LogPosition{position->log, position->end_offset};
  log_.append(std::move(recorded));
  const auto level = event.kind == "failed"            ? spdlog::level::err
                     : k_warnings.contains(event.kind) ? spdlog::level::warn
                                                       : spdlog::level::info;
  spdlog::log(level, "{}: {}: {}", instance, event.kind, event.message);
  if (listener_ && !first) listener_(instance, event);
}

std::optional<std::uint64_t> JournalRecorder::position(const std::string& instance,
                                                       const std::string& log) const {
  return log_.position(instance, log);
}

instance::Remembered JournalRecorder::remember(const std::string& instance) const {
  return recall(log_.ring(), instance);
}

}  // namespace mps::app
