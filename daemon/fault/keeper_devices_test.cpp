// Devices that are out of service, over restarts.
#include <doctest/doctest.h>

#include <cstdlib>
#include <stdexcept>

#include "base/text.h"
#include "fault/keeper.h"
#include "fault/tracker_kit.h"

using namespace mps;
using namespace mps::fault;
using namespace mps::fault::test;
using Strings = std::vector<std::string>;

namespace {

const std::string k_device = "GPU-0";
const std::string k_instance = "gpu0.shared";
const std::string k_since = format_time(at(0));
const std::string k_then =
    "; nobody new is let in, who is there may finish, and then MPS is not run on it";

struct Kept {
  Kept() {
    std::string name = "/tmp/fault-devices-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
    start();
  }
  ~Kept() { std::filesystem::remove_all(path); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;

  void start(const std::string& boot_id = "boot-1") {
    keeper.reset();
    said.clear();
    auto opened = Book::open(path / "faults.log");
    REQUIRE(opened.has_value());
    CHECK(opened->damaged_lines == 0);
    KeeperSources sources;
    sources.policy_of = [](std::string_view) { return std::nullopt; };
    sources.say = [this](const auto& kind, const auto& instance, const auto& message) {
      said.push_back((instance.empty() ? "node" : instance) + " " + kind + " " + message);
    };
    sources.boot_id = boot_id;
    keeper.emplace(std::move(opened->book), std::move(sources));
    keeper->watch({k_instance, k_device, "shared"});
  }
  void xid(unsigned number, int when) {
    keeper->on_xid({k_device, k_device, {k_instance}}, number, at(when));
  }
  void action(RecoveryAction action, int when) {
    keeper->on_action({k_device, k_device, {k_instance}}, action, at(when));
  }
  [[nodiscard]] bool is_out() const {
    return keeper->devices_out().of(k_device, k_device) != nullptr;
  }
  [[nodiscard]] Strings said_of_device() const {
    Strings lines;
    for (const auto& line : said) {
      if (line.starts_with("node device_")) lines.push_back(line);
    }
    return lines;
  }

  std::filesystem::path path;
  std::optional<Keeper> keeper;
  Strings said;
};

}  // namespace

TEST_CASE("a device is out with its incident, over restarts, until the node was booted") {
  Kept kept;
  kept.xid(46, 0);
  CHECK(kept.said_of_device() ==
        Strings{"node device_out GPU-0 is out of service since " + k_since +
                " until it is reset: Xid 46 (GPU timeout), incident f1" + k_then});
  CHECK(kept.keeper->incidents().front().kind == Kind::device_trouble);
  kept.keeper->on(k_instance, GivenUp{"stopped: GPU-0 is out of service"}, at(10));
  const auto entry = kept.keeper->devices_out();
  kept.start();
  CHECK(kept.keeper->devices_out() == entry);
  CHECK(kept.said_of_device().empty());
  kept.start("");  // it cannot be read
  CHECK(kept.is_out());
  kept.start("boot-2");
  CHECK(kept.said_of_device() ==
        Strings{"node device_back GPU-0 is back in service: the node was booted since"});
  CHECK_FALSE(kept.is_out());
  kept.start("boot-1");
  CHECK_FALSE(kept.is_out());
}

TEST_CASE("what a device that is out says again opens no incident that nothing would close") {
  Kept kept;
  kept.action(RecoveryAction::gpu_reset, 0);
  kept.keeper->on(k_instance, GivenUp{"stopped"}, at(10));
  kept.start();
  kept.action(RecoveryAction::gpu_reset, 60000);
  kept.xid(46, 60001);
  CHECK(kept.keeper->incidents().size() == 1);
  kept.action(RecoveryAction::none, 90000);
  CHECK(kept.said_of_device() ==
        Strings{"node device_back GPU-0 is back in service: the driver asks for nothing any more"});
  kept.xid(31, 120000);
  CHECK(kept.keeper->incidents().size() == 2);
}

TEST_CASE("an Xid that the driver asks nothing for is nobody's trouble, and is over soon") {
  Kept kept;
  kept.action(RecoveryAction::none, 0);
  kept.xid(46, 60000);
  kept.action(RecoveryAction::none, 60010);
  CHECK_FALSE(kept.is_out());
  CHECK(kept.said_of_device().empty());
  REQUIRE(kept.keeper->deadline());
  kept.keeper->tick(*kept.keeper->deadline());
  const auto& incident = kept.keeper->incidents().back();
  CHECK(incident.kind == Kind::app_fault);
  CHECK(incident.end == End::unconfirmed);
  CHECK(incident.needs == Consequence::client_fault);
}

TEST_CASE("an Xid before, with and after a client's fault") {
  for (const int when : {-200, 0, 200}) {
    CAPTURE(when);
    Kept kept;
    kept.keeper->on(k_instance, ClientCame{client(7, -9000)}, at(-9000));
    if (when < 0) kept.xid(95, when);
    kept.keeper->on(k_instance, FatalFaultLogged{41}, at(0));
    if (when == 0) kept.xid(95, when);
    kept.keeper->on(k_instance, CulpritNamed{7}, at(1));
    if (when > 0) kept.xid(95, when);
    REQUIRE(kept.is_out());
    CHECK(kept.keeper->devices_out().entries.at(k_device).incident == 1);
    CHECK(kept.keeper->incidents().size() == 1);
    CHECK(kept.keeper->incidents().front().needs == Consequence::out_until_reset);
  }
}

TEST_CASE("put back by an operator, and the driver's late word") {
  Kept kept;
  kept.action(RecoveryAction::gpu_reset, 0);
  CHECK(kept.keeper->put_back(k_device, k_device, "by `mps-ctl restart gpu0.shared --force`"));
  CHECK_FALSE(kept.keeper->put_back(k_device, k_device, "again"));
  CHECK(kept.said_of_device().back() ==
        "node device_back GPU-0 is back in service: by `mps-ctl restart gpu0.shared --force`");
  kept.start();
  kept.action(RecoveryAction::gpu_reset, 60000);
  CHECK_FALSE(kept.is_out());
  kept.start("boot-2");
  kept.action(RecoveryAction::gpu_reset, 90000);
  CHECK(kept.is_out());
}

TEST_CASE("a driver that does not answer is waited for by the deadline") {
  Kept kept;
  kept.action(RecoveryAction::none, 0);
  kept.xid(46, 60000);
  CHECK_FALSE(kept.is_out());
  REQUIRE(kept.keeper->deadline());
  kept.keeper->tick(at(65001));
  CHECK(kept.is_out());
}
