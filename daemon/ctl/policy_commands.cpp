#include "ctl/policy_commands.h"

#include <optional>
#include <utility>

#include "api/explain.h"
#include "api/http.h"
#include "app/policy_directory.h"
#include "app/wanted.h"
#include "base/text.h"
#include "ctl/ask.h"
#include "ctl/offline_devices.h"
#include "ctl/policy_views.h"
#include "ctl/settings_file.h"

namespace mps::ctl {

namespace {

using api::percent_encode;
using policy::DeviceFacts;
using policy::DeviceName;

std::string joined(const std::vector<std::string>& words) {
  std::string list;
  for (const auto& word : words) list += (list.empty() ? "" : ",") + word;
  return list;
}

// Those that the settings declare; none where they do not say which there are.
Result<std::optional<std::vector<DeviceFacts>>> declared_devices(const ExplainOptions& options,
                                                                 const DeviceName& wanted) {
  if (options.config.empty()) return std::nullopt;
  const auto settings = read_settings(options.config, true);
  if (!settings) return settings.error();
  if (!settings->devices) return std::nullopt;
  device::Inventory inventory;
  inventory.devices = *settings->devices;
  auto chosen = api::choose_devices(app::device_facts(inventory, settings->exclusive_compute_mode),
                                    wanted.kind == DeviceName::Kind::any ? "" : options.device);
  if (!chosen) return chosen.error();
  return std::optional(std::move(*chosen));
}

int explain_offline(const Console& console, const ExplainOptions& options,
                    const policy::Labels& labels) {
  const auto wanted = parse_device(options.device.empty() ? "*" : options.device);
  if (!wanted) return fail(console, k_usage, "--device " + wanted.error().message);
  const auto declared = declared_devices(options, *wanted);
  if (!declared) return fail(console, k_failed, declared.error().message);
  const auto files = app::read_policy_directory(options.policies);
  if (!files) return fail(console, k_failed, files.error().message);
  const auto known = declared->value_or(std::vector<DeviceFacts>{});
  const auto generation = policy::next_generation({}, *files, known);
  const auto devices = *declared ? known : offline_devices(*generation, options.subject, *wanted);
  auto explanation = api::explain(*generation, {options.subject, labels}, devices);
  if (!*declared) show_unknown(explanation, *generation, devices);
  console.out << render(console.format, explanation, explanation_text);
  return k_done;
}

}  // namespace

int list_policies(const Console& console) {
  return show(console, "/v1/policies", policies_text);
}

int show_policy(const Console& console, const std::string& subject) {
  return show(console, "/v1/policies/" + percent_encode(subject), policy_text);
}

int explain_policy(const Console& console, const ExplainOptions& options) {
  const auto labels = api::parse_labels(joined(options.labels));
  if (!labels) return fail(console, k_usage, "--label " + labels.error().message);
  if (!options.policies.empty()) return explain_offline(console, options, *labels);
  auto target = "/v1/explain?namespace=" + percent_encode(options.subject);
  if (!labels->empty()) target += "&labels=" + percent_encode(joined(options.labels));
  if (!options.device.empty()) target += "&device=" + percent_encode(options.device);
  return show(console, target, explanation_text);
}

}  // namespace mps::ctl
