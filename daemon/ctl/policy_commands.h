// `mps-ctl policy …`, once the arguments are known. Each returns the exit status.
#pragma once

#include <string>
#include <vector>

#include "ctl/commands.h"

namespace mps::ctl {

struct CheckOptions {
  std::vector<std::string> paths;  // directories and files
  std::string config;              // a settings file whose devices are checked against
  bool node = false;               // the devices of the supervisor that runs here
};

struct ExplainOptions {
  std::string subject;
  std::vector<std::string> labels;  // "k=v", each right by itself
  std::string device;
  std::string policies;  // a directory: no supervisor is asked
  std::string config;
};

int list_policies(const Console& console);
int show_policy(const Console& console, const std::string& subject);
int check_policies(const Console& console, const CheckOptions& options);
int explain_policy(const Console& console, const ExplainOptions& options);

}  // namespace mps::ctl
