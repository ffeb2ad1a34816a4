// Who comes in next where each client gets its own limits from the server, and what the server's
// limits are to be for it (`hardLimits: on`). A server has one set of limits at a time, and a
// client keeps those of the moment when it connects. So for the first in line its limits are
// wanted; once they are in force (set and read back) it is let in, and with it those behind it that
// get the same. Who gets others has to wait until the server has these, or they have gone, or a
// deadline has passed. When nobody is in line or on the way the ceiling is in force again.
//
// Pure: the time is given, and what follows is returned.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <variant>
#include <vector>

#include "instance/snapshot.h"
#include "share/records.h"

namespace mps::app {

struct HardLimitsSettings {
  // For the limits to be in force, and for the daemon to take it: else it is refused.
  std::chrono::milliseconds patience{60000};
  // For the server to have it, once it is let in: the server may have to start for that. And once
  // it has left the gate, where it is handed over to the server or is not.
  std::chrono::milliseconds arrival{20000};
  std::chrono::milliseconds settling{3000};
  std::chrono::milliseconds again{100};  // after the daemon did not take it
};

class HardLimits {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using PeerId = std::uint64_t;

  // ---- what to do ----
  // These are what the limits are meant to be from now on; none: the ceiling.
  struct Want {
    std::optional<share::Grant> grant{};
  };
  struct LetIn {
    PeerId peer = 0;
  };
  struct Refuse {
    PeerId peer = 0;
    pid_t pid = 0;
  };
  // It was let in, and nobody knows whether the server has taken it: if it comes now it has the
  // limits of another moment.
  struct Late {
    pid_t pid = 0;
  };
  using Action = std::variant<Want, LetIn, Refuse, Late>;
  using Actions = std::vector<Action>;

  explicit HardLimits(HardLimitsSettings settings = {}) : settings_(settings) {}

  // ---- what happened ----
  [[nodiscard]] Actions comes(PeerId peer, pid_t pid, const share::Grant& grant, TimePoint now);
  // These are in force for clients that come now; none: not known, or the ceiling is.
  [[nodiscard]] Actions in_force(const std::optional<share::Grant>& grant, TimePoint now);
  // The daemon did not take it: to be tried again, for as long as there is patience. Refused where
  // it is late already.
  [[nodiscard]] Actions not_entered(PeerId peer, TimePoint now);
  // The server has it, or its process has ended.
  [[nodiscard]] Actions arrived(pid_t pid, TimePoint now);
  // It is not at the gate any more. Who was let in may be on its way to the server still.
  [[nodiscard]] Actions left(PeerId peer, TimePoint now);
  // The gate has gone, with all who are at it.
  [[nodiscard]] Actions all_left(TimePoint now);
  [[nodiscard]] Actions time_passed(TimePoint now);
  [[nodiscard]] std::optional<TimePoint> next_due() const;

  [[nodiscard]] const std::optional<share::Grant>& wanted() const { return wanted_; }
  // The processes that were let in, and of which it is not known that the server has them.
  [[nodiscard]] std::vector<pid_t> on_their_way() const;
  [[nodiscard]] std::size_t waiting() const { return line_.size(); }

 private:
  struct Newcomer {
    PeerId peer = 0;
    pid_t pid = 0;
    share::Grant grant{};
    TimePoint until{};       // then it is refused
    TimePoint not_before{};  // the daemon did not take it just now
  };
  struct OnItsWay {
    Newcomer newcomer{};
    TimePoint until{};
  };

  void go_on(Actions& actions, TimePoint now);

  HardLimitsSettings settings_;
  std::deque<Newcomer> line_;
  std::vector<OnItsWay> on_their_way_;  // let in, all with the limits that are wanted now
  std::optional<share::Grant> wanted_;
  std::optional<share::Grant> in_force_;
};

}  // namespace mps::app
