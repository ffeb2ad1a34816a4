#include "app/fault_signals.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/text.h"

namespace mps::app {

namespace {

std::string field(const instance::Emit& event, std::string_view key) {
  const auto found = std::find_if(event.data.begin(), event.data.end(),
                                  [key](const auto& pair) { return pair.first == key; });
  return found == event.data.end() ? std::string() : found->second;
}

pid_t pid_in(const instance::Emit& event, std::string_view key) {
  return parse_number<pid_t>(field(event, key)).value_or(0);
}

// Rungs of the ladder, as an incident lists them.
const char* step_of(const std::string& kind) {
  if (kind == "fault_clients") return "end its clients";
  if (kind == "fault_clients_signalled") return "end their processes";
  if (kind == "fault_shutdown") return "end the server";
  if (kind == "fault_restart") return "restart the control daemon";
  if (kind == "restarting") return "restart asked for";
  return nullptr;
}

std::optional<fault::Signal> end_of(const instance::Emit& event, bool shut_down) {
  if (event.kind == "server_exited") {
    const bool asked = shut_down || !field(event, "asked").empty();
    return fault::ServerEnded{pid_in(event, "pid"), event.message, asked};
  }
  if (event.kind == "control_exited") {
    const bool asked = field(event, "expected") == "true" || field(event, "asked") == "true";
    return fault::DaemonEnded{event.message, asked};
  }
  if (event.kind == "client_gone") return fault::ClientWent{pid_in(event, "pid"), 0};
  if (event.kind == "failed" || event.kind == "stopped") return fault::GivenUp{event.message};
  return std::nullopt;
}

}  // namespace

std::optional<fault::Signal> signal_of(const instance::Emit& event, bool shut_down) {
  // The rest of its signs are lines, which have been told of.
  if (event.kind == "fault" && field(event, "sign") == "status") {
    return fault::ServerStatusSeen{};
  }
  // A daemon that was started has none yet.
  if (event.kind == "clients_listed" || event.kind == "control_started") {
    return fault::ClientsKnown{true};
  }
  if (event.kind == "log_lost") return fault::ClientsKnown{false};
  if (event.kind == "fault_over") return fault::Serving{};
  if (event.kind == "ready" && field(event, "faulted") != "true") return fault::Serving{};
  if (event.kind == "undrained" && field(event, "serving") == "true") return fault::Serving{};
  if (event.kind == "channel_ok") return fault::AnswersAgain{};
  if (event.kind == "wedged") return fault::Wedged{event.message};
  if (event.kind == "server_start_failed") return fault::StartFailed{field(event, "cause")};
  if (event.kind == "server_ready") return fault::Serving{};
  if (event.kind == "start_failed") return fault::StartFailed{event.message};
  if (const char* step = step_of(event.kind)) return fault::StepTaken{step, event.message};
  return end_of(event, shut_down);
}

std::optional<fault::Signal> signal_of(const control::LogEvent& line) {
  if (const auto* fault = std::get_if<control::FatalFault>(&line.kind)) {
    return fault::FatalFaultLogged{fault->server};
  }
  if (std::holds_alternative<control::StickyListBegins>(line.kind)) return fault::StickyClients{};
  if (const auto* sticky = std::get_if<control::StickyClient>(&line.kind)) {
    return fault::StickyClients{{sticky->pid}};
  }
  if (std::holds_alternative<control::ContextCreated>(line.kind)) return fault::ContextRecreated{};
  // Its pid is hidden from the daemon by a pid namespace.
  const auto* asked = std::get_if<control::ClientAsked>(&line.kind);
  if (asked != nullptr && asked->pid == 0) return fault::ClientsKnown{false};
  if (const auto* culprit = std::get_if<control::FaultCulprit>(&line.kind)) {
    return fault::CulpritNamed{culprit->pid};
  }
  if (const auto* status = std::get_if<control::ClientStatus>(&line.kind)) {
    return fault::ClientStatusSeen{status->pid, status->active};
  }
  return std::nullopt;
}

std::optional<fault::ClientFacts> client_of(const instance::Emit& event, fault::Time at) {
  if (event.kind != "client_asked" && event.kind != "client_connected") return std::nullopt;
  fault::ClientFacts facts;
  facts.pid = pid_in(event, "pid");
  facts.start_ticks = parse_number<std::uint64_t>(field(event, "startTicks")).value_or(0);
  if (const auto uid = parse_number<uid_t>(field(event, "uid"))) facts.uid = *uid;
  facts.command = field(event, "command");
  // One that is only said to be served may have come at any time before.
  if (event.kind == "client_asked") facts.since = at;
  return facts;
}

fault::ClientFacts facts_of(const admission::LetIn& in, fault::Time at) {
  fault::ClientFacts facts;
  facts.pid = in.process.pid;
  facts.start_ticks = in.process.start_ticks;
  facts.uid = in.who.uid;
  facts.command = in.command;
  facts.container = in.who.container_name.empty() ? in.who.container : in.who.container_name;
  facts.pod = in.who.pod;
  facts.subject = in.who.subject;
  facts.owner = in.who.owner.value_or("");
  facts.share = in.share;
  if (in.explained) {
    facts.active_thread_percentage = in.grant.active_thread_percentage;
    facts.pinned_memory_mebibytes = in.grant.pinned_memory_mebibytes;
  }
  facts.since = at;
  return facts;
}

}  // namespace mps::app
