// The instances of this node: started, given their limits, and ended when nothing wants them any
// more and their last client has gone. Which ones there should be is decided in wanted.h.
//
// Threading: the supervisor's executor, one thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/wanted.h"
#include "instance/actor.h"

namespace mps::app {

class Fleet {
 public:
  // Makes the actor of an instance; starts nothing.
  using MakeActor = std::function<std::shared_ptr<instance::Actor>(const WantedInstance& wanted)>;
  using Say = std::function<void(const std::string& kind, const std::string& message)>;

  Fleet(boost::asio::io_context& io, std::filesystem::path run_dir, MakeActor make_actor, Say say);
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Starts what is missing, sets limits, and lets what is not wanted end: never under a running
  // client. `inventory_is_sure`: nothing is missing from the devices that might be there, so a
  // daemon of none of them is left over.
  void reconcile(std::vector<WantedInstance> wanted, bool inventory_is_sure);

  // Called after an instance changed.
  void on_change(std::function<void()> listener) { changed_ = std::move(listener); }

  // Those that are wanted, and those that end when their clients have gone.
  [[nodiscard]] std::vector<instance::Snapshot> snapshots() const;
  // Of those that are wanted: "gpu0.shared is starting; …"; empty: all serve.
  [[nodiscard]] std::string not_serving() const;
  [[nodiscard]] std::size_t size() const { return actors_.size(); }
  [[nodiscard]] bool any_daemon_runs() const;

  // Asks one instance; says why it was refused, and nothing where it was not. Unknown: false.
  struct Asked {
    bool known = true;
    std::optional<instance::VerbRefused> refused{};
  };
  Asked ask(const std::string& id, const instance::Input& verb);
  void ask_all(const instance::Input& verb);
  // The supervisor ends: nothing is started any more.
  void freeze() { frozen_ = true; }
  void close();

 private:
  using ActorPtr = std::shared_ptr<instance::Actor>;
  using Found = std::map<std::string, instance::FoundDaemon>;

  void settle(const WantedInstance& wanted, Found& found);
  bool take_back(const WantedInstance& wanted);
  void let_go(const std::string& id, const std::string& why);
  void drop_unwanted();
  void end_leftover(const std::string& id, const instance::FoundDaemon& found);
  [[nodiscard]] const WantedInstance* find(const std::string& id) const;
  ActorPtr make(const WantedInstance& wanted);
  void changed();
  void retire_the_ended();

  boost::asio::io_context& io_;
  std::filesystem::path run_dir_;
  MakeActor make_actor_;
  Say say_;
  std::function<void()> changed_;
  std::vector<WantedInstance> wanted_;
  bool inventory_is_sure_ = false;
  std::map<std::string, ActorPtr> actors_;   // wanted, by id
  std::map<std::string, ActorPtr> leaving_;  // not wanted; their daemons still run
  // Ended for good. Their directories may be mounted still: each keeps the listener that refuses.
  std::map<std::string, ActorPtr> retired_;
  bool leftovers_settled_ = false;  // daemons without a device were looked for, once for sure
  bool retiring_ = false;
  bool frozen_ = false;
};

}  // namespace mps::app
