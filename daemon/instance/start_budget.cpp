#include "instance/start_budget.h"

#include <algorithm>

namespace mps::instance {

std::optional<std::chrono::milliseconds> StartBudget::failed(TimePoint now) {
  while (!failures_.empty() && now - failures_.front() > settings_.budget_within) {
    failures_.pop_front();
  }
  failures_.push_back(now);
  if (failures_.size() >= settings_.budget_failures) return std::nullopt;
  delay_ = delay_.count() == 0 ? settings_.initial : std::min(delay_ * 2, settings_.max);
  return jittered(delay_);
}

void StartBudget::reset() {
  failures_.clear();
  succeeded();
}

// Up to a quarter less, so that the instances of a node that fail together do not start together.
std::chrono::milliseconds StartBudget::jittered(std::chrono::milliseconds delay) {
  random_ = random_ * 1664525U + 1013904223U;  // Numerical Recipes' generator: spread, not secrecy
  const auto span = static_cast<std::uint64_t>(delay.count() / 4 + 1);
  return delay - std::chrono::milliseconds(static_cast<std::int64_t>((random_ >> 8) % span));
}

}  // namespace mps::instance
