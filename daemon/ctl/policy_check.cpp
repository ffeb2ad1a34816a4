// `mps-ctl policy check`: files as the supervisor would take them, without one.
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "app/policy_directory.h"
#include "app/wanted.h"
#include "base/text.h"
#include "ctl/ask.h"
#include "ctl/fields.h"
#include "ctl/policy_commands.h"
#include "ctl/settings_file.h"

namespace mps::ctl {

namespace {

using nlohmann::json;
using policy::DeviceFacts;
using policy::SourceFile;

constexpr std::string_view k_too_large = "must not be larger than ";

// Which file it is, whatever it is called.
using Identity = std::pair<dev_t, ino_t>;

Identity identity_of(const struct stat& status) {
  return {status.st_dev, status.st_ino};
}

struct Sources {
  std::map<std::string, SourceFile> files;  // by the first name that was given
  std::set<Identity> seen;                  // so that one that is named twice counts once
  std::vector<std::string> errors;
};

std::string unreadable(const std::string& path, const std::string& reason) {
  return printable(path, 4096) + ": cannot be read: " + reason;
}

void read_file(const std::string& path, Sources& sources) {
  struct stat status {};
  const bool known = ::stat(path.c_str(), &status) == 0;
  if (known && !sources.seen.insert(identity_of(status)).second) return;
  sources.files.insert_or_assign(path, app::read_policy_file(path));
}

// Two names in one directory are two files to the supervisor, also where they are of one.
void add_directory(const std::string& path, std::vector<SourceFile> files, Sources& sources) {
  std::set<Identity> here;
  for (auto& file : files) {
    file.name = (std::filesystem::path(path) / file.name).string();
    struct stat status {};
    if (::stat(file.name.c_str(), &status) == 0) {
      if (sources.seen.contains(identity_of(status))) continue;
      here.insert(identity_of(status));
    }
    sources.files.insert_or_assign(file.name, std::move(file));
  }
  sources.seen.merge(here);
}

void read_directory(const std::string& path, Sources& sources) {
  auto files = app::read_policy_directory(path);
  if (files && files->empty()) {
    return sources.errors.push_back(printable(path, 4096) + ": has no policy file (*.yaml, *.yml)");
  }
  if (files) return add_directory(path, std::move(*files), sources);
  auto reason = files.error().message;
  for (const auto& known : {"cannot read the policy directory " + path + ": ", path + ": "}) {
    if (reason.starts_with(known)) reason.erase(0, known.size());
  }
  sources.errors.push_back(unreadable(path, reason));
}

Sources read_all(const std::vector<std::string>& paths) {
  Sources sources;
  for (const auto& path : paths) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
      read_directory(path, sources);
    } else {
      read_file(path, sources);
    }
  }
  return sources;
}

// Every error of a file begins with a place: what was not read has its first.
std::string with_place(const SourceFile& file, const std::string& error) {
  const auto name = printable(file.name, 255);
  const bool has_none =
      file.trouble.starts_with(k_too_large) && error.starts_with(name + ": " + file.trouble);
  return has_none ? name + ":1:1: " + file.trouble : error;
}

template <typename Number>
Number number_of(const json& device, const char* name) {
  const auto& value = field(device, {name});
  return value.is_number_unsigned() ? value.get<Number>() : Number{};
}

DeviceFacts facts_of(const json& device) {
  DeviceFacts facts{.name = text(device, {"id"}), .uuid = text(device, {"uuid"})};
  facts.index = number_of<unsigned>(device, "index");
  if (!field(device, {"migIndex"}).is_null()) {
    facts.mig_index = number_of<unsigned>(device, "migIndex");
  }
  facts.memory_mebibytes = number_of<std::uint64_t>(device, "memoryMiB");
  facts.sm_count = number_of<unsigned>(device, "smCount");
  facts.exclusive = field(device, {"exclusive"}) == true;
  if (const auto most = number_of<unsigned>(device, "maxClients"); most != 0) {
    facts.max_clients = most;
  }
  return facts;
}

// The devices to check against; else the exit status, and the reason has been said.
struct Devices {
  std::vector<DeviceFacts> facts;
  int status = k_done;
};

Devices devices_of_node(const Console& console) {
  const auto answered = ask(console, "GET", "/v1/devices");
  Devices devices{{}, answered.status};
  for (const auto& device : answered.value) {
    if (field(device, {"mpsCapable"}) == true) devices.facts.push_back(facts_of(device));
  }
  return devices;
}

Devices find_devices(const Console& console, const CheckOptions& options) {
  if (options.node) return devices_of_node(console);
  if (options.config.empty()) return {};
  const auto settings = read_settings(options.config, true);
  if (!settings) return {{}, fail(console, k_failed, settings.error().message)};
  device::Inventory inventory;
  if (settings->devices) inventory.devices = *settings->devices;
  if (inventory.devices.empty()) {
    console.err << "mps-ctl: limits are not checked against devices, as "
                << printable(options.config, 4096) << " names none\n";
  }
  return {app::device_facts(inventory, settings->exclusive_compute_mode), k_done};
}

std::string counted(std::size_t count, const char* one, const char* many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

std::string check_text(const json& result) {
  std::string out;
  for (const auto& error : result["errors"]) out += error.get<std::string>() + "\n";
  if (!out.empty()) return out;
  const auto policies = result["policies"].get<std::size_t>();
  return counted(policies, "policy", "policies") + " in " +
         counted(result["files"].get<std::size_t>(), "file", "files") +
         (policies == 1 ? " is" : " are") + " fine\n";
}

}  // namespace

int check_policies(const Console& console, const CheckOptions& options) {
  const auto devices = find_devices(console, options);
  if (devices.status != k_done) return devices.status;
  auto sources = read_all(options.paths);
  std::vector<SourceFile> files;
  for (const auto& [name, file] : sources.files) files.push_back(file);
  const auto generation = policy::next_generation({}, files, devices.facts);
  auto errors = std::move(sources.errors);
  for (const auto& file : generation->files) {
    const auto& source = sources.files.at(file.name);
    for (const auto& error : file.errors) errors.push_back(with_place(source, error));
  }
  const json result{{"files", generation->files.size()},
                    {"policies", generation->policies.size()},
                    {"errors", errors}};
  console.out << render(console.format, result, check_text);
  return errors.empty() ? k_done : k_failed;
}

}  // namespace mps::ctl
