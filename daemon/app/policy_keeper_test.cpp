#include "app/policy_keeper.h"

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace mps;
using namespace mps::app;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

std::string text(const std::string& subject, int percentage) {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"" + subject +
         "\"}\nspec: {client: {activeThreadPercentage: " + std::to_string(percentage) + "}}\n";
}

// A keeper with a directory of its own; `run_until` turns the reactor until something is true.
struct World {
  World() {
    std::string name = (fs::temp_directory_path() / "mps-keeper-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root = name;
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
        io.get_executor(), PolicyKeeper::Settings{root / "policies", root / "policies.json"},
        [this](const std::string& kind, const std::string& message) {
          said.push_back({kind, message});
        });
    bool started = false;
    boost::asio::co_spawn(io, keeper->start(std::move(devices), 60s),
                          [&started](const std::exception_ptr&) { started = true; });
    run_until([&] { return started; });
  }
  void stop() {
    if (keeper) keeper->close();
    keeper.reset();
    io.restart();
    io.poll();
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

  fs::path root;
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
  world.stop();
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
  world.stop();
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

TEST_CASE("a store is read as it was written, and another version's is refused") {
  const auto generation =
      policy::next_generation({}, {{"a.yaml", text("team-a", 25), ""}, {"b.yaml", "bad", ""}}, {});
  const auto again = from_store(to_store(*generation));
  REQUIRE(again);
  CHECK((*again)->number == 1);
  CHECK((*again)->hash == generation->hash);
  CHECK((*again)->policies.contains("team-a"));
  CHECK(from_store("{\"version\": 2, \"generation\": 1, \"files\": []}").error().message ==
        "is of another version of mps-supervisor");
  CHECK(from_store("[]").error().message == "is damaged");
}
