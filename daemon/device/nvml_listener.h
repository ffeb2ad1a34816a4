// What the listening thread does, one step after the other: opens NVML, has GPUs tell their errors,
// waits for the next one. Knows no threads and no locks; NVML is what it blocks in.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "device/error_source.h"
#include "device/nvml_events.h"

namespace mps::device {

// One second, doubled with each failure in a row, a minute at most.
std::chrono::milliseconds pause_after(unsigned failures);

// As ErrorCallbacks, but for what only changes: that is told over and over.
struct ErrorSink {
  std::function<void(const std::string& gpu, XidSeen xid)> error;
  std::function<void(const std::string& gpu, unsigned action)> action;
  std::function<void(const std::string& gpu, const std::string& why_not)> listening;
};

class NvmlListener {
 public:
  struct Orders {
    std::set<std::string> gpus{};
    bool anew = false;        // a GPU was taken out, which no event set allows
    bool look_again = false;  // at actions other than "none", and those that could not be read
  };

  NvmlListener(ErrorSettings settings, ErrorSink sink)
      : settings_(std::move(settings)), sink_(std::move(sink)) {}

  // Blocks for `settings.wait` where nothing happens. Returns how long to rest before the next
  // step: that may be cut short where something else is to be watched.
  std::chrono::milliseconds step(const Orders& orders);
  // Lets NVML go.
  void close();

 private:
  using Clock = std::chrono::steady_clock;

  bool open(const std::set<std::string>& gpus);
  std::chrono::milliseconds listen(const std::set<std::string>& gpus);
  void add_missing(const std::set<std::string>& gpus);
  void tell_listening(const std::set<std::string>& gpus);
  std::chrono::milliseconds failed(const std::set<std::string>& gpus, const std::string& why,
                                   bool say);
  // The event, and those that wait behind it; then what is to be done about the GPUs they are of.
  void take(nvml::Event event);
  void look_at_pending_actions();
  void look_at_action(const std::string& gpu, bool always);

  ErrorSettings settings_;
  ErrorSink sink_;
  nvml::Library library_;
  std::optional<nvml::EventSession> session_;
  unsigned failures_ = 0;                       // in a row, of the session
  std::map<std::string, std::string> refused_;  // by GPU: why this session does not have it
  unsigned refusals_ = 0;
  Clock::time_point ask_again_{};            // those that were refused
  std::map<std::string, unsigned> actions_;  // as last told; of those that could be read since
};

}  // namespace mps::device
