#include "cdi/spec.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace mps::cdi {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view k_prefix = "mps-supervisor.dev-share-";
constexpr std::string_view k_suffix = ".json";

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string percentage(double value) {
  const auto tenths = std::lround(value * 10);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10);
}

Json environment_of(const Spec& spec) {
  auto list = Json::array();
  list.push_back("CUDA_MPS_PIPE_DIRECTORY=" + place_of(spec.name) + "/pipe");
  if (spec.grant && spec.grant->active_thread_percentage < 100) {
    list.push_back("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=" +
                   percentage(spec.grant->active_thread_percentage));
  }
  if (spec.grant && spec.grant->pinned_memory_mebibytes) {
    list.push_back("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=" +
                   std::to_string(*spec.grant->pinned_memory_mebibytes) + "M");
  }
  if (spec.grant && spec.grant->below_normal) list.push_back("CUDA_MPS_CLIENT_PRIORITY=1");
  if (!spec.visible_devices.empty()) {
    list.push_back("CUDA_VISIBLE_DEVICES=" + spec.visible_devices);
  }
  return list;
}

}  // namespace

bool is_device_name(std::string_view name) {
  const auto fits = [](char c) {
    return is_letter(c) || is_digit(c) ||
           std::string_view("_-.:").find(c) != std::string_view::npos;
  };
  return !name.empty() && is_letter(name.front()) &&
         (is_letter(name.back()) || is_digit(name.back())) && std::ranges::all_of(name, fits);
}

std::string device_of(std::string_view name) {
  return std::string(k_kind) + "=" + std::string(name);
}

std::string file_of(std::string_view name) {
  return std::string(k_prefix) + std::string(name) + std::string(k_suffix);
}

std::optional<std::string> name_in(std::string_view file) {
  if (!file.starts_with(k_prefix) || !file.ends_with(k_suffix)) return std::nullopt;
  file.remove_prefix(k_prefix.size());
  if (file.size() <= k_suffix.size()) return std::nullopt;
  file.remove_suffix(k_suffix.size());
  return is_device_name(file) ? std::optional<std::string>(file) : std::nullopt;
}

std::string place_of(std::string_view name) {
  return "/run/mps-share/" + std::string(name);
}

// Not noexec: mps-run is in it.
std::string encode(const Spec& spec) {
  Json mount;
  mount["hostPath"] = spec.folder.native();
  mount["containerPath"] = place_of(spec.name);
  mount["options"] = {"rbind", "ro", "nosuid", "nodev"};
  Json device;
  device["name"] = spec.name;
  device["containerEdits"]["env"] = environment_of(spec);
  device["containerEdits"]["mounts"] = Json::array({std::move(mount)});
  Json file;
  file["cdiVersion"] = "0.3.0";
  file["kind"] = k_kind;
  file["devices"] = Json::array({std::move(device)});
  return file.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<std::filesystem::path> folder_in(std::string_view text) {
  const auto file = Json::parse(text, nullptr, false);
  try {
    if (!file.is_object() || file.at("kind") != k_kind) return std::nullopt;
    const auto& mount = file.at("devices").at(0).at("containerEdits").at("mounts").at(0);
    return std::filesystem::path(mount.at("hostPath").get<std::string>()).lexically_normal();
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace mps::cdi
