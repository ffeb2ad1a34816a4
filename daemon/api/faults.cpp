#include "api/faults.h"

#include <spdlog/spdlog.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/json.h"
#include "base/text.h"
#include "fault/incident_json.h"
#include "fault/quarantine_json.h"

namespace mps::api {

namespace {

using nlohmann::json;

constexpr std::uint64_t k_default_faults = 100;

Reply json_reply(const json& value, unsigned status = 200) {
  return {status, dump(value), "application/json", ""};
}

Reply bad_request(const std::string& message) {
  return error_reply(400, "bad_request", message);
}

Reply not_kept() {
  return error_reply(409, "conflict", "this agent keeps no history of faults and no quarantine");
}

// Which incidents are asked for.
struct Filter {
  std::optional<std::string> instance;
  std::optional<std::uint64_t> behind;  // a number
  std::optional<fault::Time> since;
  std::uint64_t limit = k_default_faults;

  [[nodiscard]] bool takes(const fault::Incident& incident) const {
    return (!instance || incident.instance == *instance) &&
           (!behind || incident.number > *behind) && (!since || incident.noticed >= *since);
  }
};

Result<Filter> filter_of(const Request& request) {
  Filter filter;
  filter.instance = request.parameter("instance");
  if (const auto since = request.parameter("since")) {
    filter.behind = fault::incident_number(*since);
    const auto time = parse_time(*since);
    if (time) filter.since = fault::time_of(*time);
    if (!filter.behind && !filter.since) {
      return Error{
          "parameter since must be an incident's id or a time such as "
          "2026-11-20T23:22:15.000Z: \"" +
          printable(*since, 64) + "\""};
    }
  }
  if (const auto limit = request.parameter("limit")) {
    const auto number = parse_number<std::uint64_t>(*limit);
    if (!number) {
      return Error{"parameter limit must be a whole number: \"" + printable(*limit, 64) + "\""};
    }
    filter.limit = *number;
  }
  return filter;
}

std::string name_of(const Peer& peer) {
  return "uid " + std::to_string(peer.uid);
}

}  // namespace

Reply list_faults(const FaultDesk* desk, const Request& request) {
  const auto filter = filter_of(request);
  if (!filter) return bad_request(filter.error().message);
  auto list = json::array();
  if (desk == nullptr) return json_reply(list);
  const auto& all = desk->incidents();
  for (auto at = all.rbegin(); at != all.rend() && list.size() < filter->limit; ++at) {
    if (filter->takes(*at)) list.push_back(fault::brief_json(*at));
  }
  return json_reply(list);
}

Reply show_fault(const FaultDesk* desk, const std::string& id) {
  const auto number = fault::incident_number(id);
  if (desk != nullptr && number) {
    for (const auto& incident : desk->incidents()) {
      if (incident.number == *number) return json_reply(fault::to_json(incident));
    }
  }
  return error_reply(404, "not_found", "no incident \"" + printable(id, 64) + "\"");
}

Reply list_quarantine(const FaultDesk* desk) {
  auto list = json::array();
  if (desk == nullptr) return json_reply(list);
  for (const auto& [number, entry] : desk->quarantine().entries) {
    list.push_back(fault::to_json(entry));
  }
  return json_reply(list);
}

Reply add_to_quarantine(FaultDesk* desk, const Request& request) {
  const auto order = fault::order_from(request.body);
  if (!order) return bad_request(order.error().message);
  if (desk == nullptr) return not_kept();
  spdlog::info("quarantine of {} asked for by pid {} of uid {}", fault::describe(order->key),
               request.peer->pid, request.peer->uid);
  const auto made = desk->keep_out(*order, name_of(*request.peer));
  if (!made) return bad_request(made.error().message);
  return json_reply(fault::to_json(*made), 201);
}

Reply remove_from_quarantine(FaultDesk* desk, const Request& request, const std::string& id) {
  if (desk == nullptr) return not_kept();
  spdlog::info("end of quarantine {} asked for by pid {} of uid {}", printable(id, 64),
               request.peer->pid, request.peer->uid);
  const auto lifted = desk->lift(id, name_of(*request.peer));
  if (!lifted) return error_reply(404, "not_found", lifted.error().message);
  return json_reply({{"entry", fault::entry_id(lifted->number)},
                     {"message", fault::describe(lifted->key) + " is kept out no longer"}});
}

}  // namespace mps::api
