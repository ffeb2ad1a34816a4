// Shares as the API shows them, and what may be asked of it. Pure.
#pragma once

#include <chrono>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "share/records.h"

namespace mps::api {

struct ShareOrder {
  std::string device;   // "0", "gpu0", "0:3", a UUID
  std::string subject;  // a namespace; empty: whoever has it mounted
  share::Grant grant{};
  std::optional<std::chrono::milliseconds> ttl{};
};

struct ShareView {
  share::Share share;  // of an open share: its id and instance
  std::string device;  // UUID
  std::string directory;
  std::size_t clients = 0;
  bool is_open_share = false;    // everybody's: limits as the policies say
  std::string cdi_device{};      // "mps-supervisor.dev/share=s12"; empty: it is none
  std::string no_cdi_because{};  // then
};

// The body of a request. An Error names the field.
Result<ShareOrder> order_from(const std::string& body);

nlohmann::json to_json(const ShareView& view);

}  // namespace mps::api
