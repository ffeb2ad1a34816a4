// mps-ctl faults, and mps-ctl quarantine: list, add, remove.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ctl/commands.h"

namespace mps::ctl {

struct FaultsOptions {
  std::string id;  // empty: the list
  std::string instance;
  std::string since;
  std::optional<std::uint64_t> limit;
};

struct QuarantineOptions {
  std::string subject;  // add, as are the next four
  std::string owner;
  std::string command;
  std::string duration;
  std::string reason;
  std::string id;  // remove
};

int show_faults(const Console& console, const FaultsOptions& options);
int list_quarantine(const Console& console);
int add_quarantine(const Console& console, const QuarantineOptions& options);
int remove_quarantine(const Console& console, const QuarantineOptions& options);

}  // namespace mps::ctl
