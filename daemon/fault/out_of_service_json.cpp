#include "fault/out_of_service_json.h"

#include <exception>
#include <stdexcept>
#include <string_view>

#include "base/text.h"
#include "fault/incident_json.h"
#include "fault/json_text.h"

namespace mps::fault {

namespace {

using nlohmann::json;

constexpr std::string_view k_out = "deviceOut";
constexpr std::string_view k_back = "deviceBack";
constexpr std::string_view k_overruled = "driverOverruled";
constexpr std::size_t k_uuid_limit = 256;

std::string uuid_at(const json& value, const char* key) {
  auto uuid = text_at(value, key);
  if (uuid.empty() || uuid.size() > k_uuid_limit) throw std::invalid_argument(key);
  return uuid;
}

Consequence needs_from(const json& value) {
  const auto& text = value.get_ref<const std::string&>();
  if (text == "reset") return Consequence::out_until_reset;
  if (text == "reboot") return Consequence::out_until_reboot;
  throw std::invalid_argument("needs");
}

RecoveryAction action_from(const json& value) {
  const auto& text = value.get_ref<const std::string&>();
  for (int i = 0; i <= static_cast<int>(RecoveryAction::unknown); ++i) {
    if (text == to_string(static_cast<RecoveryAction>(i))) return static_cast<RecoveryAction>(i);
  }
  throw std::invalid_argument("action");
}

OutOfService entry_from(const json& value) {
  OutOfService entry;
  entry.device = uuid_at(value, "device");
  entry.gpu = uuid_at(value, "gpu");
  entry.needs = needs_from(value.at("needs"));
  if (const auto& xid = value.at("xid"); !xid.is_null()) entry.xid = xid.get<unsigned>();
  if (const auto& action = value.at("action"); !action.is_null()) {
    entry.action = action_from(action);
  }
  entry.since = time_at(value, "since");
  if (const auto& incident = value.at("incident"); !incident.is_null()) {
    const auto number = incident_number(incident.get<std::string>());
    if (!number) throw std::invalid_argument("incident");
    entry.incident = *number;
  }
  entry.boot_id = text_at(value, "bootId");
  return entry;
}

struct ToJson {
  json operator()(const DeviceTakenOut& taken) const {
    auto value = to_json(taken.entry);
    value.erase("reason");
    value.erase("message");
    value["bootId"] = or_null(taken.entry.boot_id);
    return {{k_out, std::move(value)}};
  }
  json operator()(const DeviceReturned& returned) const {
    return {{k_back, {{"device", returned.device}, {"why", returned.why}}}};
  }
  json operator()(const DriverOverruled& said) const {
    return {{k_overruled,
             {{"gpu", said.gpu},
              {"action", to_string(said.action)},
              {"bootId", or_null(said.boot_id)}}}};
  }
};

}  // namespace

json to_json(const OutOfService& entry) {
  return {{"device", entry.device},
          {"gpu", entry.gpu},
          {"needs", need_of(entry)},
          {"reason", reason_of(entry)},
          {"xid", entry.xid ? json(*entry.xid) : json(nullptr)},
          {"action", entry.action ? json(to_string(*entry.action)) : json(nullptr)},
          {"since", time_json(entry.since)},
          {"incident", entry.incident == 0 ? json(nullptr) : json(id_of(entry.incident))},
          {"message", describe(entry)}};
}

json to_json(const DeviceChange& change) {
  return std::visit(ToJson{}, change);
}

bool is_device_change(const std::string& kind) {
  return kind == k_out || kind == k_back || kind == k_overruled;
}

Result<DeviceChange> device_change_from(const std::string& kind, const json& value) {
  try {
    if (kind == k_out) return DeviceChange(DeviceTakenOut{entry_from(value)});
    if (kind == k_back) {
      return DeviceChange(DeviceReturned{uuid_at(value, "device"), text_at(value, "why")});
    }
    if (kind == k_overruled) {
      return DeviceChange(DriverOverruled{uuid_at(value, "gpu"), action_from(value.at("action")),
                                          text_at(value, "bootId")});
    }
  } catch (const std::exception&) {
    return Error{"lacks what it should say"};
  }
  return Error{"is of an unknown kind"};
}

}  // namespace mps::fault
