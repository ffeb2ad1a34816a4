// Tells the trackers of faults (fault/keeper.h) what happens to the instances, and the desk whom to
// keep out. Nothing is decided here.
//
// Threading: the supervisor's executor.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "admission/controller.h"
#include "api/faults.h"
#include "app/recalled_clients.h"
#include "fault/keeper.h"
#include "instance/machine.h"
#include "instance/recorder.h"
#include "process/slow_work.h"

namespace mps::app {

class FaultWatch final : public api::FaultDesk, public std::enable_shared_from_this<FaultWatch> {
 public:
  FaultWatch(const boost::asio::any_io_executor& executor, fault::Book book,
             fault::KeeperSources sources);

  // `recalled`: who was there in an earlier supervisor's time.
  void watch(const fault::Place& place, const RecalledClients& recalled);
  void forget(const std::string& instance);
  // All instances there are have been watched.
  void settle();

  void heard(const std::string& instance, const instance::LogLine& line,
             const instance::ReadPosition& end);
  // See ActorSettings.
  void reading_on(const std::string& instance, bool on) { keeper_.catching_up(instance, on); }
  void happened(const std::string& instance, const instance::Emit& event);
  void let_in(const admission::LetIn& in);
  void left(const std::string& instance, const share::Process& process);
  void signal(const std::string& instance, const fault::Signal& signal);
  void xid(const fault::Keeper::OfDevice& of, unsigned number);
  void action(const fault::Keeper::OfDevice& of, fault::RecoveryAction action);
  // All devices there are, for sure.
  void devices_are(const std::set<std::string>& devices);
  bool put_back(const std::string& device, const std::string& gpu, const std::string& why);

  [[nodiscard]] std::optional<share::Refusal> kept_out(const identity::Identity& who,
                                                       const std::string& command) const;
  // Called after somebody is kept out, or no longer.
  void on_quarantine(std::function<void()> listener) { quarantine_changed_ = std::move(listener); }
  // Likewise of devices that are out of service.
  void on_devices_out(std::function<void()> listener) { devices_changed_ = std::move(listener); }

  // api::FaultDesk
  [[nodiscard]] const std::deque<fault::Incident>& incidents() const override {
    return keeper_.incidents();
  }
  [[nodiscard]] const fault::QuarantineState& quarantine() const override {
    return keeper_.quarantine();
  }
  [[nodiscard]] const fault::Keeper::Counts& counts() const override { return keeper_.counts(); }
  [[nodiscard]] const fault::DevicesOut& devices_out() const override {
    return keeper_.devices_out();
  }
  [[nodiscard]] const fault::Keeper::Times& times() const override { return keeper_.times(); }
  Result<fault::Entry> keep_out(const fault::Order& order, const std::string& by) override;
  Result<fault::Entry> lift(const std::string& id, const std::string& by) override;

  void close();

 private:
  // After the keeper was told something: its deadlines may be other ones.
  void changed();
  void tell(const std::string& instance, const fault::Signal& signal, const fault::Heard& heard);
  [[nodiscard]] fault::ClientFacts all_that_is_known(const std::string& instance,
                                                     fault::ClientFacts facts) const;
  // What is known of this pid from here on; of one more than k_known nothing is.
  void keep_in_mind(const std::string& instance, const fault::ClientFacts& facts);
  static constexpr std::size_t k_known = 4096;
  using Process = std::pair<std::string, pid_t>;  // of an instance
  void set_alarm();
  void rewrite_book();

  fault::Keeper keeper_;
  boost::asio::steady_timer alarm_;
  process::SlowWork rewriter_;                   // of the book
  std::map<Process, fault::ClientFacts> known_;  // who came; until they have gone
  // Before their instance was watched: pid and start ticks. Until all are watched; who leaves one
  // that is not there any more is nobody's business.
  std::set<std::tuple<std::string, pid_t, std::uint64_t>> left_early_;
  std::set<std::string> shut_down_;  // whose server we are ending
  std::function<void()> quarantine_changed_;
  std::function<void()> devices_changed_;
  fault::DevicesOut devices_out_;  // at the last look
  std::size_t entries_ = 0;        // of the quarantine, at the last look
  std::uint64_t next_entry_ = 1;
  bool settled_ = false;
  bool closed_ = false;
};

}  // namespace mps::app
