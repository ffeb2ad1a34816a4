#include "fault/quarantine_json.h"

#include <algorithm>
#include <array>
#include <exception>
#include <stdexcept>
#include <string_view>

#include "base/text.h"
#include "fault/incident_json.h"
#include "fault/json_text.h"
#include "policy/subject.h"

namespace mps::fault {

namespace {

using nlohmann::json;

constexpr std::size_t k_text_limit = 256;
constexpr std::array<std::string_view, 5> k_fields{"namespace", "owner", "command", "for",
                                                   "reason"};

void put_key(json& value, const Key& key) {
  value["namespace"] = key.subject;
  value["owner"] = or_null(key.owner);
  value["command"] = or_null(key.command);
}

Key key_from(const json& value) {
  return {text_at(value, "namespace"), text_at(value, "owner"), text_at(value, "command")};
}

Entry entry_from(const json& value) {
  const auto number = entry_number(text_at(value, "id"));
  if (!number) throw std::invalid_argument("id");
  return {*number,
          key_from(value),
          value.at("faults").get<unsigned>(),
          time_at(value, "since"),
          time_at(value, "until"),
          text_at(value, "reason"),
          text_at(value, "by")};
}

CountedFault fault_from(const json& value) {
  return {value.at("incident").get<std::uint64_t>(),
          value.at("round").get<unsigned>(),
          value.at("pid").get<pid_t>(),
          value.at("startTicks").get<std::uint64_t>(),
          key_from(value),
          time_at(value, "at"),
          value.value("spent", false)};
}

struct ToJson {
  json operator()(const FaultCounted& counted) const {
    const auto& fault = counted.fault;
    json value{{"incident", fault.incident},
               {"round", fault.round},
               {"pid", fault.pid},
               {"startTicks", fault.start_ticks},
               {"at", time_json(fault.at)}};
    if (fault.spent) value["spent"] = true;
    put_key(value, fault.who);
    return {{"counted", std::move(value)}};
  }
  json operator()(const EntryMade& made) const { return {{"entry", to_json(made.entry)}}; }
  json operator()(const EntryEnded& ended) const { return {{"ended", ended.number}}; }
};

Error bad(std::string_view field, std::string_view reason, const json& value) {
  return {std::string(field) + ": " + std::string(reason) + ": " + printable(value.dump(), 64)};
}

Result<void> read_field(const std::string& name, const json& value, Order& order) {
  if (!value.is_string()) return bad(name, "must be text", value);
  const auto& text = value.get_ref<const std::string&>();
  if (name == "for") {
    const auto duration = parse_duration(text);
    if (!duration) return bad("for", "must be a duration such as 15m or 8h", value);
    order.duration = *duration;
  } else if (name == "namespace") {
    if (!policy::is_subject(text) || policy::is_kind_default(text)) {
      return bad("namespace", "must be one, such as team-a or unit:cron.service", value);
    }
    order.key.subject = text;
  } else {
    if (text.size() > k_text_limit) return bad(name, "must have 256 bytes at most", value);
    auto& into = name == "owner"     ? order.key.owner
                 : name == "command" ? order.key.command
                                     : order.reason;
    into = printable(text, k_text_limit);
  }
  return {};
}

}  // namespace

json to_json(const Entry& entry) {
  json value{{"id", entry_id(entry.number)},    {"faults", entry.faults},
             {"since", time_json(entry.since)}, {"until", time_json(entry.until)},
             {"reason", entry.reason},          {"by", or_null(entry.by)}};
  put_key(value, entry.key);
  return value;
}

json to_json(const QuarantineChange& change) {
  return std::visit(ToJson{}, change);
}

Result<QuarantineChange> quarantine_change_from(const std::string& kind, const json& value) {
  try {
    if (kind == "counted") return QuarantineChange(FaultCounted{fault_from(value)});
    if (kind == "entry") return QuarantineChange(EntryMade{entry_from(value)});
    if (kind == "ended") return QuarantineChange(EntryEnded{value.get<std::uint64_t>()});
  } catch (const std::exception&) {
    return Error{"lacks what it should say"};
  }
  return Error{"is of an unknown kind"};
}

Result<Order> order_from(const std::string& body) {
  const auto value = json::parse(body, nullptr, false);
  if (!value.is_object()) return Error{"the body must be a JSON object"};
  Order order;
  for (const auto& [key, field] : value.items()) {
    if (std::find(k_fields.begin(), k_fields.end(), key) == k_fields.end()) {
      const auto near = did_you_mean(key, k_fields);
      return Error{"unknown field \"" + printable(key, 64) + "\" in the body" +
                   (near ? "; did you mean \"" + std::string(*near) + "\"?" : "")};
    }
    if (auto read = read_field(key, field, order); !read) return read.error();
  }
  for (const char* needed : {"namespace", "for", "reason"}) {
    if (!value.contains(needed)) return Error{std::string(needed) + ": is missing"};
  }
  return order;
}

}  // namespace mps::fault
