#include "admission/refusals.h"

#include <utility>

namespace mps::admission {

std::optional<std::size_t> Refusals::count(const std::string& what, TimePoint now) {
  if (kept_.size() >= k_most && !kept_.contains(what)) forget_old(now);
  auto [place, fresh] = kept_.try_emplace(what);
  auto& kept = place->second;
  if (!fresh && now - kept.said < k_quiet) {
    ++kept.unsaid;
    return std::nullopt;
  }
  kept.said = now;
  return std::exchange(kept.unsaid, 0);
}

// Where that is not enough, all of them: each is said once more than it need be.
void Refusals::forget_old(TimePoint now) {
  std::erase_if(kept_, [now](const auto& entry) { return now - entry.second.said >= k_quiet; });
  if (kept_.size() >= k_most) kept_.clear();
}

}  // namespace mps::admission
