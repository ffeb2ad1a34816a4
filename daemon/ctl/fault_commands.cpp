#include "ctl/fault_commands.h"

#include <nlohmann/json.hpp>

#include "api/http.h"
#include "base/text.h"
#include "ctl/ask.h"
#include "ctl/views.h"

namespace mps::ctl {

namespace {

using api::percent_encode;
using nlohmann::json;

std::string list_target(const FaultsOptions& options) {
  std::string target = "/v1/faults";
  const auto put = [&target](const char* name, const std::string& value) {
    if (value.empty()) return;
    target += (target.find('?') == std::string::npos ? "?" : "&") + std::string(name) + "=" +
              percent_encode(value);
  };
  put("instance", options.instance);
  put("since", options.since);
  put("limit", options.limit ? std::to_string(*options.limit) : "");
  return target;
}

}  // namespace

int show_faults(const Console& console, const FaultsOptions& options) {
  if (!options.id.empty()) {
    return show(console, "/v1/faults/" + percent_encode(options.id), fault_story);
  }
  return show(console, list_target(options), [&console](const json& value) {
    return faults_text(value, console.format == Format::wide, std::chrono::system_clock::now());
  });
}

int list_quarantine(const Console& console) {
  return show(console, "/v1/quarantine", [](const json& value) {
    return quarantine_text(value, std::chrono::system_clock::now());
  });
}

int add_quarantine(const Console& console, const QuarantineOptions& options) {
  json order{{"namespace", options.subject}, {"for", options.duration}, {"reason", options.reason}};
  if (!options.owner.empty()) order["owner"] = options.owner;
  if (!options.command.empty()) order["command"] = options.command;
  const auto answered = ask(console, "POST", "/v1/quarantine",
                            order.dump(-1, ' ', false, json::error_handler_t::replace));
  if (answered.status != k_done) return answered.status;
  console.out << render(console.format, answered.value, [](const json& value) {
    return quarantine_text(json::array({value}), std::chrono::system_clock::now());
  });
  return k_done;
}

int remove_quarantine(const Console& console, const QuarantineOptions& options) {
  const auto answered = ask(console, "DELETE", "/v1/quarantine/" + percent_encode(options.id));
  if (answered.status != k_done) return answered.status;
  console.out << render(console.format, answered.value, [](const json& value) {
    return printable(value.value("message", std::string("done")), 1000) + "\n";
  });
  return k_done;
}

}  // namespace mps::ctl
