#include "app/policy_keeper.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>

#include "base/file.h"

using namespace mps;
using namespace mps::app;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

std::string text(const std::string& subject, int percentage) {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"" + subject +
         "\"}\nspec: {client: {activeThreadPercentage: " + std::to_string(percentage) + "}}\n";
}

// What a reading uses, on another thread: it may go on for longer than the keeper and its World.
struct Reader {
  std::shared_future<void> hang;                       // of readings, from the next start on
  std::atomic<bool> nothing_is_gone_for_good = false;  // however long it takes
  std::atomic<int> begun = 0;
  std::atomic<int> readings = 0;

  PolicyReading read(ReadingOrder order, const std::shared_future<void>& hangs) {
    ++begun;
    if (hangs.valid()) hangs.wait();
    if (order.gone && nothing_is_gone_for_good) {
      for (auto& [name, since] : *order.gone) since = std::chrono::steady_clock::now();
    }
    auto reading = read_policies(order);
    ++readings;
    return reading;
  }
};

// A keeper with a directory of its own; `run_until` turns the reactor until something is true.
struct World {
  World() {
    std::string name = (fs::temp_directory_path() / "mps-keeper-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root = name;
    store = root / "policies.json";
    fs::create_directory(root / "policies");
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() {
    stop();
    fs::remove_all(root);
  }

  void start(std::vector<policy::DeviceFacts> devices = {}) {
    keeper = std::make_shared<PolicyKeeper>(
        io.get_executor(),
        PolicyKeeper::Settings{
            .directory = root / "policies",
            .store = store,
            .store_again = 1ms,
            .read = [to = reader, hang = reader->hang](
                        const ReadingOrder& order) { return to->read(order, hang); }},
        [this](const std::string& kind, const std::string& message) {
          said.push_back({kind, message});
        });
    bool started = false;
    boost::asio::co_spawn(io, keeper->start(std::move(devices), limit),
                          [&started](const std::exception_ptr&) { started = true; });
    run_until([&] { return started; });
  }
  void stop() {
    if (keeper) keeper->close();
    keeper.reset();
    io.restart();
    io.poll();
  }
  // What is in force is in the store: the end waits for the disk only so long.
  void stop_when_stored() {
    run_until([&] {
      const auto text = read_file(store, k_store_limit);
      const auto stored = text ? from_store(*text) : Error{text.error()};
      return stored && (*stored)->number == number();
    });
    stop();
  }
  template <typename Condition>
  void run_until(const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    io.restart();
    while (!condition()) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      io.run_one_for(1s);
      if (io.stopped()) io.restart();
    }
  }
  void write(const std::string& name, const std::string& content) {
    std::ofstream(root / ".new") << content;
    fs::rename(root / ".new", root / "policies" / name);
  }
  [[nodiscard]] std::uint64_t number() const { return keeper->reading().generation->number; }
  [[nodiscard]] bool has_said(const std::string& kind) const {
    return std::any_of(said.begin(), said.end(),
                       [&kind](const PolicyNews& news) { return news.kind == kind; });
  }
  [[nodiscard]] double percentage(const std::string& subject) const {
    const auto& policies = keeper->reading().generation->policies;
    const auto found = policies.find(subject);
    if (found == policies.end()) return 0;
    return found->second->client.active_thread_percentage->value;
  }

  // Until as many readings more have been done.
  void run_readings(int more) {
    const int until = reader->readings + more;
    run_until([&] { return reader->readings >= until; });
  }

  fs::path root;
  fs::path store;
  std::chrono::milliseconds limit = 60s;
  std::shared_ptr<Reader> reader = std::make_shared<Reader>();
  boost::asio::io_context io;
  std::vector<PolicyNews> said;
  std::shared_ptr<PolicyKeeper> keeper;
};

}  // namespace

TEST_CASE("an empty directory is a generation without policies") {
  World world;
  world.start();
  CHECK(world.number() == 1);
  REQUIRE(world.said.size() == 1);
  CHECK(world.said[0].kind == "policies_changed");
  CHECK(world.said[0].message == "generation 1 (" + world.keeper->reading().generation->hash +
                                     ") is in force: 0 policies in 0 files");
}

TEST_CASE("a new file is in force soon, a bad one changes nothing and says why") {
  World world;
  world.write("a.yaml", text("team-a", 25));
  world.start();
  CHECK(world.percentage("team-a") == 25);
  int changes = 0;
  world.keeper->on_change([&changes] { ++changes; });
  world.write("a.yaml", text("team-a", 50));
  world.run_until([&] { return world.percentage("team-a") == 50; });
  CHECK(changes == 1);
  world.write("a.yaml", text("team-a", 250));
  world.run_until([&] { return world.has_said("policy_error"); });
  CHECK(world.said.back().message ==
        "a.yaml:4:41: spec.client.activeThreadPercentage: must be above 0 and at most 100: "
        "\"250\"; what the file said last stays in force");
  CHECK(world.percentage("team-a") == 50);
  CHECK(world.number() == 2);
  CHECK(changes == 1);
  world.write("a.yaml", text("team-a", 75));
  world.run_until([&] { return world.percentage("team-a") == 75; });
  CHECK(world.has_said("policy_mended"));
}

TEST_CASE("what a bad file said last is known after a restart, and the number goes on") {
  World world;
  world.write("a.yaml", text("team-a", 25));
  world.write("b.yaml", text("team-b", 30));
  world.start();
  world.write("b.yaml", text("team-b", 35));
  world.run_until([&] { return world.number() == 2; });
  const auto hash = world.keeper->reading().generation->hash;
  world.stop_when_stored();
  world.write("b.yaml", "no policy");
  world.said.clear();
  world.start();
  CHECK(world.number() == 2);
  CHECK(world.keeper->reading().generation->hash == hash);
  CHECK(world.percentage("team-b") == 35);
  REQUIRE(world.said.size() == 1);
  CHECK(world.said[0].kind == "policy_error");
}

TEST_CASE("a file that was removed while nobody looked is gone") {
  World world;
  world.write("a.yaml", text("team-a", 25));
  world.start();
  world.stop_when_stored();
  fs::remove(world.root / "policies" / "a.yaml");
  world.start();
  CHECK(world.number() == 2);
  CHECK(world.keeper->reading().generation->policies.empty());
}

TEST_CASE("a file that is removed goes, once it has been looked for again") {
  World world;
  world.write("a.yaml", text("team-a", 25));
  world.start();
  fs::remove(world.root / "policies" / "a.yaml");
  world.run_until([&] { return world.number() == 2; });
  CHECK(world.percentage("team-a") == 0);
}

TEST_CASE("a directory that cannot be read leaves in force what was") {
  World world;
  world.write("a.yaml", text("team-a", 25));
  world.start();
  const auto directory = world.root / "policies";
  fs::rename(directory, world.root / "elsewhere");
  world.run_until([&] { return world.has_said("policies_unreadable"); });
  CHECK(world.said.back().message ==
        "cannot read the policy directory " + directory.string() +
            ": No such file or directory; the policies of generation 1 stay in force");
  CHECK(world.percentage("team-a") == 25);
  fs::rename(world.root / "elsewhere", directory);
  world.run_until([&] { return world.has_said("policies_readable"); });
  CHECK(world.number() == 1);
}

TEST_CASE("without a directory there are no policies, and that is said") {
  World world;
  fs::remove(world.root / "policies");
  world.start();
  CHECK(world.number() == 0);
  REQUIRE(world.said.size() == 1);
  CHECK(world.said[0].message == "cannot read the policy directory " +
                                     (world.root / "policies").string() +
                                     ": No such file or directory; there are no policies");
}

TEST_CASE("a store that is damaged is said, and does not keep us from starting") {
  World world;
  std::ofstream(world.root / "policies.json") << "{\"version\": 1";
  world.write("a.yaml", text("team-a", 25));
  world.start();
  CHECK(world.percentage("team-a") == 25);
  CHECK(world.said[0].message == (world.root / "policies.json").string() +
                                     ": is damaged; what bad policy files said last is not known");
}

TEST_CASE("devices that came to be known later are checked against, and nothing in force goes") {
  World world;
  world.write("a.yaml", text("team-a", 1));
  world.start();
  policy::DeviceFacts device;
  device.name = "gpu0";
  device.sm_count = 60;
  world.keeper->set_devices({device});
  world.run_until([&] { return world.has_said("policy_error"); });
  CHECK(world.said.back().message ==
        "a.yaml:4:41: spec.client.activeThreadPercentage: is less than one of the 60 SMs of gpu0; "
        "the least is 1.7 %: \"1\"; what the file said last stays in force");
  CHECK(world.percentage("team-a") == 1);
}

TEST_CASE("a file that is moved away and written anew never left, also for the next supervisor") {
  World world;
  world.reader->nothing_is_gone_for_good = true;
  world.write("a.yaml", text("team-a", 25));
  world.write("b.yaml", text("team-b", 30));
  world.start();
  fs::rename(world.root / "policies" / "a.yaml", world.root / "policies" / "a.yaml~");
  world.run_readings(1);
  // Others do not wait for it, and do not end the wait.
  world.write("b.yaml", text("team-b", 35));
  world.run_until([&] { return world.percentage("team-b") == 35; });
  CHECK(world.percentage("team-a") == 25);
  world.write("a.yaml", text("team-a", 25));
  world.run_readings(1);
  world.stop_when_stored();
  world.reader->nothing_is_gone_for_good = false;
  world.write("a.yaml", text("team-a", 250));
  world.start();
  CHECK(world.percentage("team-a") == 25);
  CHECK(world.percentage("team-b") == 35);
  CHECK(world.number() == 2);
}

TEST_CASE("a file that is renamed is never missed, and never an error") {
  World world;
  world.write("a.yaml", text("team-a", 25));
  world.start();
  world.keeper->on_change([&world] { CHECK(world.percentage("team-a") == 25); });
  fs::rename(world.root / "policies" / "a.yaml", world.root / "policies" / "z.yaml");
  world.run_until([&] { return world.number() == 2; });
  CHECK(world.keeper->reading().generation->files[0].name == "z.yaml");
  CHECK_FALSE(world.has_said("policy_error"));
}

TEST_CASE("a store that cannot be written is said once, and written when it can be") {
  World world;
  world.store = world.root / "state" / "policies.json";
  world.write("a.yaml", text("team-a", 25));
  world.start();
  world.run_until([&] { return world.has_said("policies_not_stored"); });
  CHECK(world.said.back().message ==
        world.store.string() +
            ".new: No such file or directory; after a restart, what bad policy files said last is "
            "not known");
  const auto count = world.said.size();
  fs::create_directory(world.root / "state");
  world.run_until([&] { return fs::exists(world.store); });
  CHECK(world.said.size() == count);
  world.stop_when_stored();
  world.write("a.yaml", "bad");
  world.start();
  CHECK(world.percentage("team-a") == 25);
}

TEST_CASE("a directory that hangs holds up nobody, and that is said each time") {
  World world;
  world.write("a.yaml", text("team-a", 25));
  world.start();
  world.stop_when_stored();
  world.said.clear();

  std::promise<void> release;
  world.reader->hang = release.get_future().share();
  const int before = world.reader->begun;
  world.limit = 1ms;
  world.start();
  const auto slow = "reading " + (world.root / "policies").string() + " takes longer than 1ms";
  REQUIRE(world.said.size() == 1);
  CHECK(world.said[0].kind == "policies_unreadable");
  CHECK(world.said[0].message == slow + "; what was known before is in force until it is read");
  CHECK(world.keeper->reading().error == slow);
  CHECK(world.percentage("team-a") == 25);
  SUBCASE("until it does not any more") {
    world.write("a.yaml", text("team-a", 50));
    release.set_value();
    world.run_until([&] { return world.percentage("team-a") == 50; });
    world.run_until([&] { return world.has_said("policies_readable"); });
    CHECK(world.keeper->reading().error.empty());
  }
  SUBCASE("for ever") {
    // One that has not begun when the keeper ends never does.
    world.run_until([&] { return world.reader->begun > before; });
    world.stop();
    release.set_value();
  }
}
