// Carries out what hard_limits.h decides: asks the instance for the limits of who comes in next,
// and looks whether they are in force and whether the server has it.
//
// Threading: the supervisor's executor. Made by make_shared. What is given is not called after
// close().
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "admission/refusals.h"
#include "app/hard_limits.h"
#include "instance/actor.h"

namespace mps::app {

class Newcomers final : public std::enable_shared_from_this<Newcomers> {
 public:
  struct Gate {
    std::function<void(std::uint64_t peer)> let_in;
    std::function<void(std::uint64_t peer)> refuse;  // its time is over
  };
  using Say = std::function<void(const std::string& kind, const std::string& message)>;

  Newcomers(const boost::asio::any_io_executor& executor, HardLimitsSettings settings,
            const std::shared_ptr<instance::Actor>& actor, Gate gate, Say say);

  void comes(std::uint64_t peer, pid_t pid, const share::Grant& grant);
  void not_entered(std::uint64_t peer);
  void left(std::uint64_t peer);
  void all_left();
  // Something changed at the instance.
  void look();
  void close();

 private:
  void carry_out(const HardLimits::Actions& actions);
  void carry_out(const HardLimits::Want& want);
  void carry_out(const HardLimits::LetIn& in);
  void carry_out(const HardLimits::Refuse& refuse);
  void carry_out(const HardLimits::Late& late);
  void look_soon();
  void set_alarm();

  boost::asio::any_io_executor executor_;
  HardLimits line_;
  std::weak_ptr<instance::Actor> actor_;  // its own listener holds us
  Gate gate_;
  Say say_;
  boost::asio::steady_timer alarm_;
  std::optional<HardLimits::TimePoint> alarm_at_{};
  admission::Refusals late_;
  bool look_soon_ = false;
  bool closed_ = false;
};

}  // namespace mps::app
