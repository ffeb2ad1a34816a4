#include "ctl/policy_commands.h"

#include "api/explain.h"
#include "api/http.h"
#include "app/policy_directory.h"
#include "app/wanted.h"
#include "base/text.h"
#include "ctl/ask.h"
#include "ctl/policy_views.h"
#include "ctl/settings_file.h"

namespace mps::ctl {

namespace {

using api::percent_encode;
using policy::DeviceFacts;

std::string joined(const std::vector<std::string>& words) {
  std::string list;
  for (const auto& word : words) list += (list.empty() ? "" : ",") + word;
  return list;
}

// Where no settings say which devices there are, one of which nothing is known stands for any.
DeviceFacts any_device(const std::string& wanted) {
  DeviceFacts device;
  device.name = "gpu0";
  const auto number = wanted.starts_with("gpu") ? wanted.substr(3) : wanted;
  if (const auto index = parse_number<unsigned>(number)) {
    device.index = *index;
    device.name = "gpu" + number;
  } else {
    device.uuid = wanted;
  }
  return device;
}

Result<std::vector<DeviceFacts>> declared_devices(const ExplainOptions& options) {
  if (options.config.empty()) return std::vector{any_device(options.device)};
  const auto settings = read_settings(options.config, true);
  if (!settings) return settings.error();
  if (!settings->devices) return std::vector{any_device(options.device)};
  device::Inventory inventory;
  inventory.devices = *settings->devices;
  return api::choose_devices(app::device_facts(inventory, settings->exclusive_compute_mode),
                             options.device);
}

int explain_offline(const Console& console, const ExplainOptions& options,
                    const policy::Labels& labels) {
  const auto devices = declared_devices(options);
  if (!devices) return fail(console, k_failed, devices.error().message);
  const auto files = app::read_policy_directory(options.policies);
  if (!files) return fail(console, k_failed, files.error().message);
  const auto generation = policy::next_generation({}, *files, *devices);
  console.out << render(console.format,
                        api::explain(*generation, {options.subject, labels}, *devices),
                        explanation_text);
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
