// What kernels do on a simulated device. A kernel is known by the name of its entry in the PTX: the
// probe's are mps_probe_spin, mps_probe_bad_address, mps_probe_trap and mps_probe_hang; all others
// do nothing and take no time. Pure; time is passed in.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mps::sim {

enum class Kernel : std::uint32_t { k_nothing, k_spin, k_bad_address, k_trap, k_hang };

Kernel kernel_named(std::string_view entry);
// The names of the entries of a text in PTX; none where it is none.
std::vector<std::string> entries_of(std::string_view ptx);
[[nodiscard]] constexpr bool is_fault(Kernel kernel) {
  return kernel == Kernel::k_bad_address || kernel == Kernel::k_trap;
}

// One client's kernels: each begins when the one before it has ended.
class Work {
 public:
  using Time = std::chrono::steady_clock::time_point;

  void spin(std::chrono::nanoseconds how_long, Time now);
  void hang() { busy_until_ = Time::max(); }
  void drop() { busy_until_ = {}; }
  [[nodiscard]] bool is_busy(Time now) const { return now < busy_until_; }
  // When it will have ended; nullopt where it does not.
  [[nodiscard]] std::optional<Time> end() const;

 private:
  Time busy_until_{};  // the clock's beginning, from which others can be subtracted
};

}  // namespace mps::sim
