#include "app/settings.h"

#include <utility>

#include "app/settings_fields.h"
#include "base/text.h"

namespace mps::app {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t k_folder_limit = 64;

Reader::Read not_supported(Reader& reader) {
  return [&reader](const Field& field) {
    reader.fail(field, "not supported by this version of mps-supervisor");
  };
}

void read_folders(Reader& reader, const Field& field, std::vector<std::filesystem::path>& out) {
  std::vector<std::filesystem::path> folders;
  reader.read_list(field, "must be a list of folders", k_folder_limit, [&](const Field& entry) {
    std::filesystem::path folder;
    read_path(reader, entry, folder);
    // They end up in PATH and LD_LIBRARY_PATH.
    if (folder.native().find(':') != std::string::npos) {
      reader.fail(entry, "must not have a colon in it");
    }
    folders.push_back(std::move(folder));
  });
  out = std::move(folders);
}

void read_gate(Reader& reader, const Field& field, Settings::Gate& out) {
  constexpr std::string_view what = "must be auto, on or off";
  const auto word = reader.text(field, what);
  if (!word) return;
  if (*word == "auto") {
    out = Settings::Gate::automatic;
  } else if (*word == "on") {
    out = Settings::Gate::on;
  } else if (*word == "off") {
    out = Settings::Gate::off;
  } else {
    reader.fail(field, what);
  }
}

void read_factor(Reader& reader, const Field& field, double& out) {
  constexpr double k_most = 100;
  constexpr std::string_view what = "must be a number from 0.1 to 100";
  const auto word = reader.text(field, what);
  if (!word) return;
  const bool plain = word->find_first_not_of("0123456789.") == std::string::npos;
  const auto value = plain ? parse_number<double>(*word) : std::nullopt;
  if (!value || *value < 0.1 || *value > k_most) return reader.fail(field, what);
  out = *value;
}

void read_overcommit(Reader& reader, const Field& field, Settings& out) {
  reader.read_mapping(
      field, {{"threads", [&](const Field& f) { read_factor(reader, f, out.overcommit_threads); }},
              {"memory", [&](const Field& f) { read_factor(reader, f, out.overcommit_memory); }}});
}

void read_limits(Reader& reader, const Field& field, instance::Limits& out) {
  reader.read_mapping(
      field, {{"activeThreadPercentage",
               [&](const Field& f) { reader.percentage(f, 100, out.active_thread_percentage); }},
              {"pinnedDeviceMemory",
               [&](const Field& f) {
                 if (const auto value = reader.mebibytes(f)) out.pinned_memory_mebibytes = *value;
               }},
              {"clientPriority", [&](const Field& f) {
                 bool below_normal = out.client_priority != 0;
                 reader.choice(f, "normal", "below-normal", below_normal);
                 out.client_priority = below_normal ? 1 : 0;
               }}});
}

void read_probe(Reader& reader, const Field& field, Settings::Probe& out) {
  reader.read_mapping(
      field, {{"interval", [&](const Field& f) { reader.duration(f, 100ms, 1h, out.interval); }},
              {"timeout", [&](const Field& f) { reader.duration(f, 100ms, 1min, out.timeout); }},
              {"failures", [&](const Field& f) { reader.whole_number(f, 1, 100, out.failures); }}});
}

void read_backoff(Reader& reader, const Field& field, Settings::Backoff& out) {
  const auto read_budget = [&](const Field& budget) {
    reader.read_mapping(
        budget,
        {{"failures",
          [&](const Field& f) { reader.whole_number(f, 1, 1000, out.budget_failures); }},
         {"within", [&](const Field& f) { reader.duration(f, 100ms, 24h, out.budget_within); }}});
  };
  reader.read_mapping(
      field, {{"initial", [&](const Field& f) { reader.duration(f, 1ms, 1h, out.initial); }},
              {"max", [&](const Field& f) { reader.duration(f, 1ms, 1h, out.max); }},
              {"budget", read_budget}});
}

void read_settings(Reader& reader, const Field& root, Settings& out) {
  const auto later = not_supported(reader);
  reader.read_mapping(
      root,
      {{"runDir", [&](const Field& f) { read_path(reader, f, out.run_dir); }},
       {"stateDir", [&](const Field& f) { read_path(reader, f, out.state_dir); }},
       {"operatorsGroup", [&](const Field& f) { read_group(reader, f, out.operators_group); }},
       {"devices", [&](const Field& f) { read_devices(reader, f, out.devices); }},
       {"nvmlLibrary", [&](const Field& f) { read_library(reader, f, out.nvml_library); }},
       {"policyDir", [&](const Field& f) { read_path(reader, f, out.policy_dir); }},
       {"cdiDir", [&](const Field& f) { read_optional_path(reader, f, out.cdi_dir); }},
       {"mpsPath", [&](const Field& f) { read_folders(reader, f, out.mps_path); }},
       {"libraryPath", [&](const Field& f) { read_folders(reader, f, out.library_path); }},
       {"computeMode",
        [&](const Field& f) {
          reader.choice(f, "leave", "exclusive", out.exclusive_compute_mode);
        }},
       {"gate", [&](const Field& f) { read_gate(reader, f, out.gate); }},
       {"metricsListen",
        [&](const Field& f) { read_listen_address(reader, f, out.metrics_listen); }},
       {"stopInstances", [&](const Field& f) { reader.boolean(f, out.stop_instances); }},
       {"limits", [&](const Field& f) { read_limits(reader, f, out.limits); }},
       {"probe", [&](const Field& f) { read_probe(reader, f, out.probe); }},
       {"channelHolder",
        [&](const Field& f) { reader.choice(f, "report", "end", out.end_channel_holder); }},
       {"backoff", [&](const Field& f) { read_backoff(reader, f, out.backoff); }},
       {"drainTimeout", [&](const Field& f) { reader.duration(f, 0ms, 24h, out.drain_timeout); }},
       {"shutdownTimeout",
        [&](const Field& f) { reader.duration(f, 100ms, 1h, out.shutdown_timeout); }},
       {"overcommit", [&](const Field& f) { read_overcommit(reader, f, out); }},
       {"audit",
        [&](const Field& f) {
          reader.read_mapping(f, {{"interval", [&](const Field& interval) {
                                     reader.duration(interval, 1s, 1h, out.audit_interval);
                                   }}});
        }},
       {"admission",
        [&](const Field& f) {
          reader.read_mapping(f, {{"wait", [&](const Field& wait) {
                                     reader.duration(wait, 0ms, 1h, out.admission_wait);
                                   }}});
        }},
       {"hardLimits", [&](const Field& f) { reader.choice(f, "off", "on", out.hard_limits); }},
       {"uidConflict",
        [&](const Field& f) { reader.choice(f, "refuse", "wait", out.uid_conflict_waits); }},
       {"serverStartFailures", later},
       {"sharedMemory", later}});
}

void read_document(Reader& reader, std::string_view text, Settings& out) {
  const auto parsed = yaml::parse(text);
  if (const auto* problem = std::get_if<yaml::Problem>(&parsed)) {
    return reader.fail_at(problem->mark, problem->reason);
  }
  const auto& documents = std::get<std::vector<yaml::Node>>(parsed);
  if (documents.size() > 1) {
    return reader.fail_at(documents[1].mark, "must be one document, without a second \"---\"");
  }
  // A file of comments alone sets nothing, which is fine.
  if (documents.empty() || documents[0].is_null()) return;
  read_settings(reader, {"", documents.data(), documents[0].mark}, out);
}

}  // namespace

std::variant<Settings, SettingsErrors> parse_settings(std::string_view text, std::string_view file,
                                                      const Settings& base) {
  Reader reader(file);
  Settings settings = base;
  read_document(reader, text, settings);
  auto errors = reader.take_errors();
  if (!errors.empty()) return SettingsErrors{std::move(errors)};
  return settings;
}

}  // namespace mps::app
