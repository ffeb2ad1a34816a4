#include "app/settings.h"

#include <yaml-cpp/depthguard.h>

#include <exception>
#include <utility>

#include "app/settings_fields.h"
#include "app/settings_yaml.h"
#include "base/text.h"

namespace mps::app {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t k_size_limit = 256 * 1024;
constexpr std::size_t k_folder_limit = 64;

SettingsReader::Read not_supported(SettingsReader& reader) {
  return [&reader](const Field& field) {
    reader.fail(field, "not supported by this version of mps-supervisor");
  };
}

void read_folders(SettingsReader& reader, const Field& field,
                  std::vector<std::filesystem::path>& out) {
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

void read_gate(SettingsReader& reader, const Field& field) {
  constexpr std::string_view what = "must be auto or off";
  const auto word = reader.text(field, what);
  if (!word || *word == "auto" || *word == "off") return;
  reader.fail(field, *word == "on" ? "this version has no gate yet; use auto or off" : what);
}

void read_limits(SettingsReader& reader, const Field& field, instance::Limits& out) {
  reader.read_mapping(
      field, {{"activeThreadPercentage",
               [&](const Field& f) { read_percentage(reader, f, out.active_thread_percentage); }},
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

void read_probe(SettingsReader& reader, const Field& field, Settings::Probe& out) {
  reader.read_mapping(
      field, {{"interval", [&](const Field& f) { reader.duration(f, 100ms, 1h, out.interval); }},
              {"timeout", [&](const Field& f) { reader.duration(f, 100ms, 1min, out.timeout); }},
              {"failures", [&](const Field& f) { reader.whole_number(f, 1, 100, out.failures); }}});
}

void read_backoff(SettingsReader& reader, const Field& field, Settings::Backoff& out) {
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

void read_settings(SettingsReader& reader, const Field& root, Settings& out) {
  const auto later = not_supported(reader);
  reader.read_mapping(
      root,
      {{"runDir", [&](const Field& f) { read_path(reader, f, out.run_dir); }},
       {"stateDir", [&](const Field& f) { read_path(reader, f, out.state_dir); }},
       {"operatorsGroup", [&](const Field& f) { read_group(reader, f, out.operators_group); }},
       {"devices", [&](const Field& f) { read_devices(reader, f, out.devices); }},
       {"nvmlLibrary", [&](const Field& f) { read_library(reader, f, out.nvml_library); }},
       {"mpsPath", [&](const Field& f) { read_folders(reader, f, out.mps_path); }},
       {"libraryPath", [&](const Field& f) { read_folders(reader, f, out.library_path); }},
       {"computeMode",
        [&](const Field& f) {
          reader.choice(f, "leave", "exclusive", out.exclusive_compute_mode);
        }},
       {"gate", [&](const Field& f) { read_gate(reader, f); }},
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
       {"policyDir", later},
       {"overcommit", later},
       {"admission", later},
       {"hardLimits", later},
       {"uidConflict", later},
       {"serverStartFailures", later},
       {"sharedMemory", later}});
}

void read_document(SettingsReader& reader, const std::string& text, Settings& out) {
  try {
    const auto documents = YAML::LoadAll(text);
    if (documents.size() > 1) {
      return reader.fail_at(documents[1].Mark(), "must be one document, without a second \"---\"");
    }
    // A file of comments alone sets nothing, which is fine.
    if (documents.empty() || documents[0].IsNull()) return;
    read_settings(reader, {"", documents[0], documents[0].Mark()}, out);
  } catch (const YAML::DeepRecursion& error) {
    reader.fail_at(error.mark, "nested too deeply");
  } catch (const YAML::Exception& error) {
    reader.fail_at(error.mark, "not YAML: " + error.msg);
  } catch (const std::exception& error) {
    reader.fail_at(YAML::Mark(), std::string("cannot be read: ") + error.what());
  }
}

}  // namespace

std::variant<Settings, SettingsErrors> parse_settings(std::string_view text, std::string_view file,
                                                      const Settings& base) {
  SettingsReader reader(file);
  Settings settings = base;
  if (text.size() > k_size_limit) {
    reader.fail_at(YAML::Mark(), "must not be larger than " + std::to_string(k_size_limit) +
                                     " bytes: \"" + std::to_string(text.size()) + "\"");
  } else {
    read_document(reader, std::string(text), settings);
  }
  auto errors = reader.take_errors();
  if (!errors.empty()) return SettingsErrors{std::move(errors)};
  return settings;
}

}  // namespace mps::app
