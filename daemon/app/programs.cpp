#include "app/programs.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <system_error>

#if __has_include(<boost/process/v1/search_path.hpp>)
#include <boost/process/v1/search_path.hpp>
#else
#include <boost/process/search_path.hpp>
#endif

namespace mps::app {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view k_control = "nvidia-cuda-mps-control";
constexpr std::string_view k_server = "nvidia-cuda-mps-server";

constexpr std::array<std::string_view, 9> k_usual_folders{"/usr/bin",
                                                          "/usr/sbin",
                                                          "/usr/local/bin",
                                                          "/usr/local/sbin",
                                                          "/usr/local/nvidia/bin",
                                                          "/opt/nvidia/bin",
                                                          "/opt/nvidia/sbin",
                                                          "/run/nvidia/driver/usr/bin",
                                                          "/run/nvidia/driver/usr/sbin"};

// Whole families, since MPS and systemd add to them.
constexpr std::array<std::string_view, 6> k_dropped_families{
    "CUDA_MPS_", "WATCHDOG_", "LISTEN_", "LC_", "NOTIFY_SOCKET=", "JOURNAL_STREAM="};
constexpr std::array<std::string_view, 6> k_replaced{
    "PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LANG", "LANGUAGE"};

std::string_view name_of(std::string_view entry) {
  return entry.substr(0, entry.find('='));
}

std::string value_of(const Environment& environment, std::string_view name) {
  for (const auto& entry : environment) {
    if (name_of(entry) == name && entry.size() > name.size()) return entry.substr(name.size() + 1);
  }
  return {};
}

bool is_kept(std::string_view entry) {
  const auto name = name_of(entry);
  return std::none_of(k_dropped_families.begin(), k_dropped_families.end(),
                      [entry](auto family) { return entry.starts_with(family); }) &&
         std::find(k_replaced.begin(), k_replaced.end(), name) == k_replaced.end();
}

// Without the empty entries, which mean the current folder, and each folder once.
void append_folders(std::vector<std::string>& out, std::string_view list) {
  while (!list.empty()) {
    const auto end = list.find(':');
    const std::string folder(list.substr(0, end));
    if (!folder.empty() && std::find(out.begin(), out.end(), folder) == out.end()) {
      out.push_back(folder);
    }
    if (end == std::string_view::npos) return;
    list.remove_prefix(end + 1);
  }
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string joined;
  for (const auto& part : parts) {
    if (!joined.empty()) joined += separator;
    joined += part;
  }
  return joined;
}

std::optional<fs::path> find_in(const std::vector<std::string>& folders, std::string_view program) {
  std::vector<boost::filesystem::path> path(folders.begin(), folders.end());
#if __has_include(<boost/process/v1/search_path.hpp>)
  const auto found = boost::process::v1::search_path(std::string(program), path);
#else
  const auto found = boost::process::search_path(std::string(program), path);
#endif
  if (found.empty()) return std::nullopt;
  return fs::path(found.native());
}

Error not_found(std::string_view program, const std::vector<std::string>& folders) {
  for (const auto& folder : folders) {
    std::error_code ignored;
    const auto candidate = fs::path(folder) / program;
    if (!fs::is_regular_file(candidate, ignored)) continue;
    return {candidate.string() +
            ": is there but cannot be executed; check its mode, and that its file system is not "
            "mounted noexec"};
  }
  return {std::string(program) + ": not found in " + join(folders, ", ") +
          "; install the MPS programs of the NVIDIA driver (Debian: nvidia-cuda-mps, Ubuntu: "
          "nvidia-compute-utils), or name their folder in mpsPath"};
}

// `places` from where this program is.
Result<fs::path> find_own(std::string_view name, std::initializer_list<std::string_view> places,
                          int access) {
  std::error_code error;
  const auto self = fs::read_symlink("/proc/self/exe", error);
  if (error) return Error{"cannot tell where this program is: " + error.message()};
  std::string looked;
  for (const auto place : places) {
    const auto folder = (self.parent_path() / place / "").lexically_normal().parent_path();
    const auto path = folder / name;
    if (::access(path.c_str(), access) == 0) return path;
    looked += (looked.empty() ? "" : " or ") + folder.string();
  }
  return Error{"no " + std::string(name) + " in " + looked};
}

}  // namespace

Environment current_environment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    environment.emplace_back(*entry);
  }
  return environment;
}

std::span<const std::string_view> usual_program_folders() {
  return k_usual_folders;
}

Result<Programs> find_programs(const std::vector<fs::path>& mps_path,
                               const Environment& environment,
                               std::span<const std::string_view> usual) {
  std::vector<std::string> first;
  for (const auto& folder : mps_path) append_folders(first, folder.native());
  std::vector<std::string> rest;
  append_folders(rest, value_of(environment, "PATH"));
  for (const auto folder : usual) append_folders(rest, folder);

  const auto search_order = [&rest](std::vector<std::string> folders) {
    for (const auto& folder : rest) append_folders(folders, folder);
    return folders;
  };
  const auto control = find_in(search_order(first), k_control);
  if (!control) return not_found(k_control, search_order(first));
  const auto folder = control->parent_path();
  for (const auto& beside : {folder, folder.parent_path() / "sbin", folder.parent_path() / "bin"}) {
    append_folders(first, beside.native());
  }
  const auto server = find_in(search_order(first), k_server);
  if (!server) return not_found(k_server, search_order(first));
  return Programs{*control, *server};
}

Result<fs::path> find_own_program(std::string_view name) {
  return find_own(name, {".", "../libexec/mps-supervisor"}, X_OK);
}

Result<fs::path> find_own_library(std::string_view name) {
  return find_own(name, {".", "../libexec/mps-supervisor", "../lib"}, R_OK);
}

Environment daemon_environment(const Environment& inherited, const DaemonPlace& place) {
  std::vector<std::string> path;
  append_folders(path, place.programs.control.parent_path().native());
  append_folders(path, place.programs.server.parent_path().native());
  append_folders(path, value_of(inherited, "PATH"));
  std::vector<std::string> libraries;
  for (const auto& folder : place.library_path) append_folders(libraries, folder.native());
  append_folders(libraries, value_of(inherited, "LD_LIBRARY_PATH"));

  Environment environment;
  std::copy_if(inherited.begin(), inherited.end(), std::back_inserter(environment), is_kept);
  environment.push_back("PATH=" + join(path, ":"));
  if (!libraries.empty()) environment.push_back("LD_LIBRARY_PATH=" + join(libraries, ":"));
  environment.push_back("CUDA_VISIBLE_DEVICES=" + place.device);
  environment.push_back("CUDA_MPS_PIPE_DIRECTORY=" + place.pipe_directory.native());
  environment.push_back("CUDA_MPS_LOG_DIRECTORY=" + place.log_directory.native());
  environment.emplace_back("LANG=C");
  environment.emplace_back("LC_ALL=C");
  return environment;
}

}  // namespace mps::app
