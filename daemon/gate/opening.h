// What a client of this node's libcuda says first, as it is used and as it is kept. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/result.h"

namespace mps::gate {

inline constexpr std::size_t k_opening_messages = 7;  // at most

struct Opening {
  std::string driver;    // of which libcuda and control program it was learnt (driver_identity())
  std::string greeting;  // the daemon's first message
  std::vector<std::string> messages;  // the client's, up to where it waits
  bool forwardable = false;           // the daemon believes the credentials that we attach
  std::string why_not;                // where it does not
  bool operator==(const Opening&) const = default;
};

// As kept in the state directory. An Error: damaged, or another version's.
std::string to_store(const Opening& opening);
Result<Opening> from_store(const std::string& text);

}  // namespace mps::gate
