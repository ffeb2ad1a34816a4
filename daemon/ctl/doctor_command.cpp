#include <nlohmann/json.hpp>

#include "app/programs.h"
#include "base/text.h"
#include "ctl/commands.h"
#include "ctl/doctor.h"
#include "ctl/fields.h"
#include "ctl/settings_file.h"
#include "ctl/views.h"

namespace mps::ctl {

namespace {

using nlohmann::json;

constexpr std::size_t k_sentence_limit = 400;

void ask_supervisor(const std::string& socket, DoctorOptions& options) {
  const auto response = Client(socket).request("GET", "/v1/status");
  if (!response) {
    options.supervisor_error = response.error().message;
    return;
  }
  const auto status = json::parse(response->body, nullptr, false);
  if (response->status != 200 || !status.is_object()) {
    options.supervisor_error = "it answers with status " + std::to_string(response->status);
    return;
  }
  if (const auto pid = status.find("pid"); pid != status.end() && pid->is_number_integer()) {
    options.supervisor_pid = pid->get<pid_t>();
  }
  const auto& out = field(status, {"outOfService"});
  for (std::size_t i = 0; out.is_array() && i < out.size(); ++i) {
    options.devices_out.push_back(printable(text(out[i], {"message"}), k_sentence_limit));
  }
}

}  // namespace

int doctor(const Console& console, const DoctorPlaces& places) {
  const auto settings = read_settings(places.config, places.config_given);
  if (!settings) {
    console.err << "mps-ctl: " << settings.error().message << "\n";
    return k_failed;
  }
  DoctorOptions options;
  options.run_dir = settings->run_dir;
  options.library_path = settings->library_path;
  options.devices = settings->devices;
  options.policy_dir = settings->policy_dir;
  options.exclusive = settings->exclusive_compute_mode;
  options.nvml_library = settings->nvml_library;
  if (const auto programs = app::find_programs(settings->mps_path, app::current_environment())) {
    options.control_program = programs->control;
    options.server_program = programs->server;
  } else {
    options.programs_error = programs.error().message;
  }
  ask_supervisor(console.socket, options);
  const auto findings = run_doctor(options);
  if (console.format == Format::json) {
    console.out << to_json(findings).dump(2, ' ', false, json::error_handler_t::replace) << "\n";
  } else {
    console.out << (console.format == Format::yaml ? to_yaml(to_json(findings))
                                                   : to_text(findings));
  }
  return exit_status(findings);
}

}  // namespace mps::ctl
