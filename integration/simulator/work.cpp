#include "work.h"

#include <algorithm>
#include <cctype>

namespace mps::sim {

Kernel kernel_named(std::string_view entry) {
  if (entry == "mps_probe_spin") return Kernel::k_spin;
  if (entry == "mps_probe_bad_address") return Kernel::k_bad_address;
  if (entry == "mps_probe_trap") return Kernel::k_trap;
  if (entry == "mps_probe_hang") return Kernel::k_hang;
  return Kernel::k_nothing;
}

std::vector<std::string> entries_of(std::string_view ptx) {
  constexpr std::string_view k_directive = ".entry";
  std::vector<std::string> names;
  for (auto at = ptx.find(k_directive); at != std::string_view::npos;
       at = ptx.find(k_directive, at)) {
    at += k_directive.size();
    while (at < ptx.size() && std::isspace(static_cast<unsigned char>(ptx[at])) != 0) ++at;
    const auto begin = at;
    while (at < ptx.size() &&
           (std::isalnum(static_cast<unsigned char>(ptx[at])) != 0 || ptx[at] == '_')) {
      ++at;
    }
    if (at > begin) names.emplace_back(ptx.substr(begin, at - begin));
  }
  return names;
}

void Work::spin(std::chrono::nanoseconds how_long, Time now) {
  if (busy_until_ == Time::max()) return;
  constexpr std::chrono::nanoseconds k_longest = std::chrono::hours(24);
  busy_until_ = std::max(busy_until_, now) + std::min(how_long, k_longest);
}

std::optional<Work::Time> Work::end() const {
  return busy_until_ == Time::max() ? std::nullopt : std::optional(busy_until_);
}

}  // namespace mps::sim
