// The instances of this node: started, given their limits, and ended when nothing wants them any
// more and their last client has gone. Which ones there should be is decided in wanted.h.
//
// Threading: the supervisor's executor, one thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "app/fleet_member.h"
#include "app/wanted.h"

namespace mps::app {

class Fleet {
 public:
  // Makes an instance; starts nothing.
  using Make = std::function<std::shared_ptr<FleetMember>(const WantedInstance& wanted)>;
  using Say = std::function<void(const std::string& kind, const std::string& message)>;
  using Found = std::map<std::string, instance::FoundDaemon>;  // by instance
  using Find = std::function<Found()>;  // the daemons that run, whoever started them

  Fleet(boost::asio::io_context& io, Find find_daemons, Make make, Say say);
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Starts what is missing, sets limits, and lets what is not wanted end: never under a running
  // client. `inventory_is_sure`: nothing is missing from the devices that might be there, so a
  // daemon of none of them is left over.
  void reconcile(std::vector<WantedInstance> wanted, bool inventory_is_sure);

  // Why a device is out of service; empty: it is not. Before the first reconcile(). When the answer
  // may have changed all instances are told, also those that leave or have ended: they may be
  // wanted again.
  void ask_of_devices(std::function<std::string(const std::string& device)> why_out) {
    why_out_ = std::move(why_out);
  }
  void devices_changed();

  // Called after an instance changed.
  void on_change(std::function<void()> listener) { changed_ = std::move(listener); }

  // Those that are wanted, and those that end when their clients have gone.
  [[nodiscard]] std::vector<instance::Snapshot> snapshots() const;
  // Of those that are wanted and whose device is in service: "gpu0.shared is starting; …"; empty:
  // all there are serve. Where no device is left: why that is.
  [[nodiscard]] std::string not_serving() const;
  // Of those that are wanted, by id.
  [[nodiscard]] std::map<std::string, std::string> devices() const;
  [[nodiscard]] std::size_t size() const { return actors_.size(); }
  [[nodiscard]] bool any_daemon_runs() const;

  // Asks one instance; says why it was refused, and nothing where it was not. Unknown: false.
  struct Asked {
    bool known = true;
    std::optional<instance::VerbRefused> refused{};
  };
  Asked ask(const std::string& id, const instance::Input& verb);
  void ask_all(const instance::Input& verb);
  // As the Actor's own, also of one that ends when its clients have gone. False: there is no such
  // instance, and nothing is told.
  bool terminate(const std::string& id, std::vector<instance::ClientProcess> clients,
                 instance::Behalf behalf, instance::Actor::Terminated told);
  // As the Actor's own. False too where there is no such instance.
  [[nodiscard]] bool waits_for(const std::string& id, pid_t client) const;
  // The supervisor ends: nothing is started any more.
  void freeze() { frozen_ = true; }
  void close();

 private:
  using MemberPtr = std::shared_ptr<FleetMember>;
  // What it was made for comes with it: that of a leftover was not wanted.
  struct Member {
    MemberPtr instance;
    std::string device;
    std::string domain;
    bool unfit = false;        // its daemon cannot be taken back
    std::string device_out{};  // what it was told
  };
  using Members = std::map<std::string, Member>;

  [[nodiscard]] bool is_there(const WantedInstance& wanted) const;
  void settle(const WantedInstance& wanted, Found& found);
  bool take_back(const WantedInstance& wanted);
  void let_go(const std::string& id, const std::string& why);
  void drop_unwanted();
  void end_leftover(const std::string& id, const instance::FoundDaemon& found);
  void say_waits(const std::string& id);
  [[nodiscard]] const WantedInstance* find(const std::string& id) const;
  // Made and started; what refused in its directory until now has gone after that.
  Member begin(const WantedInstance& wanted, const std::function<void(FleetMember&)>& how);
  [[nodiscard]] std::string why_out(const std::string& device) const {
    return why_out_ ? why_out_(device) : std::string();
  }
  void tell_of_device(Member& member);
  static void put(Members& members, const std::string& id, Member member);
  void put_aside(const std::string& id, Member member);
  void changed();
  void retire_the_ended();

  boost::asio::io_context& io_;
  Find find_daemons_;
  Make make_;
  Say say_;
  std::function<void()> changed_;
  std::function<std::string(const std::string& device)> why_out_;
  std::vector<WantedInstance> wanted_;
  bool inventory_is_sure_ = false;
  Members actors_;   // wanted, by id
  Members leaving_;  // not wanted; their daemons still run
  // Ended for good. Their directories may be mounted still: each keeps the listener that refuses.
  Members retired_;
  std::set<std::string> waiting_;   // of these it was said that they wait for one that leaves
  bool leftovers_settled_ = false;  // daemons without a device were looked for, once for sure
  bool retiring_ = false;
  bool frozen_ = false;
};

}  // namespace mps::app
