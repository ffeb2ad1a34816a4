#include "api/journal_record.h"

#include <algorithm>
#include <utility>

#include "api/json.h"
#include "base/text.h"

namespace mps::api {

namespace {

constexpr std::size_t k_kind_limit = 64;
constexpr std::size_t k_name_limit = 256;
constexpr std::size_t k_message_limit = 1024;
constexpr std::size_t k_data_limit = 4096;

// Cuts before a character that would not fit wholly, so that UTF-8 stays UTF-8.
void cut(std::string& text, std::size_t limit) {
  if (text.size() <= limit) return;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0U) == 0x80U) --limit;
  text.resize(limit);
}

Event event_from(const nlohmann::json& json) {
  Event event;
  event.id = json.at("id").get<std::uint64_t>();
  event.time = parse_time(json.at("time").get<std::string>()).value_or(event.time);
  event.kind = json.at("kind").get<std::string>();
  event.instance = json.value("instance", std::string{});
  event.message = json.at("message").get<std::string>();
  event.data = json.value("data", nlohmann::json::object());
  if (const auto log = json.find("log"); log != json.end()) {
    event.position = LogPosition{log->get<std::string>(), json.at("end").get<std::uint64_t>()};
  }
  return event;
}

Checkpoint checkpoint_from(const nlohmann::json& json) {
  Checkpoint checkpoint;
  checkpoint.last_id = json.at("lastId").get<std::uint64_t>();
  for (const auto& [instance, position] : json.at("positions").items()) {
    checkpoint.positions[instance] = {position.at("log").get<std::string>(),
                                      position.at("end").get<std::uint64_t>()};
  }
  return checkpoint;
}

}  // namespace

void Checkpoint::note(const Event& event) {
  last_id = std::max(last_id, event.id);
  // The latest and not the furthest: a log that was truncated is read from its beginning.
  if (event.position) positions[event.instance] = *event.position;
}

std::string encode(const Event& event) {
  auto json = to_json(event);
  if (event.position) {
    json["log"] = event.position->log;
    json["end"] = event.position->end_offset;
  }
  return dump(json) + "\n";
}

std::string encode(const Checkpoint& checkpoint) {
  auto positions = nlohmann::json::object();
  for (const auto& [instance, position] : checkpoint.positions) {
    positions[instance] = {{"log", position.log}, {"end", position.end_offset}};
  }
  return dump({{"checkpoint", {{"lastId", checkpoint.last_id}, {"positions", positions}}}}) + "\n";
}

std::optional<std::variant<Event, Checkpoint>> decode(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  try {
    if (const auto found = json.find("checkpoint"); found != json.end()) {
      return checkpoint_from(*found);
    }
    return event_from(json);
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

void bound(Event& event) {
  cut(event.kind, k_kind_limit);
  cut(event.instance, k_name_limit);
  cut(event.message, k_message_limit);
  if (event.position) cut(event.position->log, k_name_limit);
  if (!event.data.is_object()) event.data = nlohmann::json::object();
  if (const auto size = dump(event.data).size(); size > k_data_limit) {
    event.data = {{"omittedBytes", size}};
  }
}

}  // namespace mps::api
