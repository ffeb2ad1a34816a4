#include "fault/incident_json.h"

#include <array>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "fault/json_text.h"

namespace mps::fault {

namespace {

using Json = nlohmann::json;

// The names of an enumeration are what its to_string() says, from 0 on.
template <typename Enum>
Enum named(const Json& value, Enum last) {
  const auto& name = value.get_ref<const std::string&>();
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    if (name == to_string(static_cast<Enum>(i))) return static_cast<Enum>(i);
  }
  throw std::invalid_argument(name);
}

template <typename T, typename Make>
Json list_of(const std::vector<T>& values, Make make) {
  auto list = Json::array();
  for (const auto& value : values) list.push_back(make(value));
  return list;
}

template <typename T, typename Make>
std::vector<T> list_from(const Json& list, Make make) {
  std::vector<T> values;
  for (const auto& value : list) values.push_back(make(value));
  return values;
}

Json millis_between(Time from, const std::optional<Time>& to) {
  return to ? Json((*to - from).count()) : Json(nullptr);
}

Json culprit_json(const Culprit& culprit) {
  auto json = to_json(culprit.client);
  json["round"] = culprit.round;
  json["by"] = to_string(culprit.by);
  json["at"] = time_json(culprit.at);
  return json;
}

Culprit culprit_from(const Json& json) {
  return {client_from(json), json.at("round").get<unsigned>(),
          named(json.at("by"), Attribution::nobody), time_at(json, "at")};
}

Json xid_json(const XidSeen& xid) {
  return {{"xid", xid.number},
          {"text", look_up_xid(xid.number).text},
          {"times", xid.times},
          {"first", time_json(xid.first)}};
}

Json consequence_json(const Aftermath& one) {
  return {{"kind", to_string(one.kind)}, {"at", time_json(one.at)}, {"text", one.text}};
}

Json note_json(const Note& note) {
  return {{"at", time_json(note.at)}, {"kind", note.kind}, {"text", note.text}};
}

Json step_json(const Step& step) {
  return {{"at", time_json(step.at)},
          {"name", step.name},
          {"outcome", step.outcome},
          {"round", step.round}};
}

void read_story(const Json& json, Incident& into) {
  into.xids = list_from<XidSeen>(json.at("xids"), [](const auto& one) {
    return XidSeen{one.at("xid").template get<unsigned>(), one.at("times").template get<unsigned>(),
                   time_at(one, "first")};
  });
  into.consequences = list_from<Aftermath>(json.at("consequences"), [](const auto& one) {
    return Aftermath{named(one.at("kind"), Kind::device_trouble), time_at(one, "at"),
                     text_at(one, "text")};
  });
  into.signals = list_from<Note>(json.at("signals"), [](const auto& one) {
    return Note{time_at(one, "at"), text_at(one, "kind"), text_at(one, "text")};
  });
  into.signals_left_out = json.at("signalsLeftOut").get<std::size_t>();
  into.steps = list_from<Step>(json.at("steps"), [](const auto& one) {
    return Step{time_at(one, "at"), text_at(one, "name"), text_at(one, "outcome"),
                one.at("round").template get<unsigned>()};
  });
  into.steps_left_out = json.at("stepsLeftOut").get<std::size_t>();
}

void read_people(const Json& json, Incident& into) {
  into.attribution = named(json.at("attribution"), Attribution::nobody);
  into.culprits = list_from<Culprit>(json.at("culprits"), culprit_from);
  into.culprits_left_out = json.at("culpritsLeftOut").get<std::size_t>();
  into.strangers = json.at("strangers").get<std::vector<pid_t>>();
  into.unattributed_rounds = json.at("unattributedRounds").get<unsigned>();
  into.suspects = list_from<ClientFacts>(json.at("suspects"), client_from);
  into.suspect_count = json.at("suspectCount").get<std::size_t>();
  into.victims = list_from<ClientFacts>(json.at("victims"), client_from);
  into.victim_count = json.at("victimCount").get<std::size_t>();
}

// What earlier versions did not write.
void read_later_additions(const Json& json, Incident& into) {
  into.others_possible = json.value("othersPossible", false);
  if (const auto served = time_from(json.value("firstServed", Json()))) {
    into.first_served = FirstServed{json.at("firstServedPid").get<pid_t>(), *served};
  }
  if (const auto place = json.find("readTo"); place != json.end()) {
    into.read_to = LogPlace{text_at(*place, "log"), place->at("offset").get<std::uint64_t>()};
  }
}

Incident read(const Json& json) {
  Incident incident;
  const auto number = incident_number(text_at(json, "id"));
  if (!number) throw std::invalid_argument("id");
  incident.number = *number;
  incident.instance = text_at(json, "instance");
  incident.device = text_at(json, "device");
  incident.domain = text_at(json, "domain");
  incident.kind = named(json.at("kind"), Kind::device_trouble);
  incident.noticed = time_at(json, "noticed");
  // Of an earlier version, which did not tell the two apart.
  incident.happened = json.contains("happened") ? time_at(json, "happened") : incident.noticed;
  incident.attributed = time_from(json.at("attributed"));
  incident.serving = time_from(json.at("serving"));
  incident.closed = time_from(json.at("closed"));
  if (!json.at("end").is_null()) incident.end = named(json.at("end"), End::unconfirmed);
  incident.cause = text_at(json, "cause");
  incident.faults = json.at("faults").get<unsigned>();
  incident.rounds = json.at("rounds").get<unsigned>();
  if (const auto& action = json.at("recoveryAction"); !action.is_null()) {
    incident.action = named(action, RecoveryAction::unknown);
  }
  incident.needs = named(json.at("deviceNeeds"), Consequence::out_until_reboot);
  incident.hardware = json.at("hardware").get<bool>();
  read_later_additions(json, incident);
  read_people(json, incident);
  read_story(json, incident);
  return incident;
}

}  // namespace

Json time_json(const std::optional<Time>& time) {
  return time ? Json(format_time(*time)) : Json(nullptr);
}

std::optional<Time> time_from(const Json& json) {
  if (!json.is_string()) return std::nullopt;
  const auto time = parse_time(json.get_ref<const std::string&>());
  return time ? std::optional(time_of(*time)) : std::nullopt;
}

Json to_json(const ClientFacts& client) {
  const auto& memory = client.pinned_memory_mebibytes;
  const auto& percentage = client.active_thread_percentage;
  return {{"pid", client.pid},
          {"startTicks", client.start_ticks},
          {"uid", client.uid ? Json(*client.uid) : Json(nullptr)},
          {"command", or_null(client.command)},
          {"container", or_null(client.container)},
          {"pod", or_null(client.pod)},
          {"namespace", or_null(client.subject)},
          {"owner", or_null(client.owner)},
          {"share", or_null(client.share)},
          {"limits",
           {{"activeThreadPercentage", percentage ? Json(*percentage) : Json(nullptr)},
            {"pinnedDeviceMemoryMiB", memory ? Json(*memory) : Json(nullptr)}}},
          {"since", client.since == Time{} ? Json(nullptr) : time_json(client.since)}};
}

ClientFacts client_from(const Json& json) {
  ClientFacts client;
  client.pid = json.at("pid").get<pid_t>();
  client.start_ticks = json.at("startTicks").get<std::uint64_t>();
  if (const auto& uid = json.at("uid"); !uid.is_null()) client.uid = uid.get<uid_t>();
  client.command = text_at(json, "command");
  client.container = text_at(json, "container");
  client.pod = text_at(json, "pod");
  client.subject = text_at(json, "namespace");
  client.owner = text_at(json, "owner");
  client.share = text_at(json, "share");
  const auto& limits = json.at("limits");
  if (const auto& threads = limits.at("activeThreadPercentage"); !threads.is_null()) {
    client.active_thread_percentage = threads.get<double>();
  }
  if (const auto& memory = limits.at("pinnedDeviceMemoryMiB"); !memory.is_null()) {
    client.pinned_memory_mebibytes = memory.get<std::uint64_t>();
  }
  client.since = time_from(json.at("since")).value_or(Time{});
  return client;
}

Json brief_json(const Incident& incident) {
  const auto& culprits = incident.culprits;
  const auto& served = incident.first_served;
  return {{"id", id_of(incident.number)},
          {"instance", incident.instance},
          {"device", incident.device},
          {"domain", incident.domain},
          {"kind", to_string(incident.kind)},
          {"summary", summary(incident)},
          {"happened", time_json(incident.happened)},
          {"noticed", time_json(incident.noticed)},
          {"attributed", time_json(incident.attributed)},
          {"serving", time_json(incident.serving)},
          {"firstServed", served ? time_json(served->at) : Json(nullptr)},
          {"firstServedPid", served ? Json(served->pid) : Json(nullptr)},
          {"closed", time_json(incident.closed)},
          {"end", incident.end == End::none ? Json(nullptr) : Json(to_string(incident.end))},
          {"durations",
           {{"noticedMs", millis_between(incident.happened, incident.noticed)},
            {"attributedMs", millis_between(incident.happened, incident.attributed)},
            {"servingMs", millis_between(incident.happened, incident.serving)},
            {"firstServedMs", millis_between(incident.happened,
                                             served ? std::optional(served->at) : std::nullopt)}}},
          {"cause", or_null(incident.cause)},
          {"faults", incident.faults},
          {"rounds", incident.rounds},
          {"deviceNeeds", to_string(incident.needs)},
          {"hardware", incident.hardware},
          {"attribution", to_string(incident.attribution)},
          {"culprit", culprits.empty() ? Json(nullptr) : culprit_json(culprits.back())},
          {"unattributedRounds", incident.unattributed_rounds},
          {"suspectCount", incident.suspect_count},
          {"othersPossible", incident.others_possible},
          {"victimCount", incident.victim_count}};
}

Json to_json(const Incident& incident) {
  auto json = brief_json(incident);
  const auto client = [](const ClientFacts& one) { return to_json(one); };
  const auto& action = incident.action;
  json["recoveryAction"] = action ? Json(to_string(*action)) : Json(nullptr);
  json["xids"] = list_of(incident.xids, xid_json);
  json["consequences"] = list_of(incident.consequences, consequence_json);
  json["culprits"] = list_of(incident.culprits, culprit_json);
  json["culpritsLeftOut"] = incident.culprits_left_out;
  json["strangers"] = incident.strangers;
  json["suspects"] = list_of(incident.suspects, client);
  json["victims"] = list_of(incident.victims, client);
  json["signals"] = list_of(incident.signals, note_json);
  json["signalsLeftOut"] = incident.signals_left_out;
  json["steps"] = list_of(incident.steps, step_json);
  json["stepsLeftOut"] = incident.steps_left_out;
  return json;
}

Json record_json(const Incident& incident) {
  auto json = to_json(incident);
  if (const auto& place = incident.read_to) {
    json["readTo"] = {{"log", place->log}, {"offset", place->end_offset}};
  }
  return json;
}

Result<Incident> incident_from(const Json& json) {
  try {
    return read(json);
  } catch (const std::exception&) {
    return Error{"lacks what an incident has"};
  }
}

}  // namespace mps::fault
