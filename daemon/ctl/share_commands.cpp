#include "ctl/share_commands.h"

#include <nlohmann/json.hpp>

#include "api/http.h"
#include "base/text.h"
#include "ctl/ask.h"
#include "ctl/views.h"

namespace mps::ctl {

namespace {

using api::percent_encode;
using nlohmann::json;

json order_of(const ShareOptions& options) {
  json order{{"device", options.device}};
  if (options.threads) order["activeThreadPercentage"] = *options.threads;
  if (!options.memory.empty()) order["pinnedDeviceMemory"] = options.memory;
  if (!options.subject.empty()) order["namespace"] = options.subject;
  if (!options.ttl.empty()) order["ttl"] = options.ttl;
  return order;
}

}  // namespace

int list_shares(const Console& console, const ShareOptions& options) {
  std::string target = "/v1/shares";
  if (!options.instance.empty()) target += "?instance=" + percent_encode(options.instance);
  return show(console, target, [&console](const json& value) {
    return shares_text(value, console.format == Format::wide, std::chrono::system_clock::now());
  });
}

int create_share(const Console& console, const ShareOptions& options) {
  const auto answered = ask(console, "POST", "/v1/shares", order_of(options).dump());
  if (answered.status != k_done) return answered.status;
  console.out << render(console.format, answered.value, share_created_text);
  return k_done;
}

int delete_share(const Console& console, const ShareOptions& options) {
  const auto target =
      "/v1/shares/" + percent_encode(options.id) + (options.drain ? "?drain=1" : "");
  const auto answered = ask(console, "DELETE", target);
  if (answered.status != k_done) return answered.status;
  console.out << render(console.format, answered.value, [](const json& value) {
    return printable(value.value("message", std::string("accepted")), 1000) + "\n";
  });
  return k_done;
}

}  // namespace mps::ctl
