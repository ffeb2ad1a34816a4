#include "api/api.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>
#include <variant>

#include "api/admission_json.h"
#include "api/event_stream.h"
#include "api/explain.h"
#include "api/json.h"
#include "api/policy_json.h"
#include "base/text.h"

namespace mps::api {

namespace {

using nlohmann::json;

constexpr std::uint64_t k_default_events = 1000;

Reply json_reply(const json& value, unsigned status = 200) {
  return {status, dump(value), "application/json", ""};
}

Reply bad_request(const std::string& message) {
  return error_reply(400, "bad_request", message);
}

// A parameter that is absent, a value, or the error to answer with.
using Flag = std::variant<bool, Reply>;
using Number = std::variant<std::uint64_t, Reply>;

Flag flag_parameter(const Request& request, std::string_view name) {
  const auto value = request.parameter(name).value_or("0");
  if (value == "1" || value == "true") return true;
  if (value == "0" || value == "false") return false;
  return bad_request("parameter " + std::string(name) + " must be 0 or 1: \"" +
                     printable(value, 64) + "\"");
}

Number number_parameter(const Request& request, std::string_view name, std::uint64_t otherwise) {
  const auto value = request.parameter(name);
  if (!value) return otherwise;
  if (const auto number = parse_number<std::uint64_t>(*value)) return *number;
  return bad_request("parameter " + std::string(name) + " must be a whole number: \"" +
                     printable(*value, 64) + "\"");
}

// The body of a verb: nothing, or an object with nothing but "force".
Flag force_in_body(const std::string& body, bool takes_force) {
  if (trim(body).empty()) return false;
  const auto value = json::parse(body, nullptr, false);
  if (!value.is_object()) return bad_request("the body must be a JSON object");
  bool force = false;
  for (const auto& [key, field] : value.items()) {
    if (key != "force" || !takes_force) {
      return bad_request("unknown field \"" + printable(key, 64) + "\" in the body");
    }
    if (!field.is_boolean()) return bad_request("field \"force\" must be true or false");
    force = field.get<bool>();
  }
  return force;
}

std::string meant(std::string_view word, const std::vector<std::string_view>& known) {
  const auto near = did_you_mean(word, known);
  return near ? "; did you mean \"" + std::string(*near) + "\"?" : std::string();
}

Reply verb_failed(const VerbError& error) {
  switch (error.kind) {
    case VerbError::Kind::not_found:
      return error_reply(404, "not_found", error.message);
    case VerbError::Kind::conflict:
      return error_reply(409, "conflict", error.message);
    case VerbError::Kind::unanswered:
      return error_reply(504, "not_answered", error.message);
    case VerbError::Kind::failed:
      break;
  }
  return error_reply(500, "failed", error.message);
}

}  // namespace

struct Api::Table {
  static const std::array<Route<Api>, 25>& routes() {
    static const std::array<Route<Api>, 25> table{{
        {{"GET", "/v1/status", {}}, &Api::status},
        {{"GET", "/v1/devices", {}}, &Api::devices},
        {{"GET", "/v1/instances", {}}, &Api::instances},
        {{"GET", "/v1/instances/{id}", {}}, &Api::instance},
        {{"GET", "/v1/clients", {"instance"}}, &Api::clients},
        {{"GET", "/v1/admissions", {"namespace"}}, &Api::admissions},
        {{"GET", "/v1/admissions/waiting", {"namespace"}}, &Api::waiting},
        {{"GET", "/v1/admissions/use", {}}, &Api::use},
        {{"GET", "/v1/shares", {"instance"}}, &Api::shares},
        {{"GET", "/v1/shares/{id}", {}}, &Api::share},
        {{"POST", "/v1/shares", {}}, &Api::create_share},
        {{"DELETE", "/v1/shares/{id}", {"drain"}}, &Api::delete_share},
        {{"GET", "/v1/events", {"since", "kind", "instance", "limit", "follow"}}, &Api::events},
        {{"GET", "/v1/faults", {"instance", "since", "limit"}}, &Api::faults},
        {{"GET", "/v1/faults/{id}", {}}, &Api::fault},
        {{"GET", "/v1/quarantine", {}}, &Api::quarantine},
        {{"POST", "/v1/quarantine", {}}, &Api::add_quarantine},
        {{"DELETE", "/v1/quarantine/{id}", {}}, &Api::remove_quarantine},
        {{"GET", "/v1/policies", {}}, &Api::policies},
        {{"GET", "/v1/policies/{id}", {}}, &Api::policy},
        {{"GET", "/v1/explain", {"namespace", "labels", "device"}}, &Api::explain},
        {{"POST", "/v1/instances/{id}:drain", {}}, &Api::drain},
        {{"POST", "/v1/instances/{id}:undrain", {}}, &Api::undrain},
        {{"POST", "/v1/instances/{id}:restart", {"force"}}, &Api::restart},
        {{"POST", "/v1/clients/{id}:terminate", {}}, &Api::terminate},
    }};
    return table;
  }
};

Api::Api(Agent& agent, EventLog& log, std::optional<gid_t> operators)
    : agent_(agent), log_(log), operators_(operators) {}

Answer Api::handle(const Request& request) {
  return dispatch(Table::routes(), *this, request);
}

std::vector<RouteInfo> Api::routes() {
  std::vector<RouteInfo> list;
  for (const auto& route : Table::routes()) list.push_back(route.info);
  return list;
}

// Reading

Answer Api::status(const Request&, const std::string&) {
  return json_reply(status_to_json(agent_, log_));
}

Answer Api::devices(const Request&, const std::string&) {
  return json_reply(devices_to_json(agent_.inventory(), agent_.device_facts(), agent_.faults()));
}

Answer Api::instances(const Request&, const std::string&) {
  auto list = json::array();
  for (const auto& instance : agent_.instances()) list.push_back(to_json(instance));
  return json_reply(list);
}

Reply Api::no_instance(const std::string& id, const std::vector<instance::Snapshot>& all) const {
  std::vector<std::string_view> names;
  names.reserve(all.size());
  for (const auto& instance : all) names.emplace_back(instance.id);
  return error_reply(404, "not_found",
                     "no instance \"" + printable(id, 64) + "\"" + meant(id, names));
}

Answer Api::instance(const Request&, const std::string& id) {
  const auto all = agent_.instances();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&id](const auto& instance) { return instance.id == id; });
  if (found == all.end()) return no_instance(id, all);
  return json_reply(to_json(*found));
}

Answer Api::clients(const Request& request, const std::string&) {
  const auto wanted = request.parameter("instance");
  const auto all = agent_.instances();
  const auto admitted = agent_.admissions();
  const SlotsByProcess slots(admitted);
  auto list = json::array();
  bool found = !wanted;
  for (const auto& instance : all) {
    if (wanted && *wanted != instance.id) continue;
    found = true;
    for (auto& client : clients_to_json(instance, slots)) list.push_back(std::move(client));
  }
  if (!found) return no_instance(*wanted, all);
  return json_reply(list);
}

Answer Api::admissions(const Request& request, const std::string&) {
  return json_reply(
      admissions_to_json(agent_.admissions(), request.parameter("namespace").value_or("")));
}

Answer Api::waiting(const Request& request, const std::string&) {
  return json_reply(
      waiting_to_json(agent_.admissions(), request.parameter("namespace").value_or("")));
}

Answer Api::use(const Request&, const std::string&) {
  return json_reply(use_to_json(agent_.admissions()));
}

Answer Api::shares(const Request& request, const std::string&) {
  const auto wanted = request.parameter("instance");
  auto list = json::array();
  for (const auto& view : agent_.shares()) {
    if (!wanted || *wanted == view.share.instance) list.push_back(to_json(view));
  }
  return json_reply(list);
}

Reply Api::no_share(const std::string& id) const {
  const auto all = agent_.shares();
  std::vector<std::string_view> names;
  for (const auto& view : all) {
    if (!view.is_open_share) names.emplace_back(view.share.id);
  }
  return error_reply(404, "not_found", "no share \"" + printable(id, 64) + "\"" + meant(id, names));
}

Answer Api::share(const Request&, const std::string& id) {
  for (const auto& view : agent_.shares()) {
    if (!view.is_open_share && view.share.id == id) return json_reply(to_json(view));
  }
  return no_share(id);
}

Answer Api::events(const Request& request, const std::string&) {
  const auto follow = flag_parameter(request, "follow");
  const auto since = number_parameter(request, "since", std::numeric_limits<std::uint64_t>::max());
  const auto limit = number_parameter(request, "limit", k_default_events);
  if (const auto* bad = std::get_if<Reply>(&follow)) return *bad;
  if (const auto* bad = std::get_if<Reply>(&since)) return *bad;
  if (const auto* bad = std::get_if<Reply>(&limit)) return *bad;
  const EventFilter filter{request.parameter("kind").value_or(""),
                           request.parameter("instance").value_or("")};
  const bool from_now = !request.parameter("since");
  if (std::get<bool>(follow)) {
    const auto start = from_now ? log_.last_id() : std::get<std::uint64_t>(since);
    return std::make_unique<EventStream>(log_, filter, start);
  }
  // Behind an id the oldest come first, so that one can go on from the last; else the newest.
  std::deque<const Event*> found;
  const auto most = std::get<std::uint64_t>(limit);
  const auto begin = from_now
                         ? log_.ring().begin()
                         : first_after(log_, known_place(log_, std::get<std::uint64_t>(since)));
  for (auto next = begin; next != log_.ring().end(); ++next) {
    if (!filter.passes(*next)) continue;
    if (!from_now && found.size() >= most) break;
    found.push_back(&*next);
    if (found.size() > most) found.pop_front();
  }
  auto list = json::array();
  for (const auto* event : found) list.push_back(to_json(*event));
  return json_reply(list);
}

Answer Api::faults(const Request& request, const std::string&) {
  return list_faults(agent_.faults(), request);
}

Answer Api::fault(const Request&, const std::string& id) {
  return show_fault(agent_.faults(), id);
}

Answer Api::quarantine(const Request&, const std::string&) {
  return list_quarantine(agent_.faults());
}

Answer Api::policies(const Request&, const std::string&) {
  return json_reply(policies_to_json(*agent_.policies().generation));
}

Answer Api::policy(const Request&, const std::string& id) {
  const auto generation = agent_.policies().generation;
  std::vector<std::string_view> names;
  for (const auto& [subject, policy] : generation->policies) names.emplace_back(subject);
  for (const auto& [subject, refused] : generation->refused) names.emplace_back(subject);
  if (std::find(names.begin(), names.end(), id) != names.end()) {
    for (const auto& entry : policies_to_json(*generation)) {
      if (entry["namespace"] == id) return json_reply(entry);
    }
  }
  return error_reply(404, "not_found",
                     "no policy for namespace \"" + printable(id, 64) + "\"" + meant(id, names));
}

Answer Api::explain(const Request& request, const std::string&) {
  const auto name = request.parameter("namespace");
  if (!name) return bad_request("parameter namespace is missing");
  const auto subject = parse_subject(*name);
  if (!subject) return bad_request("parameter namespace " + subject.error().message);
  const auto labels = parse_labels(request.parameter("labels").value_or(""));
  if (!labels) return bad_request("parameter labels " + labels.error().message);
  const auto devices =
      choose_devices(agent_.device_facts(), request.parameter("device").value_or(""));
  if (!devices) return error_reply(404, "not_found", devices.error().message);
  return json_reply(
      api::explain(*agent_.policies().generation, Question{*subject, *labels}, *devices));
}

// Verbs

bool Api::may(const std::optional<Peer>& peer) const {
  if (!peer) return false;
  if (peer->uid == 0 || peer->uid == geteuid()) return true;
  if (!operators_) return false;
  return peer->gid == *operators_ ||
         std::find(peer->groups.begin(), peer->groups.end(), *operators_) != peer->groups.end();
}

Answer Api::carry_out(const Request& request, const std::string& id, const char* name, Verb verb,
                      bool takes_force) {
  if (!may(request.peer)) {
    return error_reply(403, "forbidden",
                       std::string("only root and operators may ") + name + " an instance");
  }
  const auto in_query = flag_parameter(request, "force");
  const auto in_body = force_in_body(request.body, takes_force);
  if (const auto* bad = std::get_if<Reply>(&in_query)) return *bad;
  if (const auto* bad = std::get_if<Reply>(&in_body)) return *bad;
  const auto all = agent_.instances();
  if (std::none_of(all.begin(), all.end(), [&id](const auto& one) { return one.id == id; })) {
    return no_instance(id, all);
  }
  const bool force = std::get<bool>(in_query) || std::get<bool>(in_body);
  spdlog::info("{}: {}{} asked for by pid {} of uid {}", id, name, force ? " with force" : "",
               request.peer->pid, request.peer->uid);
  const auto done = verb(agent_, id, force);
  if (!done) return verb_failed(done.error());
  return json_reply({{"instance", id}, {"message", *done}}, 202);
}

Answer Api::drain(const Request& request, const std::string& id) {
  const Verb verb = [](Agent& agent, const std::string& instance, bool) {
    return agent.drain(instance);
  };
  return carry_out(request, id, "drain", verb, false);
}

Answer Api::undrain(const Request& request, const std::string& id) {
  const Verb verb = [](Agent& agent, const std::string& instance, bool) {
    return agent.undrain(instance);
  };
  return carry_out(request, id, "undrain", verb, false);
}

Answer Api::restart(const Request& request, const std::string& id) {
  const Verb verb = [](Agent& agent, const std::string& instance, bool force) {
    return agent.restart(instance, force);
  };
  return carry_out(request, id, "restart", verb, true);
}

Answer Api::create_share(const Request& request, const std::string&) {
  if (!may(request.peer)) {
    return error_reply(403, "forbidden", "only root and operators may create a share");
  }
  const auto order = order_from(request.body);
  if (!order) return bad_request(order.error().message);
  spdlog::info("a share of device {} asked for by pid {} of uid {}", printable(order->device),
               request.peer->pid, request.peer->uid);
  const auto made = agent_.create_share(*order);
  if (!made) return verb_failed(made.error());
  return json_reply(to_json(*made), 201);
}

Answer Api::delete_share(const Request& request, const std::string& id) {
  if (!may(request.peer)) {
    return error_reply(403, "forbidden", "only root and operators may delete a share");
  }
  const auto drain = flag_parameter(request, "drain");
  if (const auto* bad = std::get_if<Reply>(&drain)) return *bad;
  spdlog::info("end of share {} asked for by pid {} of uid {}", printable(id, 64),
               request.peer->pid, request.peer->uid);
  const auto done = agent_.delete_share(id, std::get<bool>(drain));
  if (!done && done.error().kind == VerbError::Kind::not_found) return no_share(id);
  if (!done) return verb_failed(done.error());
  return json_reply({{"share", id}, {"message", *done}}, 202);
}

Answer Api::add_quarantine(const Request& request, const std::string&) {
  if (may(request.peer)) return add_to_quarantine(agent_.faults(), request);
  return error_reply(403, "forbidden", "only root and operators may keep somebody out");
}

Answer Api::remove_quarantine(const Request& request, const std::string& id) {
  if (may(request.peer)) return remove_from_quarantine(agent_.faults(), request, id);
  return error_reply(403, "forbidden", "only root and operators may end a quarantine");
}

Answer Api::terminate(const Request& request, const std::string& id) {
  if (!may(request.peer)) {
    return error_reply(403, "forbidden", "only root and operators may terminate a client");
  }
  const auto body = force_in_body(request.body, false);
  if (const auto* bad = std::get_if<Reply>(&body)) return *bad;
  const auto pid = parse_number<pid_t>(id);
  if (!pid || *pid <= 0) {
    return bad_request("a client is named by its pid: \"" + printable(id, 64) + "\"");
  }
  spdlog::info("client {}: terminate asked for by pid {} of uid {}", *pid, request.peer->pid,
               request.peer->uid);
  return Later([&agent = agent_, pid = *pid](const std::function<void(Reply)>& reply) {
    agent.terminate(pid, [reply, pid](const Agent::VerbResult& done) {
      reply(done ? json_reply({{"pid", pid}, {"message", *done}}) : verb_failed(done.error()));
    });
  });
}

}  // namespace mps::api
