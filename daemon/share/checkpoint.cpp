#include "share/checkpoint.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <utility>

#include "base/checked_line.h"
#include "base/text.h"

namespace mps::share {

namespace {

using Json = nlohmann::json;

constexpr std::size_t k_problem_limit = 100;
constexpr std::size_t k_gone_limit = 256;
constexpr std::uint64_t k_skipped_ids = 1U << 20U;

// Paths of cgroups may hold any bytes, JSON only UTF-8.
Json text_json(const std::string& text) {
  if (!find_odd_character(text)) return text;
  auto bytes = Json::array();
  for (const char byte : text) bytes.push_back(static_cast<unsigned char>(byte));
  return bytes;
}

std::string text_from(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  std::string text;
  for (const auto& byte : *found) {
    text += static_cast<char>(static_cast<unsigned char>(byte.get<unsigned>()));
  }
  return text;
}

void put_text(Json& json, const char* key, const std::string& text) {
  if (!text.empty()) json[key] = text_json(text);
}

template <typename Number>
Number number_from(const Json& json, const char* key) {
  const auto& value = json.at(key);
  if (!value.is_number_integer()) throw std::invalid_argument(key);
  return value.get<Number>();
}

void put_grant(Json& json, const Grant& grant) {
  json["percentage"] = grant.active_thread_percentage;
  if (grant.pinned_memory_mebibytes) json["memoryMiB"] = *grant.pinned_memory_mebibytes;
  if (grant.below_normal) json["belowNormal"] = true;
}

Grant grant_from(const Json& json) {
  Grant grant{json.at("percentage").get<double>(), std::nullopt};
  if (json.contains("memoryMiB")) {
    grant.pinned_memory_mebibytes = number_from<std::uint64_t>(json, "memoryMiB");
  }
  grant.below_normal = json.value("belowNormal", false);
  return grant;
}

struct Encode {
  Json operator()(const Counters& counters) const {
    return {
        {"next",
         {{"share", counters.share}, {"admission", counters.admission}, {"slot", counters.slot}}}};
  }

  Json operator()(const ShareMade& made) const {
    const auto& share = made.share;
    Json json = {{"number", share.number}};
    put_text(json, "id", share.id);
    put_text(json, "instance", share.instance);
    put_text(json, "subject", share.subject);
    put_grant(json, share.grant);
    json["madeAt"] = share.made_at;
    if (share.expires_at) json["expiresAt"] = *share.expires_at;
    if (share.closing) json["closing"] = true;
    return {{"share", std::move(json)}};
  }

  Json operator()(const ShareEnded& ended) const { return {{"shareEnded", ended.number}}; }

  Json operator()(const AdmissionMade& made) const {
    const auto& admission = made.admission;
    Json json = {{"id", admission.id}};
    put_text(json, "share", admission.share);
    put_text(json, "container", admission.container);
    put_text(json, "instance", admission.instance);
    put_text(json, "device", admission.device);
    put_text(json, "subject", admission.subject);
    put_text(json, "cgroup", admission.cgroup);
    put_text(json, "description", admission.description);
    put_text(json, "pod", admission.pod);
    put_text(json, "containerName", admission.container_name);
    put_text(json, "owner", admission.owner);
    put_grant(json, admission.grant);
    return {{"admission", std::move(json)}};
  }

  Json operator()(const AdmissionEnded& ended) const { return {{"admissionEnded", ended.id}}; }

  Json operator()(const SlotMade& made) const {
    const auto& slot = made.slot;
    Json json = {{"id", slot.id},
                 {"pid", slot.process.pid},
                 {"startTicks", slot.process.start_ticks},
                 {"uid", slot.uid}};
    put_grant(json, slot.grant);
    put_text(json, "command", slot.command);
    if (slot.since != 0) json["since"] = slot.since;
    if (slot.admission != 0) {
      json["admission"] = slot.admission;
    } else {
      put_text(json, "instance", slot.instance);
      put_text(json, "device", slot.device);
    }
    return {{"slot", std::move(json)}};
  }

  Json operator()(const SlotEnded& ended) const { return {{"slotEnded", ended.id}}; }
};

// When that slot ends, in a line before the one that it ends in: this has no place for it that
// earlier versions know. Counters only go up, so to them it says nothing.
Json end_time_json(const SlotEnded& ended) {
  auto json = Encode()(Counters{0, 0, 0});
  json["next"]["slotEnds"] = {{"id", ended.id}, {"at", ended.at}};
  return json;
}

Share share_from(const Json& json) {
  Share share{number_from<std::uint64_t>(json, "number"), text_from(json, "id"),
              text_from(json, "instance"), text_from(json, "subject"), grant_from(json)};
  share.made_at = number_from<std::int64_t>(json, "madeAt");
  if (json.contains("expiresAt")) share.expires_at = number_from<std::int64_t>(json, "expiresAt");
  share.closing = json.value("closing", false);
  return share;
}

Admission admission_from(const Json& json) {
  return {number_from<std::uint64_t>(json, "id"),
          text_from(json, "share"),
          text_from(json, "container"),
          text_from(json, "instance"),
          text_from(json, "device"),
          text_from(json, "subject"),
          text_from(json, "cgroup"),
          text_from(json, "description"),
          grant_from(json),
          text_from(json, "pod"),
          text_from(json, "containerName"),
          text_from(json, "owner")};
}

Slot slot_from(const Json& json) {
  Slot slot{};
  slot.id = number_from<std::uint64_t>(json, "id");
  if (json.contains("admission")) slot.admission = number_from<std::uint64_t>(json, "admission");
  slot.instance = text_from(json, "instance");
  slot.device = text_from(json, "device");
  slot.process = {number_from<pid_t>(json, "pid"), number_from<std::uint64_t>(json, "startTicks")};
  slot.uid = number_from<uid_t>(json, "uid");
  slot.grant = grant_from(json);
  slot.command = text_from(json, "command");
  if (json.contains("since")) slot.since = number_from<std::int64_t>(json, "since");
  return slot;
}

Counters counters_from(const Json& json) {
  return {number_from<std::uint64_t>(json, "share"), number_from<std::uint64_t>(json, "admission"),
          number_from<std::uint64_t>(json, "slot")};
}

// What a line says.
struct Record {
  std::optional<Change> change{};
  SlotEnded end_time{};  // where it is no change
};

Record next_from(const Json& json) {
  const auto counters = counters_from(json);
  if (!json.contains("slotEnds")) return {counters};
  const auto& ends = json.at("slotEnds");
  return {std::nullopt,
          {number_from<std::uint64_t>(ends, "id"), number_from<std::int64_t>(ends, "at")}};
}

Result<Record> record_from(const Json& json) {
  if (!json.is_object() || json.size() != 1) return Error{"is not a change"};
  const auto& kind = json.items().begin().key();
  const auto& value = json.items().begin().value();
  try {
    if (kind == "next") return next_from(value);
    if (kind == "share") return Record{ShareMade{share_from(value)}};
    if (kind == "admission") return Record{AdmissionMade{admission_from(value)}};
    if (kind == "slot") return Record{SlotMade{slot_from(value)}};
    const auto id = [&json](const char* key) { return number_from<std::uint64_t>(json, key); };
    if (kind == "shareEnded") return Record{ShareEnded{id("shareEnded")}};
    if (kind == "admissionEnded") return Record{AdmissionEnded{id("admissionEnded")}};
    if (kind == "slotEnded") return Record{SlotEnded{id("slotEnded")}};
  } catch (const std::exception&) {
    return Error{"lacks what it should say"};
  }
  return Error{"is a change of an unknown kind"};
}

Result<Record> decode(std::string_view line) {
  if (line.size() > k_checkpoint_line_limit) return Error{"is too long"};
  const auto text = checked_text(line);
  if (!text) return Error{"is damaged"};
  return record_from(Json::parse(*text, nullptr, false));
}

void note_gone(Replay& so_far, const SlotEnded& ended) {
  const auto& state = so_far.state;
  const auto slot = state.slots.find(ended.id);
  if (ended.at == 0 || slot == state.slots.end()) return;
  GoneSlot gone{slot->second, std::nullopt, ended.at};
  const auto admission = state.admissions.find(slot->second.admission);
  if (admission != state.admissions.end()) gone.admission = admission->second;
  so_far.gone.push_back(std::move(gone));
  if (so_far.gone.size() > k_gone_limit) so_far.gone.pop_front();
}

void note_problem(Replay& so_far, std::size_t number, const Error& problem) {
  if (so_far.problems.size() < k_problem_limit) {
    so_far.problems.push_back({number, problem.message});
  }
}

// `last_end`: the last time of an end that was read.
void take(Replay& so_far, SlotEnded& last_end, std::size_t number, std::string_view line) {
  auto record = decode(line);
  if (!record) {
    ++so_far.damaged_lines;
    return note_problem(so_far, number, record.error());
  }
  if (!record->change) {
    last_end = record->end_time;
    return;
  }
  auto& change = *record->change;
  if (auto* ended = std::get_if<SlotEnded>(&change)) {
    if (ended->id == last_end.id) ended->at = last_end.at;
    note_gone(so_far, *ended);
  }
  if (const auto applied = so_far.state.apply(change); !applied) {
    note_problem(so_far, number, applied.error());
  }
  so_far.changes.push_back(std::move(change));
}

}  // namespace

std::string encode(const Change& change) {
  auto line = checked_line(std::visit(Encode{}, change).dump());
  const auto* ended = std::get_if<SlotEnded>(&change);
  if (ended == nullptr || ended->at == 0) return line;
  return checked_line(end_time_json(*ended).dump()) + line;
}

std::string encode(const State& state) {
  const auto counters = encode(Change(state.counters));
  std::string text = counters;
  for (const auto& [id, share] : state.shares) text += encode(Change(ShareMade{share}));
  for (const auto& [id, admission] : state.admissions) {
    text += encode(Change(AdmissionMade{admission}));
  }
  for (const auto& [id, slot] : state.slots) text += encode(Change(SlotMade{slot}));
  return text + counters;
}

Replay replay(std::string_view text) {
  Replay result;
  SlotEnded last_end;
  std::size_t number = 0;
  for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    take(result, last_end, ++number, text.substr(0, end));
    result.good_bytes += end + 1;
    text.remove_prefix(end + 1);
  }
  result.torn = !text.empty();
  if (result.damaged_lines != 0) {
    auto& counters = result.state.counters;
    counters.share += k_skipped_ids;
    counters.admission += k_skipped_ids;
    counters.slot += k_skipped_ids;
  }
  return result;
}

}  // namespace mps::share
