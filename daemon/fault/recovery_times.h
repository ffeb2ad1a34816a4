// How long it took to serve again, as a histogram for the metrics. Pure, of constant size.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace mps::fault {

struct RecoveryTimes {
  // Upper bounds, in milliseconds; what took longer is in `count` alone.
  static constexpr std::array<std::int64_t, 12> k_bounds{
      10, 30, 100, 300, 1000, 3000, 10000, 30000, 60000, 120000, 300000, 600000};

  std::array<std::uint64_t, k_bounds.size()> up_to{};  // each with those below it
  std::uint64_t count = 0;
  std::chrono::milliseconds sum{0};

  // A negative one (the clock was set) counts as 0.
  void add(std::chrono::milliseconds took) {
    const auto time = took.count() < 0 ? std::chrono::milliseconds{0} : took;
    for (std::size_t i = 0; i < k_bounds.size(); ++i) {
      if (time.count() <= k_bounds[i]) ++up_to[i];
    }
    ++count;
    sum += time;
  }
  bool operator==(const RecoveryTimes&) const = default;
};

}  // namespace mps::fault
