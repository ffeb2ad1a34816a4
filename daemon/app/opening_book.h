// What a client of this node's driver says first: kept from an earlier start where the driver is
// the same, else learnt (gate/learn.h).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <optional>
#include <string>

#include "gate/learn.h"

namespace mps::app {

struct Lesson {
  std::optional<gate::Opening> opening;  // a gate can stand
  // Why not. `impossible`: on this node it cannot; else it may be that the next try succeeds.
  std::string why;
  bool impossible = false;
  bool fresh = false;  // learnt just now
};

// `store`: where it is kept. Takes a second at most where nothing is wrong, and has its deadlines.
boost::asio::awaitable<Lesson> learn_or_recall(gate::LearnSettings settings,
                                               std::filesystem::path store);

}  // namespace mps::app
