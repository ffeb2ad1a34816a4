#include "app/fleet.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>
#include <variant>

#include "process/proc.h"

using namespace mps;
using namespace mps::app;
using instance::State;
using Strings = std::vector<std::string>;

namespace {

// What happened to all of them, in order: "made 1 gpu0.shared", "1 start", "1 drain", …
struct Log {
  Strings lines;
  void operator()(const std::string& line) { lines.push_back(line); }
};

class FakeMember final : public FleetMember {
 public:
  FakeMember(Log& log, int number, WantedInstance wanted)
      : log_(log), name_(std::to_string(number)), wanted_(std::move(wanted)) {
    log_("made " + name_ + " " + wanted_.id);
  }
  ~FakeMember() override { log_(name_ + " gone"); }

  void start(const std::optional<instance::FoundDaemon>& found) override {
    log_(name_ + (found ? " start with " + std::to_string(found->pid) : " start"));
    if (!is_out_) become(State::ready);
  }
  void drain(const instance::FoundDaemon& found) override {
    log_(name_ + " drain " + std::to_string(found.pid));
    become(has_clients ? State::draining : State::stopped);
  }
  std::optional<instance::VerbRefused> ask(const instance::Input& verb) override {
    if (std::holds_alternative<instance::UndrainWanted>(verb)) {
      if (refuses_undrain || is_out_) return instance::VerbRefused{"its daemon is ending"};
      log_(name_ + " undrain");
      become(State::ready);
    } else if (std::holds_alternative<instance::DrainWanted>(verb)) {
      log_(name_ + " drain");
      become(has_clients ? State::draining : State::stopped);
    } else if (std::holds_alternative<instance::ShutdownWanted>(verb)) {
      log_(name_ + " shutdown");
      become(State::stopped);
    } else if (const auto* out = std::get_if<instance::DeviceOut>(&verb)) {
      log_(name_ + " out: " + out->why);
      if (state_ == State::ready) become(has_clients ? State::draining : State::stopped);
      is_out_ = true;
    } else if (std::holds_alternative<instance::DeviceBack>(verb)) {
      log_(name_ + " back");
      is_out_ = false;
      become(State::ready);
    } else if (const auto* limits = std::get_if<instance::LimitsWanted>(&verb)) {
      wanted_.limits = limits->limits;
    }
    return std::nullopt;
  }
  [[nodiscard]] bool waits_for(pid_t client) const override { return client == 900; }
  void terminate(std::vector<instance::ClientProcess> clients, instance::Behalf behalf,
                 instance::Actor::Terminated /*told*/) override {
    const std::string why = behalf == instance::Behalf::fault ? " for a fault" : "";
    for (const auto& client : clients) {
      log_(name_ + " terminate " + std::to_string(client.pid) + why);
    }
  }
  [[nodiscard]] instance::Snapshot snapshot() const override {
    instance::Snapshot shown;
    shown.id = wanted_.id;
    shown.device = wanted_.device;
    shown.domain = wanted_.domain;
    shown.state = state_;
    return shown;
  }
  [[nodiscard]] State state() const override { return state_; }
  [[nodiscard]] bool daemon_runs() const override { return state_ != State::stopped; }
  void on_change(std::function<void()> listener) override { changed_ = std::move(listener); }
  void close() override {
    log_(name_ + " close");
    changed_ = nullptr;
  }

  void become(State state) {
    state_ = state;
    if (changed_) changed_();
  }

  bool has_clients = true;
  bool refuses_undrain = false;

 private:
  Log& log_;
  std::string name_;
  WantedInstance wanted_;
  State state_ = State::stopped;
  bool is_out_ = false;
  std::function<void()> changed_;
};

WantedInstance wanted(const std::string& id, const std::string& device = "GPU-a") {
  WantedInstance made;
  made.id = id;
  made.device = device;
  made.domain = id.substr(id.find('.') + 1);
  made.percentage_from = "all.yaml:7:29";
  return made;
}

struct World {
  World()
      : fleet(
            io, [this] { return found; },
            [this](const WantedInstance& instance) {
              auto made = std::make_shared<FakeMember>(log, ++count, instance);
              made->has_clients = clients;
              members[count] = made;
              return made;
            },
            [this](const std::string& kind, const std::string& message) {
              said.push_back(kind + ": " + message);
            }) {}

  void want(const std::vector<WantedInstance>& instances) {
    fleet.reconcile(instances, true);
    turn();
  }
  void turn() {
    io.restart();
    io.poll();
  }
  FakeMember& member(int number) { return *members.at(number).lock(); }
  void end(int number) {
    member(number).become(State::stopped);
    turn();
  }
  Strings happened() { return std::exchange(log.lines, {}); }
  [[nodiscard]] Strings shown() const {
    Strings ids;
    for (const auto& snapshot : fleet.snapshots()) {
      ids.push_back(snapshot.id + " of " + snapshot.device + " " + to_string(snapshot.state) +
                    (snapshot.percentage_from.empty() ? "" : ", from " + snapshot.percentage_from));
    }
    return ids;
  }
  // A daemon that runs, whoever started it: this very process.
  static instance::FoundDaemon daemon(const std::string& device) {
    instance::FoundDaemon found;
    found.pid = ::getpid();
    found.start_ticks = process::Proc().stat(::getpid())->start_time;
    found.device = device;
    return found;
  }

  boost::asio::io_context io;
  Log log;
  int count = 0;
  bool clients = true;
  std::map<int, std::weak_ptr<FakeMember>> members;
  Fleet::Found found;
  Strings said;
  Fleet fleet;
};

const std::string k_pid = std::to_string(::getpid());

}  // namespace

TEST_CASE("what is wanted is started once") {
  World world;
  world.want({wanted("gpu0.shared"), wanted("gpu1.shared", "GPU-b")});
  world.want({wanted("gpu0.shared"), wanted("gpu1.shared", "GPU-b")});
  CHECK(world.happened() ==
        Strings{"made 1 gpu0.shared", "1 start", "made 2 gpu1.shared", "2 start"});
  CHECK(world.fleet.not_serving().empty());
  CHECK(world.fleet.size() == 2);
}

TEST_CASE("one that is not wanted leaves, is retired, and comes back as it was") {
  World world;
  world.want({wanted("gpu0.shared"), wanted("gpu0.ns-a")});
  world.happened();
  world.want({wanted("gpu0.shared")});
  CHECK(world.said == Strings{"leaving: gpu0.ns-a: no policy asks for it any more; it is ended "
                              "when its clients have gone"});
  CHECK(world.shown() ==
        Strings{"gpu0.shared of GPU-a ready, from all.yaml:7:29", "gpu0.ns-a of GPU-a draining"});
  SUBCASE("while it leaves") {}
  SUBCASE("when it has ended") {
    world.end(2);
    CHECK(world.shown() == Strings{"gpu0.shared of GPU-a ready, from all.yaml:7:29"});
  }
  world.want({wanted("gpu0.shared"), wanted("gpu0.ns-a")});
  CHECK(world.happened() == Strings{"2 drain", "2 undrain"});
  CHECK(world.fleet.size() == 2);
}

TEST_CASE("clients are terminated where they are, also where it only waits for their end") {
  World world;
  world.want({wanted("gpu0.shared"), wanted("gpu0.ns-a")});
  world.want({wanted("gpu0.shared")});
  world.happened();
  using instance::Behalf;
  CHECK(world.fleet.terminate("gpu0.shared", {{11, 7}, {12, 7}}, Behalf::others, {}));
  CHECK(world.fleet.terminate("gpu0.ns-a", {{13, 7}}, Behalf::fault, {}));
  CHECK_FALSE(world.fleet.terminate("gpu0.ns-b", {{14, 7}}, Behalf::others, {}));
  CHECK(world.happened() ==
        Strings{"1 terminate 11", "1 terminate 12", "2 terminate 13 for a fault"});
  CHECK(world.fleet.waits_for("gpu0.shared", 900));
  CHECK_FALSE(world.fleet.waits_for("gpu0.shared", 901));
  CHECK(world.fleet.waits_for("gpu0.ns-a", 900));
  CHECK_FALSE(world.fleet.waits_for("gpu0.ns-b", 900));
}

TEST_CASE("all instances of a device that is out of service are told, also before they start") {
  World world;
  std::map<std::string, std::string> out;
  world.fleet.ask_of_devices([&out](const std::string& device) { return out[device]; });
  world.want({wanted("gpu0.shared"), wanted("gpu0.ns-a"), wanted("gpu0.ns-b"),
              wanted("gpu1.shared", "GPU-b")});
  world.want({wanted("gpu0.shared"), wanted("gpu1.shared", "GPU-b")});
  world.end(3);
  world.happened();
  out["GPU-a"] = "it is out";
  for (int i = 0; i < 2; ++i) world.fleet.devices_changed();
  // One that serves, one that leaves, one that has ended; and not the other device's.
  CHECK(world.happened() == Strings{"1 out: it is out", "2 out: it is out", "3 out: it is out"});
  CHECK(world.fleet.not_serving().empty());
  world.want({wanted("gpu0.shared"), wanted("gpu0.ns-b"), wanted("gpu0.ns-c"),
              wanted("gpu1.shared", "GPU-b")});
  CHECK(world.happened() == Strings{"3 close", "made 5 gpu0.ns-b", "5 out: it is out", "5 start",
                                    "3 gone", "made 6 gpu0.ns-c", "6 out: it is out", "6 start"});
  CHECK(world.fleet.not_serving().empty());
  // One that leaves does so, and then it is the next one's turn.
  world.want({wanted("gpu0.ns-a"), wanted("gpu0.shared")});
  CHECK(world.said.back() ==
        "waiting: gpu0.ns-a: waits for the end of its predecessor, which ends "
        "when its clients have gone");
  out["GPU-a"] = "";
  out["GPU-b"] = "it is out";
  world.happened();
  world.fleet.devices_changed();
  const auto told = world.happened();
  CHECK(std::count(told.begin(), told.end(), "1 back") == 1);
  CHECK(std::count(told.begin(), told.end(), "2 back") == 1);
  CHECK(std::count(told.begin(), told.end(), "4 out: it is out") == 1);
}

TEST_CASE("where no device is left, that is why nothing serves") {
  World world;
  std::string out;
  world.fleet.ask_of_devices([&out](const std::string&) { return out; });
  world.want({wanted("gpu0.shared")});
  out = "GPU-a is out";
  world.fleet.devices_changed();
  CHECK(world.fleet.not_serving() == "gpu0.shared: GPU-a is out");
}

TEST_CASE("a shared instance whose device is not reported stays") {
  World world;
  world.want({wanted("gpu0.shared")});
  world.want({});
  CHECK(world.said.empty());
  CHECK(world.fleet.size() == 1);
}

TEST_CASE("a name that is another device's now: one after the other") {
  World world;
  world.want({wanted("gpu0.shared")});
  world.happened();
  for (int i = 0; i < 3; ++i) world.want({wanted("gpu0.shared", "GPU-b")});
  CHECK(world.said ==
        Strings{"leaving: gpu0.shared: another device has its name now; it is ended when its "
                "clients have gone",
                "waiting: gpu0.shared: waits for the end of its predecessor, which ends when its "
                "clients have gone"});
  // What leaves is not shown with where the limits of its successor come from.
  CHECK(world.shown() == Strings{"gpu0.shared of GPU-a draining"});
  CHECK(world.fleet.not_serving() == "gpu0.shared waits for the end of its predecessor");
  world.end(1);
  // It goes on refusing until the new one has started, and acts on nothing by then.
  CHECK(world.happened() ==
        Strings{"1 drain", "1 close", "made 2 gpu0.shared", "2 start", "1 gone"});
  CHECK(world.fleet.not_serving().empty());

  // And again: it was said of the one before.
  world.want({wanted("gpu0.shared", "GPU-c")});
  CHECK(world.said.size() == 4);
}

TEST_CASE("a predecessor without clients is gone at once") {
  World world;
  world.clients = false;
  world.want({wanted("gpu0.shared")});
  world.happened();
  world.want({wanted("gpu0.shared", "GPU-b")});
  CHECK(world.happened() ==
        Strings{"1 drain", "1 close", "made 2 gpu0.shared", "2 start", "1 gone"});
  CHECK(world.said.size() == 1);
}

TEST_CASE("another namespace with the same shortened name gets nothing of the other's") {
  World world;
  world.want({wanted("gpu0.ns-a")});
  world.happened();
  auto other = wanted("gpu0.ns-a");
  other.domain = "ns-another";
  SUBCASE("at once") {
    world.want({other});
    CHECK(world.said.front() ==
          "leaving: gpu0.ns-a: another namespace has its name now; it is ended when its clients "
          "have gone");
  }
  SUBCASE("when it leaves already") {
    world.want({});
    world.want({other});
  }
  CHECK(world.said.back().starts_with("waiting: gpu0.ns-a: "));
  CHECK(world.happened() == Strings{"1 drain"});
  world.end(1);
  CHECK(world.happened() == Strings{"1 close", "made 2 gpu0.ns-a", "2 start", "1 gone"});
}

TEST_CASE("one whose daemon is ending is waited for") {
  World world;
  world.want({wanted("gpu0.ns-a")});
  world.want({});
  world.member(1).refuses_undrain = true;
  world.happened();
  world.want({wanted("gpu0.ns-a")});
  CHECK(world.fleet.not_serving() == "gpu0.ns-a waits for the end of its predecessor");
  CHECK(world.happened().empty());
  world.end(1);
  CHECK(world.happened() == Strings{"1 close", "made 2 gpu0.ns-a", "2 start", "1 gone"});
}

TEST_CASE("a daemon that was left is taken up by its instance") {
  World world;
  world.found["gpu0.shared"] = World::daemon("GPU-a");
  world.want({wanted("gpu0.shared")});
  CHECK(world.happened() == Strings{"made 1 gpu0.shared", "1 start with " + k_pid});
  CHECK(world.said.empty());
}

TEST_CASE("a daemon that was left and that nothing wants is ended") {
  World world;
  world.found["gpu0.ns-a"] = World::daemon("GPU-a");
  world.want({wanted("gpu0.shared")});
  CHECK(world.happened() ==
        Strings{"made 1 gpu0.shared", "1 start", "made 2 gpu0.ns-a", "2 drain " + k_pid});
  CHECK(world.said ==
        Strings{"leftover: gpu0.ns-a: a control daemon, pid " + k_pid +
                " for GPU-a, was left running, and no device or policy asks for it: it is ended "
                "when its clients have gone"});
  world.end(2);
  CHECK(world.fleet.snapshots().size() == 1);
}

TEST_CASE("a daemon that cannot serve on is ended before the instance is made") {
  World world;
  auto& daemon = world.found["gpu0.shared"] = World::daemon("GPU-a");
  daemon.unfit = "it is unfit";
  world.want({wanted("gpu0.shared")});
  CHECK(world.happened() == Strings{"made 1 gpu0.shared", "1 drain " + k_pid});
  CHECK(world.said.front() == "leftover: gpu0.shared: a control daemon, pid " + k_pid +
                                  " for GPU-a, was left running, and it is unfit: it is ended when "
                                  "its clients have gone");
  world.found.clear();
  world.want({wanted("gpu0.shared")});
  CHECK(world.happened().empty());
  CHECK(world.fleet.not_serving() == "gpu0.shared waits for the end of its predecessor");
  world.end(1);
  CHECK(world.happened() == Strings{"1 undrain"});  // it starts a daemon that can
}

TEST_CASE("a daemon of another device is ended before the instance is made") {
  World world;
  world.found["gpu0.shared"] = World::daemon("GPU-old");
  SUBCASE("it has clients") {
    world.want({wanted("gpu0.shared")});
    CHECK(world.happened() == Strings{"made 1 gpu0.shared", "1 drain " + k_pid});
    CHECK(world.fleet.not_serving() == "gpu0.shared waits for the end of its predecessor");
    world.found.clear();
    world.end(1);
    CHECK(world.happened() == Strings{"1 close", "made 2 gpu0.shared", "2 start", "1 gone"});
  }
  SUBCASE("it ends at once") {
    world.clients = false;
    world.want({wanted("gpu0.shared")});
    CHECK(world.happened() == Strings{"made 1 gpu0.shared", "1 drain " + k_pid, "1 close",
                                      "made 2 gpu0.shared", "2 start", "1 gone"});
  }
  SUBCASE("it has ended meanwhile") {
    world.found["gpu0.shared"].start_ticks = 1;
    world.want({wanted("gpu0.shared")});
    CHECK(world.happened() == Strings{"made 1 gpu0.shared", "1 start"});
    CHECK(world.said.empty());
  }
}

TEST_CASE("a leftover in the directory of one that had ended takes its place") {
  World world;
  world.fleet.reconcile({wanted("gpu0.shared"), wanted("gpu0.ns-a")}, false);
  world.fleet.reconcile({wanted("gpu0.shared")}, false);
  world.turn();
  world.end(2);
  world.happened();
  world.found["gpu0.ns-a"] = World::daemon("GPU-a");
  world.want({wanted("gpu0.shared")});
  CHECK(world.happened() == Strings{"2 close", "made 3 gpu0.ns-a", "3 drain " + k_pid, "2 gone"});
}

TEST_CASE("the end is for those that leave, too") {
  World world;
  world.want({wanted("gpu0.shared"), wanted("gpu0.ns-a")});
  world.want({wanted("gpu0.shared")});
  world.happened();
  world.fleet.freeze();
  CHECK(world.fleet.any_daemon_runs());
  world.fleet.ask_all(instance::ShutdownWanted{});
  CHECK(world.happened() == Strings{"1 shutdown", "2 shutdown"});
  world.turn();
  CHECK_FALSE(world.fleet.any_daemon_runs());
  world.fleet.reconcile({wanted("gpu0.shared"), wanted("gpu0.ns-a")}, true);
  CHECK(world.happened().empty());
  world.fleet.close();
  CHECK(world.happened() == Strings{"1 close", "2 close"});
}

TEST_CASE("verbs reach what is wanted, and are refused by what leaves") {
  World world;
  world.want({wanted("gpu0.shared"), wanted("gpu0.ns-a")});
  world.want({wanted("gpu0.shared")});
  CHECK_FALSE(world.fleet.ask("gpu0.shared", instance::DrainWanted{}).refused);
  CHECK(world.fleet.ask("gpu0.ns-a", instance::UndrainWanted{}).refused->message ==
        "gpu0.ns-a is not wanted any more, by a policy or a device, and ends when its clients have "
        "gone");
  CHECK_FALSE(world.fleet.ask("gpu9.shared", instance::DrainWanted{}).known);
}
