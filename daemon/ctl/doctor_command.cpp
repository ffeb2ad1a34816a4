#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <variant>

#include "app/programs.h"
#include "app/settings.h"
#include "base/text.h"
#include "ctl/commands.h"
#include "ctl/doctor.h"
#include "ctl/views.h"

namespace mps::ctl {

namespace {

using nlohmann::json;

// The settings that the supervisor would take. A file that is not there is all defaults, unless it
// was asked for.
Result<app::Settings> read_settings(const DoctorPlaces& places) {
  std::ifstream file(places.config);
  if (!file) {
    if (!places.config_given) return app::Settings{};
    return Error{"cannot read " + places.config};
  }
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  auto parsed = app::parse_settings(text, places.config);
  if (auto* settings = std::get_if<app::Settings>(&parsed)) return std::move(*settings);
  std::string errors;
  for (const auto& message : std::get<app::SettingsErrors>(parsed).messages) {
    errors += (errors.empty() ? "" : "\n") + message;
  }
  return Error{errors};
}

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
}

}  // namespace

int doctor(const Console& console, const DoctorPlaces& places) {
  const auto settings = read_settings(places);
  if (!settings) {
    console.err << "mps-ctl: " << settings.error().message << "\n";
    return k_failed;
  }
  DoctorOptions options;
  options.run_dir = settings->run_dir;
  options.library_path = settings->library_path;
  options.devices = settings->devices;
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
