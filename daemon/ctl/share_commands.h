// mps-ctl shares: list, create, delete.
#pragma once

#include <optional>
#include <string>

#include "ctl/commands.h"

namespace mps::ctl {

struct ShareOptions {
  std::string instance;  // list
  std::string device;    // create, as are the next four
  std::optional<double> threads;
  std::string memory;
  std::string subject;
  std::string ttl;
  std::string id;  // delete
  bool drain = false;
};

int list_shares(const Console& console, const ShareOptions& options);
int create_share(const Console& console, const ShareOptions& options);
int delete_share(const Console& console, const ShareOptions& options);

}  // namespace mps::ctl
