#include <algorithm>

#include "app/settings.h"
#include "app/settings_fields.h"
#include "base/text.h"
#include "policy/subject.h"

namespace mps::app {
namespace {

// A socket address holds 107 bytes and its end; the control daemons of 535 and 550 were tried, and
// take one byte less: with more they exit without a word.
constexpr std::size_t k_socket_path_limit = 106;
constexpr std::size_t k_instance_name_room = policy::k_instance_name_limit;
constexpr std::string_view k_longest_socket = "/pipe/control_privileged";
constexpr std::size_t k_run_dir_limit =
    k_socket_path_limit - 1 - k_instance_name_room - k_longest_socket.size();

bool lies_in(const std::filesystem::path& path, const std::filesystem::path& folder) {
  const auto inner = path.lexically_normal();
  return std::mismatch(folder.begin(), folder.end(), inner.begin(), inner.end()).first ==
         folder.end();
}

std::string complaint(std::string_view key, std::string_view reason, std::string_view value) {
  return std::string(key) + ": " + std::string(reason) + ": \"" + printable(value) + "\"";
}

void check_folder(std::string_view key, const std::filesystem::path& folder,
                  std::vector<std::string>& problems) {
  const auto& text = folder.native();
  if (const auto problem = path_problem(text); !problem.empty()) {
    problems.push_back(complaint(key, problem, text));
  } else if (folder.lexically_normal() == "/") {
    problems.push_back(complaint(key, "must be a folder of its own", text));
  } else if (lies_in(folder, "/tmp/nvidia-mps")) {
    problems.push_back(complaint(
        key, "must not be /tmp/nvidia-mps or lie in it, as every CUDA program looks there", text));
  }
}

void check_run_dir_length(const std::filesystem::path& run_dir,
                          std::vector<std::string>& problems) {
  const auto& text = run_dir.native();
  if (text.size() <= k_run_dir_limit) return;
  const auto reason = "is " + std::to_string(text.size()) + " bytes long and may have " +
                      std::to_string(k_run_dir_limit) + ": the path of a socket, <runDir>/<" +
                      std::to_string(k_instance_name_room) + " bytes>" +
                      std::string(k_longest_socket) + ", ends at " +
                      std::to_string(k_socket_path_limit) + "; choose a shorter one";
  problems.push_back(complaint("runDir", reason, text));
}

}  // namespace

std::vector<std::string> check_settings(const Settings& settings) {
  std::vector<std::string> problems;
  check_folder("runDir", settings.run_dir, problems);
  check_run_dir_length(settings.run_dir, problems);
  check_folder("stateDir", settings.state_dir, problems);
  check_folder("policyDir", settings.policy_dir, problems);
  if (!settings.cdi_dir.empty()) check_folder("cdiDir", settings.cdi_dir, problems);
  if (settings.run_dir.lexically_normal() == settings.state_dir.lexically_normal()) {
    problems.push_back(
        complaint("stateDir", "must not be the same as runDir", settings.state_dir.native()));
  }
  if (const auto problem = listen_address_problem(settings.metrics_listen); !problem.empty()) {
    problems.push_back(complaint("metricsListen", problem, settings.metrics_listen));
  }
  const auto& backoff = settings.backoff;
  if (backoff.max < backoff.initial) {
    problems.push_back(
        complaint("backoff.max",
                  "must not be shorter than backoff.initial " + format_duration(backoff.initial),
                  format_duration(backoff.max)));
  }
  return problems;
}

}  // namespace mps::app
