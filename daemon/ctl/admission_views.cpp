#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "ctl/fields.h"
#include "ctl/table.h"
#include "ctl/views.h"

namespace mps::ctl {

namespace {

using nlohmann::json;

constexpr const char* k_no_gate =
    "no instance has a gate: whoever reaches its socket gets in, and is not counted here\n";

std::string numbers(const json& list) {
  std::string line;
  if (!list.is_array()) return line;
  for (const auto& number : list) line += (line.empty() ? "" : " ") + text(number);
  return line;
}

// "3 of 4"
std::string of_limit(const std::string& used, const std::string& limit) {
  return used.empty() || limit.empty() ? used : used + " of " + limit;
}

// What `one` has of each kind, of the limits that are there.
std::vector<std::string> measures(const json& one, const json& limits) {
  return {of_limit(text(one, {"clients"}), text(limits, {"clients"})),
          of_limit(percentage(field(one, {"activeThreadPercentage"})),
                   percentage(field(limits, {"activeThreadPercentage"}))),
          of_limit(mebibytes(field(one, {"pinnedDeviceMemoryMiB"})),
                   mebibytes(field(limits, {"pinnedDeviceMemoryMiB"})))};
}

// "gpu0"; the UUID where nothing else is known of it.
std::string device_name(const json& use, const std::string& uuid) {
  for (const auto& one : field(use, {"devices"})) {
    const auto name = text(one, {"id"});
    if (text(one, {"device"}) == uuid && !name.empty()) return name;
  }
  return uuid;
}

std::string left_out_text(const json& left_out) {
  std::string line;
  if (!left_out.is_object()) return line;
  for (const auto& [what, count] : left_out.items()) {
    if (count == 0) continue;
    line += (line.empty() ? "" : ", ") + text(count) + " " + what;
  }
  return line.empty() ? line : "too many to be listed: " + printable(line) + "\n";
}

std::string refused_text(const json& refused) {
  std::string line;
  if (!refused.is_object()) return line;
  for (const auto& [code, times] : refused.items()) {
    line += (line.empty() ? "" : ", ") + text(times) + " " + code;
  }
  return line.empty() ? line
                      : "refused since the supervisor's start: " + printable(line, 1000) + "\n";
}

}  // namespace

std::string admissions_text(const json& admissions, bool wide) {
  Table table{{"ID", "INSTANCE", "SHARE", "NAMESPACE", "CONTAINER", "LIMITS", "CLIENTS"}, {}};
  if (wide) table.header.insert(table.header.end(), {"PIDS", "DEVICE", "CONTAINER ID"});
  for (const auto& admission : admissions) {
    std::vector<std::string> row;
    for (const char* name : {"id", "instance", "share", "namespace", "description"}) {
      row.push_back(text(admission, {name}));
    }
    row.push_back(limits_text(field(admission, {"limits"})));
    row.push_back(text(admission, {"clients"}));
    if (wide) {
      row.push_back(numbers(field(admission, {"pids"})));
      row.push_back(text(admission, {"device"}));
      row.push_back(text(admission, {"container"}));
    }
    table.rows.push_back(std::move(row));
  }
  return to_text(table);
}

std::string waiting_text(const json& waiting, bool wide, SystemTime now) {
  Table table{{"INSTANCE", "NAMESPACE", "CONTAINER", "PID", "WAITS", "LEFT"}, {}};
  if (wide) table.header.insert(table.header.end(), {"UID", "SHARE", "LIMITS", "ROOM KEPT"});
  table.header.insert(table.header.end(), {"CODE", "WHY"});
  for (const auto& one : waiting) {
    std::vector<std::string> row{
        text(one, {"instance"}),         text(one, {"namespace"}),
        text(one, {"description"}),      text(one, {"pid"}),
        age(field(one, {"since"}), now), time_left(field(one, {"deadline"}), now)};
    if (wide) {
      row.push_back(text(one, {"uid"}));
      row.push_back(text(one, {"share"}));
      row.push_back(limits_text(field(one, {"limits"})));
      row.push_back(text(one, {"roomIsKept"}));
    }
    row.push_back(text(one, {"code"}));
    row.push_back(text(one, {"message"}));
    table.rows.push_back(std::move(row));
  }
  return to_text(table);
}

std::string use_text(const json& use) {
  if (field(use, {"gated"}) == false) return k_no_gate;
  Table devices{{"DEVICE", "UUID", "CLIENTS", "THREADS", "MEMORY", "ADOPTED"}, {}};
  for (const auto& one : field(use, {"devices"})) {
    const auto uuid = text(one, {"device"});
    std::vector<std::string> row{device_name(use, uuid), uuid};
    for (auto& cell : measures(one, field(one, {"limits"}))) row.push_back(std::move(cell));
    row.push_back(text(one, {"adopted"}));
    devices.rows.push_back(std::move(row));
  }
  Table namespaces{{"NAMESPACE", "DEVICE", "CLIENTS", "THREADS", "MEMORY", "WAITING"}, {}};
  for (const auto& one : field(use, {"namespaces"})) {
    std::vector<std::string> row{text(one, {"namespace"}), device_name(use, text(one, {"device"}))};
    for (auto& cell : measures(one, field(one, {"quota"}))) row.push_back(std::move(cell));
    row.push_back(text(one, {"waiting"}));
    namespaces.rows.push_back(std::move(row));
  }
  auto rest = refused_text(field(use, {"refused"})) + left_out_text(field(use, {"leftOut"}));
  if (!rest.empty()) rest.insert(0, "\n");
  return to_text(devices) + "\n" + to_text(namespaces) + rest;
}

}  // namespace mps::ctl
