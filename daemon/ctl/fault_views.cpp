#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "ctl/fields.h"
#include "ctl/table.h"
#include "ctl/views.h"

namespace mps::ctl {

using nlohmann::json;

namespace {

// "1.2s" is "1200ms" here; empty where it is not known.
std::string took(const json& milliseconds) {
  if (!milliseconds.is_number_integer()) return "";
  return format_duration(std::chrono::milliseconds(milliseconds.get<std::int64_t>()));
}

std::string client_text(const json& client) {
  auto line = "pid " + text(client, {"pid"});
  const auto add = [&](std::initializer_list<const char*> path, const char* before,
                       const char* after = "") {
    if (const auto value = text(client, path); !value.empty()) line += before + value + after;
  };
  add({"command"}, " (", ")");
  add({"namespace"}, " of ");
  add({"pod"}, ", pod ");
  return line;
}

std::string whose_doing(const json& fault) {
  if (const auto& culprit = field(fault, {"culprit"}); culprit.is_object()) {
    return client_text(culprit);
  }
  const auto by = text(fault, {"attribution"});
  if (by == "one_of") {
    return "one of " + text(fault, {"suspectCount"}) +
           (field(fault, {"othersPossible"}) == true ? " or more" : "");
  }
  if (by == "not_a_client") return "no client of ours";
  return by == "nobody" ? "nobody we know of" : "";
}

std::string how_it_stands(const json& fault) {
  const auto end = text(fault, {"end"});
  if (end.empty()) return "open";
  if (end == "serving") return "served after " + took(field(fault, {"durations", "servingMs"}));
  return end == "given_up" ? "given up" : end;
}

std::string at_and_after(const json& fault, const char* what, const char* duration) {
  const auto time = text(fault, {what});
  const auto after = took(field(fault, {"durations", duration}));
  return after.empty() ? time : time + " (after " + after + ")";
}

std::string first_served_text(const json& fault) {
  const auto at = at_and_after(fault, "firstServed", "firstServedMs");
  return at.empty() ? at : at + ", pid " + text(fault, {"firstServedPid"});
}

std::string needs_text(const json& fault) {
  const auto needs = text(fault, {"deviceNeeds"});
  if (needs == "out_until_reset") return "a reset";
  return needs == "out_until_reboot" ? "a reboot of the node" : "";
}

std::string xids_text(const json& fault) {
  std::string list;
  for (const auto& xid : field(fault, {"xids"})) {
    list += (list.empty() ? "" : ", ") + text(xid, {"xid"}) + " (" + text(xid, {"text"}) + ")";
    if (const auto times = text(xid, {"times"}); times != "1") list += " " + times + " times";
  }
  return list;
}

void head_of(std::string& out, const json& fault) {
  const auto rounds = text(fault, {"rounds"});
  labelled(out, "fault", text(fault, {"id"}));
  labelled(out, "what", text(fault, {"summary"}));
  labelled(out, "kind", text(fault, {"kind"}));
  labelled(out, "instance", text(fault, {"instance"}));
  labelled(out, "device", text(fault, {"device"}));
  labelled(out, "happened", text(fault, {"happened"}));
  labelled(out, "noticed", at_and_after(fault, "noticed", "noticedMs"));
  labelled(out, "attributed", at_and_after(fault, "attributed", "attributedMs"));
  labelled(out, "serving", at_and_after(fault, "serving", "servingMs"));
  labelled(out, "first served", first_served_text(fault));
  labelled(out, "state", how_it_stands(fault));
  labelled(out, "faults",
           text(fault, {"faults"}) + (rounds == "1" ? "" : " in " + rounds + " rounds"));
  labelled(out, "xids", xids_text(fault));
  labelled(out, "needs", needs_text(fault));
  for (const auto& one : field(fault, {"consequences"})) {
    labelled(out, "then", text(one, {"kind"}) + ": " + text(one, {"text"}));
  }
}

void people_of(std::string& out, const std::string& title, const json& people, const json& count) {
  if (!people.is_array() || people.empty()) return;
  Table table{{"PID", "UID", "NAMESPACE", "POD", "OWNER", "LIMITS", "SINCE", "COMMAND"}, {}};
  for (const auto& one : people) {
    table.rows.push_back({text(one, {"pid"}), text(one, {"uid"}), text(one, {"namespace"}),
                          text(one, {"pod"}), text(one, {"owner"}),
                          limits_text(field(one, {"limits"})), text(one, {"since"}),
                          text(one, {"command"})});
  }
  out += "\n" + title + " (" + text(count) + ")\n" + to_text(table);
}

void left_out(std::string& out, const json& count) {
  if (count.is_number_unsigned() && count != 0) out += "and " + text(count) + " more\n";
}

void signals_of(std::string& out, const json& fault) {
  Table table{{"TIME", "SIGNAL", "TEXT"}, {}};
  for (const auto& one : field(fault, {"signals"})) {
    table.rows.push_back({text(one, {"at"}), text(one, {"kind"}), text(one, {"text"})});
  }
  if (table.rows.empty()) return;
  out += "\nwhat was noticed\n" + to_text(table);
  left_out(out, field(fault, {"signalsLeftOut"}));
}

void steps_of(std::string& out, const json& fault) {
  Table table{{"TIME", "ROUND", "STEP", "OUTCOME"}, {}};
  for (const auto& one : field(fault, {"steps"})) {
    table.rows.push_back(
        {text(one, {"at"}), text(one, {"round"}), text(one, {"name"}), text(one, {"outcome"})});
  }
  if (table.rows.empty()) return;
  out += "\nwhat was done\n" + to_text(table);
  left_out(out, field(fault, {"stepsLeftOut"}));
}

}  // namespace

std::string faults_text(const json& faults, bool wide, SystemTime now) {
  Table table{{"FAULT", "AGE", "INSTANCE", "KIND", "FAULTS", "VICTIMS", "STATE", "BY"}, {}};
  if (wide) table.header.insert(table.header.end(), {"NEEDS", "DEVICE", "NOTICED"});
  for (const auto& fault : faults) {
    std::vector<std::string> row{text(fault, {"id"}),       age(field(fault, {"noticed"}), now),
                                 text(fault, {"instance"}), text(fault, {"kind"}),
                                 text(fault, {"faults"}),   text(fault, {"victimCount"}),
                                 how_it_stands(fault),      whose_doing(fault)};
    if (wide) {
      for (auto&& cell : {needs_text(fault), text(fault, {"device"}), text(fault, {"noticed"})}) {
        row.push_back(cell);
      }
    }
    table.rows.push_back(std::move(row));
  }
  return to_text(table);
}

std::string fault_story(const json& fault) {
  std::string out;
  head_of(out, fault);
  const auto& culprits = field(fault, {"culprits"});
  people_of(out, "who did it", culprits, culprits.size());
  people_of(out, "one of these did", field(fault, {"suspects"}), field(fault, {"suspectCount"}));
  people_of(out, "who suffered", field(fault, {"victims"}), field(fault, {"victimCount"}));
  signals_of(out, fault);
  steps_of(out, fault);
  return out;
}

std::string quarantine_text(const json& entries, SystemTime now) {
  Table table{{"ENTRY", "NAMESPACE", "OWNER", "COMMAND", "LEFT", "BY", "REASON"}, {}};
  for (const auto& entry : entries) {
    const auto by = text(entry, {"by"});
    table.rows.push_back({text(entry, {"id"}), text(entry, {"namespace"}), text(entry, {"owner"}),
                          text(entry, {"command"}), time_left(field(entry, {"until"}), now),
                          by.empty() ? "policy" : by, text(entry, {"reason"})});
  }
  return to_text(table);
}

}  // namespace mps::ctl
