// How often to say that somebody was refused: the first time, and then how many more there were, so
// that a container that tries in a loop does not fill the journal. Pure: the time is given.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>

namespace mps::admission {

class Refusals {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr std::size_t k_most = 1024;  // different ones remembered
  static constexpr std::chrono::seconds k_quiet{30};

  // How many were not said since the last one that was; none: not to be said.
  std::optional<std::size_t> count(const std::string& what, TimePoint now);

 private:
  struct Kept {
    TimePoint said{};
    std::size_t unsaid = 0;
  };
  void forget_old(TimePoint now);

  std::map<std::string, Kept> kept_;
};

}  // namespace mps::admission
