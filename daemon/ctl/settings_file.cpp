#include "ctl/settings_file.h"

#include <fstream>
#include <iterator>
#include <utility>
#include <variant>

namespace mps::ctl {

Result<app::Settings> read_settings(const std::string& path, bool required) {
  std::ifstream file(path);
  if (!file) {
    if (!required) return app::Settings{};
    return Error{"cannot read " + path};
  }
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  auto parsed = app::parse_settings(text, path);
  if (auto* settings = std::get_if<app::Settings>(&parsed)) return std::move(*settings);
  std::string errors;
  for (const auto& message : std::get<app::SettingsErrors>(parsed).messages) {
    errors += (errors.empty() ? "" : "\n") + message;
  }
  return Error{errors};
}

}  // namespace mps::ctl
