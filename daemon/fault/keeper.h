// Trackers, book, quarantine and devices out of service put together: what an instance's actor and
// the driver tell goes in, and events, the history, who is kept out and which devices are out come
// of it. Times are given; the only effects are the book's file and what is said.
//
// Threading: one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/result.h"
#include "fault/book.h"
#include "fault/incident.h"
#include "fault/out_of_service.h"
#include "fault/quarantine.h"
#include "fault/recovery_times.h"
#include "fault/tracker.h"

namespace mps::fault {

struct KeeperSources {
  PolicyOf policy_of;
  // An event: its kind, the instance that it is about (empty: the node), and a sentence.
  std::function<void(const std::string& kind, const std::string& instance,
                     const std::string& message)>
      say;
  std::string boot_id{};  // the kernel's; empty: it cannot be read
};

class Keeper {
 public:
  Keeper(Book book, KeeperSources sources);

  // An instance is there; what an earlier supervisor left open of it goes on. Again: nothing.
  void watch(const Place& place);
  // It is not there any more; its open incident is given up.
  void forget(const std::string& instance, Time now);
  // All instances are watched: what is open of others is given up.
  void settle(Time now);

  // Of an instance that is watched; of any other nothing is kept. Tell `Serving` before newcomers
  // are let in, since it may be what keeps one of them out.
  void on(const std::string& instance, const Signal& signal, Time at) {
    on(instance, signal, Heard{at, at, {}});
  }
  void on(const std::string& instance, const Signal& signal, const Heard& heard);
  [[nodiscard]] bool watches(const std::string& instance) const {
    return trackers_.contains(instance);
  }
  // See Tracker.
  void catching_up(const std::string& instance, bool on);
  // Call it by the deadline, if there is one.
  void tick(Time now);
  [[nodiscard]] std::optional<Time> deadline() const;
  // How long to wait for that from now on: bounded, since the clock may be set back meanwhile.
  [[nodiscard]] std::optional<std::chrono::milliseconds> pause(Time now) const;

  // What the driver says of a GPU, or of the MIG device of it that it names (`device`; else the
  // same), to those of the instances on it whose trouble is not known yet; and what follows for it.
  struct OfDevice {
    std::string gpu{};
    std::string device{};
    std::vector<std::string> instances{};
  };
  void on_xid(const OfDevice& of, unsigned xid, Time at);
  void on_action(const OfDevice& of, RecoveryAction action, Time at);
  [[nodiscard]] const DevicesOut& devices_out() const { return book_.devices_out(); }
  // See out_of_service.h. False: it was not out.
  bool put_back(const std::string& device, const std::string& gpu, const std::string& why);
  void devices_are(const std::set<std::string>& devices);

  [[nodiscard]] std::optional<KeptOut> kept_out(const Key& who, Time now) const;
  Result<Entry> keep_out(const Order& order, const std::string& by, Time now);
  // An Error: there is no such entry.
  Result<Entry> lift(const std::string& id, const std::string& by);

  // See Book.
  [[nodiscard]] std::shared_ptr<Rewrite> begin_rewrite() { return book_.begin_rewrite(); }
  Result<void> finish_rewrite(Rewrite& rewrite) { return book_.finish_rewrite(rewrite); }

  [[nodiscard]] const std::deque<Incident>& incidents() const { return book_.incidents(); }
  [[nodiscard]] const QuarantineState& quarantine() const { return book_.quarantine(); }
  [[nodiscard]] const Incident* open(const std::string& instance) const;

  // Of incidents since the start: by device, domain and kind (as each was in the end).
  using Counts = std::map<std::tuple<std::string, std::string, Kind>, std::uint64_t>;
  [[nodiscard]] const Counts& counts() const { return counts_; }
  // Of those that ended with serving again: from the fault until then.
  using Times = std::map<std::tuple<std::string, std::string, Kind>, RecoveryTimes>;
  [[nodiscard]] const Times& times() const { return times_; }

 private:
  void take(const std::vector<Change>& changes);
  void tell(const Change& change);
  void count(const Incident& incident);
  void count_quarantine(const Incident& incident);
  void apply(const QuarantineChanges& changes, const std::string& why_ended);
  void recorded(const Result<void>& result);
  void give_up(const Incident& incident, Time now);
  void signal_all(const OfDevice& of, const Signal& signal, Time at);
  [[nodiscard]] std::optional<Time> signs_deadline() const;           // all but the quarantine's
  [[nodiscard]] std::uint64_t incident_of(const OfDevice& of) const;  // 0: none is open
  void apply(const DeviceChanges& changes);

  Book book_;
  KeeperSources sources_;
  std::map<std::string, Tracker> trackers_;
  DeviceJudge device_judge_;
  Counts counts_;
  Times times_;
  bool said_not_recorded_ = false;
};

}  // namespace mps::fault
