// The settings that the supervisor would take, for what is looked at without it.
#pragma once

#include <string>

#include "app/settings.h"
#include "base/result.h"

namespace mps::ctl {

// A file that is not there is all defaults, unless it is `required`. An Error has all of its lines.
Result<app::Settings> read_settings(const std::string& path, bool required);

}  // namespace mps::ctl
