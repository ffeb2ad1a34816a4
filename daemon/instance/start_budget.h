// How long to wait before the next start, and when to give up: backoff that doubles with jitter,
// and a budget of failures within a time. Pure; the time is given.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>

namespace mps::instance {

struct BackoffSettings {
  std::chrono::milliseconds initial{100};
  std::chrono::milliseconds max{30000};
  unsigned budget_failures = 5;
  std::chrono::milliseconds budget_within{120000};
};

class StartBudget {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit StartBudget(BackoffSettings settings, std::uint32_t seed = 1)
      : settings_(settings), random_(seed) {}

  // A start that never became ready, or a life of under a second. The delay before the next start,
  // or nothing when the budget is spent.
  std::optional<std::chrono::milliseconds> failed(TimePoint now);
  // It serves again: the next failure starts from the beginning.
  void succeeded() { delay_ = std::chrono::milliseconds{0}; }
  // An operator asked for another try.
  void reset();
  void seed(std::uint32_t value) { random_ = value; }

 private:
  std::chrono::milliseconds jittered(std::chrono::milliseconds delay);

  BackoffSettings settings_;
  std::chrono::milliseconds delay_{0};
  std::deque<TimePoint> failures_;  // at most budget_failures of them
  std::uint32_t random_;
};

}  // namespace mps::instance
