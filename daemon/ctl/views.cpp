#include "ctl/views.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/text.h"
#include "ctl/fields.h"
#include "ctl/table.h"

namespace mps::ctl {

namespace {

using nlohmann::json;

constexpr std::size_t k_ceiling_lines = 8;

// "active 1234", "startFailed (805)"
std::string server_text(const json& server) {
  auto line = text(server, {"status"});
  if (const auto pid = text(server, {"pid"}); !pid.empty()) line += " " + pid;
  if (const auto cause = text(server, {"cause"}); !cause.empty()) line += " (" + cause + ")";
  return line;
}

std::string channel_text(const json& instance) {
  auto line = text(instance, {"channel"});
  if (const auto holder = text(instance, {"channelDetail", "holder"}); !holder.empty()) {
    line += " by " + holder;
    const auto name = text(instance, {"channelDetail", "holderName"});
    if (!name.empty()) line += " (" + name + ")";
  }
  return line;
}

std::string limits_origin(const json& limits) {
  const auto threads = text(limits, {"from", "activeThreadPercentage"});
  const auto memory = text(limits, {"from", "pinnedDeviceMemoryMiB"});
  if (threads == memory) return threads;
  return "threads: " + (threads.empty() ? "-" : threads) +
         ", memory: " + (memory.empty() ? "-" : memory);
}

std::string mps_text(const json& device) {
  const auto& out = field(device, {"outOfService"});
  if (out.is_object()) {
    return "out until " + text(out, {"needs"}) + ": " + text(out, {"reason"});
  }
  if (field(device, {"mpsCapable"}) == true) return "yes";
  const auto why = text(device, {"notCapableBecause"});
  return why.empty() ? "no" : "no: " + why;
}

// "generation 3 (0123456789ab), 12 files, 1 bad"
std::string policies_summary(const json& policies) {
  const auto number = text(policies, {"generation"});
  if (number.empty()) return number;
  const auto files = text(policies, {"files"});
  const auto bad = text(policies, {"badFiles"});
  auto line = "generation " + number + " (" + text(policies, {"hash"}) + "), " + files +
              (files == "1" ? " file" : " files");
  return bad.empty() || bad == "0" ? line : line + ", " + bad + " bad";
}

const char* limit_text(const std::string& limit) {
  if (limit == "activeThreadPercentage") return "threads";
  return limit == "pinnedDeviceMemory" ? "memory" : "a limit";
}

// "gpu0.shared: no ceiling for threads because of a.yaml:7:9 (spec.client), for memory because of
// …"
std::vector<std::string> ceiling_lines(const json& missing) {
  std::vector<std::string> lines;
  std::string instance;
  std::string from;
  if (!missing.is_array()) return lines;
  for (const auto& one : missing) {
    const auto limit = std::string(limit_text(text(one, {"limit"})));
    const auto because = [](const std::string& whom) {
      return whom.empty() ? whom : " because of " + printable(whom, 400);
    };
    const bool new_line = lines.empty() || instance != text(one, {"instance"});
    instance = text(one, {"instance"});
    const auto origin = text(one, {"from"});
    if (new_line) {
      lines.push_back(printable(instance) + ": no ceiling for " + limit + because(origin));
    } else if (origin == from) {
      auto& line = lines.back();
      line.insert(line.size() - because(from).size(), " and " + limit);
    } else {
      lines.back() += ", for " + limit + because(origin);
    }
    from = origin;
  }
  return lines;
}

std::string ceilings_text(const json& missing) {
  const auto lines = ceiling_lines(missing);
  const auto shown = std::min(lines.size(), k_ceiling_lines);
  std::string out;
  for (std::size_t i = 0; i < shown; ++i) out += lines[i] + "\n";
  if (lines.size() > shown) out += "and " + std::to_string(lines.size() - shown) + " more\n";
  return out;
}

std::string errors_text(const json& errors) {
  std::string out;
  if (!errors.is_array()) return out;
  for (const auto& error : errors) {
    out += printable(text(error, {"instance"})) + ": " + printable(text(error, {"message"}), 400) +
           "\n";
  }
  return out;
}

std::string devices_out_text(const json& devices) {
  std::string out;
  if (!devices.is_array()) return out;
  for (const auto& device : devices) out += printable(text(device, {"message"}), 400) + "\n";
  return out;
}

std::string findings_text(const json& findings) {
  std::string out;
  if (!findings.is_array()) return out;
  for (const auto& finding : findings) {
    out += printable(text(finding, {"device"})) + ": " + text(finding, {"processes"}) + " " +
           printable(text(finding, {"kind"})) + ", see mps-ctl events\n";
  }
  return out;
}

std::string states_text(const json& states) {
  std::string list;
  if (!states.is_object()) return list;
  for (const auto& [state, count] : states.items()) {
    list += (list.empty() ? "" : ", ") + text(count) + " " + state;
  }
  return list.empty() ? list : " (" + list + ")";
}

void emit(YAML::Emitter& out, const json& value);

void emit_string(YAML::Emitter& out, const std::string& value) {
  // What another reader would take for a number, a truth or nothing is kept a string.
  const auto plain = YAML::Node(value);
  const auto lower_case = [&value] {
    std::string lower = value;
    for (auto& character : lower) {
      if (character >= 'A' && character <= 'Z') character = static_cast<char>(character | 0x20);
    }
    return lower;
  }();
  double number = 0;
  long long whole = 0;  // reads what is hexadecimal, too
  bool truth = false;
  const bool ambiguous = value.empty() || lower_case == "null" || lower_case == "~" ||
                         YAML::convert<double>::decode(plain, number) ||
                         YAML::convert<long long>::decode(plain, whole) ||
                         YAML::convert<bool>::decode(plain, truth);
  if (ambiguous) out << YAML::DoubleQuoted;
  out << value;
}

void emit(YAML::Emitter& out, const json& value) {
  if (value.is_object()) {
    if (value.empty()) out << YAML::Flow;
    out << YAML::BeginMap;
    for (const auto& [key, member] : value.items()) {
      out << YAML::Key << key << YAML::Value;
      emit(out, member);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    if (value.empty()) out << YAML::Flow;
    out << YAML::BeginSeq;
    for (const auto& element : value) emit(out, element);
    out << YAML::EndSeq;
  } else if (value.is_null()) {
    out << YAML::Null;
  } else if (value.is_string()) {
    emit_string(out, value.get<std::string>());
  } else {
    out << dump(value);
  }
}

}  // namespace

std::string limits_text(const json& limits) {
  const auto threads = percentage(field(limits, {"activeThreadPercentage"}));
  if (threads.empty()) return threads;
  const auto memory = mebibytes(field(limits, {"pinnedDeviceMemoryMiB"}));
  auto line = threads + (memory.empty() ? " no memory limit" : " " + memory);
  if (threads == "100%" && memory.empty()) line = "none";
  if (field(limits, {"confirmed"}) == false) line += " (unconfirmed)";
  return line;
}

std::string age(const json& time, SystemTime now) {
  const auto since = time.is_string() ? parse_time(time.get<std::string>()) : std::nullopt;
  if (!since) return "-";
  const auto seconds = std::max<std::int64_t>(
      0, std::chrono::duration_cast<std::chrono::seconds>(now - *since).count());
  if (seconds < 120) return std::to_string(seconds) + "s";
  if (seconds < 120 * 60) return std::to_string(seconds / 60) + "m";
  if (seconds < 48 * 3600) return std::to_string(seconds / 3600) + "h";
  return std::to_string(seconds / 86400) + "d";
}

std::string status_text(const json& status, SystemTime now) {
  std::string out = "mps-supervisor " + printable(text(status, {"version"})) + ", pid " +
                    printable(text(status, {"pid"})) + ", up " +
                    age(field(status, {"startedAt"}), now) + "\n";
  out += field(status, {"ready"}) == true
             ? "ready\n"
             : "not ready: " + printable(text(status, {"notReadyBecause"}), 400) + "\n";
  labelled(out, "driver", text(status, {"driverVersion"}));
  labelled(out, "devices", text(status, {"devices"}));
  labelled(out, "", text(status, {"devicesError"}));
  labelled(out, "instances",
           text(status, {"instances"}) + states_text(field(status, {"instancesByState"})));
  labelled(out, "clients", text(status, {"clients"}));
  labelled(out, "policies", policies_summary(field(status, {"policies"})));
  if (const auto error = text(status, {"policies", "error"}); !error.empty()) {
    out += std::string(11, ' ') + printable(error, 400) + "\n";
  }
  const auto failed_writes = text(status, {"journalWriteErrors"});
  if (!failed_writes.empty() && failed_writes != "0") {
    labelled(out, "journal", failed_writes + " writes failed");
  }
  return out + devices_out_text(field(status, {"outOfService"})) +
         errors_text(field(status, {"lastErrors"})) + findings_text(field(status, {"findings"})) +
         ceilings_text(field(status, {"noCeiling"}));
}

std::string devices_text(const json& devices, bool wide) {
  Table table{{"ID", "UUID", "NAME", "MEMORY", "SMS", "CC", "MPS", "ERROR"}, {}};
  if (wide) {
    table.header = {"ID",  "UUID",         "NAME", "MEMORY",   "RESERVED", "SMS",  "CC",
                    "PCI", "COMPUTE MODE", "MIG",  "DECLARED", "MPS",      "ERROR"};
  }
  for (const auto& device : devices) {
    const auto memory = mebibytes(field(device, {"memoryMiB"}));
    std::vector<std::string> row{text(device, {"id"}), text(device, {"uuid"}),
                                 text(device, {"name"}), memory};
    if (wide) row.push_back(mebibytes(field(device, {"reservedMemoryMiB"})));
    row.push_back(text(device, {"smCount"}));
    row.push_back(text(device, {"computeCapability"}));
    if (wide) {
      for (const char* name : {"pciBusId", "computeMode", "migEnabled", "declared"}) {
        row.push_back(text(device, {name}));
      }
    }
    row.push_back(mps_text(device));
    row.push_back(text(device, {"error"}));
    table.rows.push_back(std::move(row));
  }
  return to_text(table);
}

std::string instances_text(const json& instances, bool wide, SystemTime now) {
  Table table{{"ID", "STATE", "AGE", "CONTROL", "SERVER", "CHANNEL", "CLIENTS", "RESTARTS",
               "LIMITS", "LAST ERROR"},
              {}};
  if (wide) {
    table.header.insert(table.header.end() - 1,
                        {"LIMITS FROM", "DEVICE", "DOMAIN", "GATE", "BYPASS", "PIPE"});
  }
  for (const auto& instance : instances) {
    auto control = text(instance, {"control", "pid"});
    if (field(instance, {"control", "adopted"}) == true) control += " (adopted)";
    std::vector<std::string> row{text(instance, {"id"}),
                                 text(instance, {"state"}),
                                 age(field(instance, {"stateSince"}), now),
                                 control,
                                 server_text(field(instance, {"server"})),
                                 channel_text(instance),
                                 text(instance, {"clients"}),
                                 text(instance, {"restarts"}),
                                 limits_text(field(instance, {"limits"}))};
    if (wide) {
      row.push_back(limits_origin(field(instance, {"limits"})));
      for (const char* name : {"device", "domain", "gate", "bypass", "pipeDirectory"}) {
        row.push_back(text(instance, {name}));
      }
    }
    row.push_back(text(instance, {"lastError"}));
    table.rows.push_back(std::move(row));
  }
  return to_text(table);
}

std::string time_left(const json& time, SystemTime now) {
  const auto until = time.is_string() ? parse_time(time.get<std::string>()) : std::nullopt;
  if (!until) return "-";
  return age(format_time(now), std::max(now, *until));
}

std::string clients_text(const json& clients, bool wide, SystemTime now) {
  Table table{{"INSTANCE", "PID", "UID", "COMMAND", "AGE", "CONNECTED"}, {}};
  if (wide) {
    table.header.insert(table.header.end(),
                        {"ADOPTED", "SINCE", "NAMESPACE", "CONTAINER", "SHARE", "LIMITS"});
  }
  for (const auto& client : clients) {
    std::vector<std::string> row{text(client, {"instance"}),
                                 text(client, {"pid"}),
                                 text(client, {"uid"}),
                                 text(client, {"command"}),
                                 age(field(client, {"since"}), now),
                                 text(client, {"connected"})};
    if (wide) {
      for (const char* name : {"adopted", "since", "namespace", "description", "share"}) {
        row.push_back(text(client, {name}));
      }
      row.push_back(limits_text(field(client, {"limits"})));
    }
    table.rows.push_back(std::move(row));
  }
  return to_text(table);
}

std::string event_line(const json& event, bool wide) {
  const auto or_dash = [](std::string value) {
    return value.empty() ? std::string("-") : printable(value);
  };
  auto line = padded(or_dash(text(event, {"time"})), 25);
  if (wide) line += padded(or_dash(text(event, {"id"})), 7);
  line += padded(or_dash(text(event, {"instance"})), 13) + " " +
          padded(or_dash(text(event, {"kind"})), 19) + " " +
          printable(text(event, {"message"}), 1100);
  if (const auto& data = field(event, {"data"}); wide && data.is_object() && !data.empty()) {
    line += " " + printable(dump(data), 4200);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string to_yaml(const json& value) {
  YAML::Emitter out;
  emit(out, value);
  return std::string(out.c_str()) + "\n";
}

}  // namespace mps::ctl
