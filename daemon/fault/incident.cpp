#include "fault/incident.h"

#include <array>

#include "base/text.h"

namespace mps::fault {

namespace {

constexpr std::size_t k_command_limit = 256;
constexpr std::size_t k_name_limit = 128;

std::string counted(std::size_t count, const char* one, const char* many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

std::string what_happened(const Incident& incident) {
  switch (incident.kind) {
    case Kind::app_fault:
      return incident.faults > 1 ? std::to_string(incident.faults) + " faults of clients"
                                 : std::string("a client's fault");
    case Kind::server_died:
      return "the MPS server died";
    case Kind::start_failure:
      return "the MPS server does not start";
    case Kind::wedged:
      return "the control daemon does not answer";
    case Kind::daemon_died:
      return "the control daemon died";
    case Kind::device_trouble:
      break;
  }
  return "the device is in trouble";
}

std::string whose_doing(const Incident& incident) {
  switch (incident.attribution) {
    case Attribution::named:
    case Attribution::only_client:
      if (incident.culprits.empty()) break;
      return " by " + describe(incident.culprits.back().client) +
             (incident.attribution == Attribution::only_client ? ", the only client" : "");
    case Attribution::one_of:
      return " by one of " + counted(incident.suspect_count, "client", "clients") +
             (incident.others_possible ? ", or of others that nobody has seen come"
                                       : ", and nobody knows which");
    case Attribution::not_a_client:
      if (incident.strangers.empty()) break;
      return " by pid " + std::to_string(incident.strangers.back()) +
             ", which is no client that we know of";
    case Attribution::nobody:
      return " while no client was there that we know of";
    case Attribution::none:
      break;
  }
  return "";
}

}  // namespace

ClientFacts bounded(ClientFacts facts) {
  facts.command = printable(facts.command, k_command_limit);
  for (auto* text : {&facts.container, &facts.pod, &facts.subject, &facts.owner, &facts.share}) {
    *text = printable(*text, k_name_limit);
  }
  return facts;
}

const char* to_string(Kind kind) {
  static constexpr std::array k_names{"app_fault", "server_died", "start_failure",
                                      "wedged",    "daemon_died", "device_trouble"};
  return k_names.at(static_cast<std::size_t>(kind));
}

const char* to_string(Attribution attribution) {
  static constexpr std::array k_names{"none",   "named",        "only_client",
                                      "one_of", "not_a_client", "nobody"};
  return k_names.at(static_cast<std::size_t>(attribution));
}

const char* to_string(End end) {
  static constexpr std::array k_names{"none", "serving", "given_up", "unconfirmed"};
  return k_names.at(static_cast<std::size_t>(end));
}

std::string id_of(std::uint64_t number) {
  return "f" + std::to_string(number);
}

std::optional<std::uint64_t> incident_number(const std::string& id) {
  if (!id.starts_with('f')) return std::nullopt;
  const auto number = parse_number<std::uint64_t>(std::string_view(id).substr(1));
  // One spelling for each: "f012" is none.
  return number && id_of(*number) == id ? number : std::nullopt;
}

std::string describe(const ClientFacts& client) {
  std::string text = "pid " + std::to_string(client.pid);
  if (!client.command.empty()) text += " (" + client.command + ")";
  if (!client.subject.empty()) text += " of " + client.subject;
  if (!client.pod.empty()) text += ", pod " + client.pod;
  return text;
}

std::string summary(const Incident& incident) {
  auto text = what_happened(incident);
  // Else it would read as if somebody had broken the device.
  if (incident.kind != Kind::app_fault && incident.faults > 0) text += ", with a client's fault";
  text += whose_doing(incident);
  if (incident.hardware) text += "; the driver blames the device";
  if (!incident.cause.empty()) text += ": " + incident.cause;
  if (incident.end == End::unconfirmed) text += "; MPS went on serving, so it was no client's";
  return text;
}

}  // namespace mps::fault
