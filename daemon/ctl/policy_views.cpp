#include "ctl/policy_views.h"

#include <algorithm>
#include <set>
#include <vector>

#include "base/text.h"
#include "ctl/fields.h"
#include "ctl/table.h"

namespace mps::ctl {

namespace {

using nlohmann::json;

constexpr std::size_t k_error_length = 2000;

void append(std::string& list, const std::string& word, const char* separator = ", ") {
  if (word.empty()) return;
  list += (list.empty() ? "" : separator) + word;
}

std::string joined(const json& words) {
  std::string list;
  if (!words.is_array()) return list;
  for (const auto& word : words) append(list, text(word));
  return list;
}

std::string clients(const json& count) {
  const auto number = text(count);
  return number.empty() ? number : number + (number == "1" ? " client" : " clients");
}

std::string quota_text(const json& quota) {
  auto list = clients(field(quota, {"clients"}));
  append(list, percentage(field(quota, {"activeThreadPercentage"})));
  append(list, mebibytes(field(quota, {"pinnedDeviceMemoryMiB"})));
  return list;
}

std::string client_text(const json& client) {
  auto list = percentage(field(client, {"activeThreadPercentage"}));
  append(list, mebibytes(field(client, {"pinnedDeviceMemoryMiB"})));
  append(list, text(client, {"priority"}));
  return list;
}

std::string place(const json& policy, bool with_column) {
  auto where = text(policy, {"file"});
  append(where, text(policy, {"line"}), ":");
  if (with_column) append(where, text(policy, {"column"}), ":");
  return where;
}

// What is not given is no limit; of what is refused nothing is known.
std::string given_or_none(const json& client, const std::string& value) {
  return value.empty() && client.is_object() ? "none" : value;
}

std::string override_count(const json& overrides) {
  return overrides.is_array() ? std::to_string(overrides.size()) : "";
}

void append_errors(std::string& out, const json& errors) {
  if (!errors.is_array()) return;
  for (const auto& error : errors) out += printable(text(error), k_error_length) + "\n";
}

std::string match_text(const json& override) {
  std::string list;
  const auto& labels = field(override, {"match", "podLabels"});
  if (!labels.is_object()) return list;
  for (const auto& [key, value] : labels.items()) append(list, key + "=" + text(value), ",");
  return list;
}

std::string fault_text(const json& on_fault) {
  auto line = text(on_fault, {"clients"});
  const auto& quarantine = field(on_fault, {"quarantine"});
  if (!quarantine.is_object()) return line.empty() ? line : line + ", no quarantine";
  return line + ", quarantine after " + text(quarantine, {"after"}) + " within " +
         text(quarantine, {"withinSeconds"}) + "s, for " + text(quarantine, {"forSeconds"}) + "s" +
         (text(quarantine, {"onSuspicion"}) == "yes" ? ", on suspicion too" : "");
}

std::string unlimited_or(const std::string& value) {
  return value.empty() ? "none" : value;
}

// "10 %"
std::string spaced(std::string value) {
  if (value.ends_with('%')) value.insert(value.size() - 1, " ");
  return value;
}

void limit_line(std::string& out, const char* name, const std::string& value, const json& limit) {
  out += "  " + padded(name, 24) + padded(printable(value), 11) + " " +
         printable(text(limit, {"from"}), k_error_length) + "\n";
}

std::string ceiling_part(const std::string& value, const std::string& none, const json& limit) {
  const auto from = printable(text(limit, {"from"}), k_error_length);
  return value.empty() ? none + ", because of " + from : value + ", from " + from;
}

std::string ceiling_text(const json& ceiling) {
  const auto& threads = field(ceiling, {"activeThreadPercentage"});
  const auto& memory = field(ceiling, {"pinnedDeviceMemoryMiB"});
  const auto value = mebibytes(field(memory, {"value"}));
  return "  ceiling: " +
         ceiling_part(spaced(percentage(field(threads, {"value"}))), "100 %: none", threads) +
         "; " + ceiling_part(value.empty() ? value : "memory " + value, "memory: none", memory) +
         "\n";
}

// "instance gpu0.shared"; where it is not known on which device, "a shared instance".
std::string instance_text(const json& explained) {
  const auto instance = text(explained, {"instance"});
  if (!instance.empty()) return "instance " + printable(instance);
  return "a " + printable(text(explained, {"policy", "isolation"})) + " instance";
}

std::string device_text(const json& explained, const std::string& subject) {
  const auto device = text(explained, {"device"});
  auto out = subject + " on " + printable(device);
  const auto uuid = text(explained, {"uuid"});
  if (!uuid.empty() && uuid != device) out += " (" + printable(uuid) + ")";
  const auto& admitted = field(explained, {"admitted"});
  if (admitted != true) {
    return out + (admitted.is_null() ? ": not known: " : ": refused: ") +
           printable(text(explained, {"reason"}), k_error_length) + "\n";
  }
  out += ": " + instance_text(explained);
  if (field(explained, {"byDefault"}) == true) {
    out += ", by the policy for \"" + printable(text(explained, {"policy", "namespace"})) + "\"";
  }
  out += "\n";
  const auto& limits = field(explained, {"limits"});
  const auto& threads = field(limits, {"activeThreadPercentage"});
  const auto& memory = field(limits, {"pinnedDeviceMemoryMiB"});
  limit_line(out, "activeThreadPercentage", spaced(percentage(field(threads, {"value"}))), threads);
  limit_line(out, "pinnedDeviceMemory", unlimited_or(mebibytes(field(memory, {"value"}))), memory);
  limit_line(out, "priority", text(limits, {"priority", "value"}), field(limits, {"priority"}));
  out += ceiling_text(field(explained, {"ceiling"}));
  if (const auto quota = quota_text(field(explained, {"quota"})); !quota.empty()) {
    out += "  quota: " + quota + "\n";
  }
  const auto& notes = field(explained, {"notes"});
  if (!notes.is_array()) return out;
  for (const auto& note : notes) out += "  note: " + printable(text(note), k_error_length) + "\n";
  return out;
}

}  // namespace

std::string policies_text(const json& policies) {
  Table table{{"NAMESPACE", "FILE", "STATE", "ISOLATION", "DEVICES", "THREADS", "MEMORY", "QUOTA",
               "OVERRIDES"},
              {}};
  std::set<std::string> files;
  std::string errors;
  for (const auto& policy : policies) {
    const auto& client = field(policy, {"client"});
    table.rows.push_back(
        {text(policy, {"namespace"}), place(policy, false), text(policy, {"state"}),
         text(policy, {"isolation"}), joined(field(policy, {"devices"})),
         given_or_none(client, percentage(field(client, {"activeThreadPercentage"}))),
         given_or_none(client, mebibytes(field(client, {"pinnedDeviceMemoryMiB"}))),
         given_or_none(client, quota_text(field(policy, {"quota"}))),
         override_count(field(policy, {"overrides"}))});
    // Each file's errors once, however many policies it has.
    if (files.insert(text(policy, {"file"})).second)
      append_errors(errors, field(policy, {"errors"}));
  }
  return to_text(table) + (errors.empty() ? "" : "\n") + errors;
}

std::string policy_text(const json& policy) {
  std::string out;
  labelled(out, "namespace", text(policy, {"namespace"}));
  labelled(out, "file", place(policy, true));
  labelled(out, "state", text(policy, {"state"}));
  if (const auto& client = field(policy, {"client"}); client.is_object()) {
    labelled(out, "isolation", text(policy, {"isolation"}));
    labelled(out, "devices", joined(field(policy, {"devices"})));
    labelled(out, "client", unlimited_or(client_text(client)));
    labelled(out, "quota", unlimited_or(quota_text(field(policy, {"quota"}))));
    if (const auto& overrides = field(policy, {"overrides"}); overrides.is_array()) {
      for (const auto& override : overrides) {
        labelled(out, "override",
                 match_text(override) + ": " + client_text(field(override, {"client"})));
      }
    }
    labelled(out, "violation", text(policy, {"onViolation"}));
    labelled(out, "fault", fault_text(field(policy, {"onFault"})));
  }
  append_errors(out, field(policy, {"errors"}));
  return out;
}

std::string explanation_text(const json& explanation) {
  auto subject = printable(text(explanation, {"namespace"}));
  std::string labels;
  if (const auto& given = field(explanation, {"labels"}); given.is_object()) {
    for (const auto& [key, value] : given.items()) append(labels, key + "=" + text(value), ",");
  }
  if (!labels.empty()) subject += " [" + printable(labels, k_error_length) + "]";
  const auto& devices = field(explanation, {"devices"});
  if (!devices.is_array() || devices.empty()) return "no device\n";
  std::string out;
  for (const auto& device : devices) out += device_text(device, subject);
  return out;
}

}  // namespace mps::ctl
