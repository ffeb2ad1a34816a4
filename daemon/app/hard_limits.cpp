#include "app/hard_limits.h"

#include <algorithm>

namespace mps::app {

void HardLimits::go_on(Actions& actions, TimePoint now) {
  while (!line_.empty()) {
    const auto& first = line_.front();
    if (wanted_ != first.grant) {
      if (!on_their_way_.empty()) return;
      wanted_ = first.grant;
      in_force_.reset();
      actions.emplace_back(Want{wanted_});
      return;
    }
    if (in_force_ != wanted_ || now < first.not_before) return;
    actions.emplace_back(LetIn{first.peer});
    on_their_way_.push_back({first, now + settings_.arrival});
    line_.pop_front();
  }
  if (!on_their_way_.empty() || !wanted_) return;
  wanted_.reset();
  in_force_.reset();
  actions.emplace_back(Want{});
}

HardLimits::Actions HardLimits::comes(PeerId peer, pid_t pid, const share::Grant& grant,
                                      TimePoint now) {
  Actions actions;
  line_.push_back({peer, pid, grant, now + settings_.patience});
  go_on(actions, now);
  return actions;
}

HardLimits::Actions HardLimits::in_force(const std::optional<share::Grant>& grant, TimePoint now) {
  Actions actions;
  in_force_ = grant;
  go_on(actions, now);
  return actions;
}

HardLimits::Actions HardLimits::not_entered(PeerId peer, TimePoint now) {
  Actions actions;
  const auto place =
      std::find_if(on_their_way_.begin(), on_their_way_.end(),
                   [peer](const OnItsWay& way) { return way.newcomer.peer == peer; });
  if (place == on_their_way_.end()) {
    // It was given up as late, and has no place in line: else it would wait at the gate for ever.
    const bool waits = std::any_of(line_.begin(), line_.end(), [peer](const Newcomer& newcomer) {
      return newcomer.peer == peer;
    });
    if (!waits) actions.emplace_back(Refuse{peer, 0});
    return actions;
  }
  auto newcomer = place->newcomer;
  on_their_way_.erase(place);
  newcomer.not_before = now + settings_.again;
  line_.push_front(newcomer);
  go_on(actions, now);
  return actions;
}

HardLimits::Actions HardLimits::arrived(pid_t pid, TimePoint now) {
  Actions actions;
  std::erase_if(on_their_way_, [pid](const OnItsWay& way) { return way.newcomer.pid == pid; });
  go_on(actions, now);
  return actions;
}

HardLimits::Actions HardLimits::left(PeerId peer, TimePoint now) {
  Actions actions;
  std::erase_if(line_, [peer](const Newcomer& newcomer) { return newcomer.peer == peer; });
  for (auto& way : on_their_way_) {
    if (way.newcomer.peer == peer) way.until = std::min(way.until, now + settings_.settling);
  }
  go_on(actions, now);
  return actions;
}

HardLimits::Actions HardLimits::all_left(TimePoint now) {
  Actions actions;
  line_.clear();
  go_on(actions, now);
  return actions;
}

HardLimits::Actions HardLimits::time_passed(TimePoint now) {
  Actions actions;
  std::erase_if(line_, [&actions, now](const Newcomer& newcomer) {
    if (now < newcomer.until) return false;
    actions.emplace_back(Refuse{newcomer.peer, newcomer.pid});
    return true;
  });
  std::erase_if(on_their_way_, [&actions, now](const OnItsWay& way) {
    if (now < way.until) return false;
    actions.emplace_back(Late{way.newcomer.pid});
    return true;
  });
  go_on(actions, now);
  return actions;
}

std::vector<pid_t> HardLimits::on_their_way() const {
  std::vector<pid_t> pids;
  for (const auto& way : on_their_way_) pids.push_back(way.newcomer.pid);
  return pids;
}

std::optional<HardLimits::TimePoint> HardLimits::next_due() const {
  std::optional<TimePoint> due;
  const auto at = [&due](TimePoint time) { due = due ? std::min(*due, time) : time; };
  for (const auto& newcomer : line_) at(newcomer.until);
  for (const auto& way : on_their_way_) at(way.until);
  const bool its_turn = !line_.empty() && wanted_ == line_.front().grant && in_force_ == wanted_;
  if (its_turn) at(line_.front().not_before);
  return due;
}

}  // namespace mps::app
