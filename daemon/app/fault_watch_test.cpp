#include "app/fault_watch.h"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

using namespace mps;
using namespace mps::app;
using namespace std::chrono_literals;

namespace {

const fault::Place k_place{"gpu0.shared", "GPU-0", "shared"};

struct Watching {
  explicit Watching(fault::BookSettings settings = {}) {
    std::string name = "/tmp/fault-watch-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
    auto opened = fault::Book::open(path / "faults.log", settings);
    REQUIRE(opened.has_value());
    fault::KeeperSources sources;
    sources.policy_of = [](std::string_view) -> std::optional<policy::Quarantine> { return {}; };
    sources.say = [](const auto&, const auto&, const auto&) {};
    watch = std::make_shared<FaultWatch>(io.get_executor(), std::move(opened->book),
                                         std::move(sources));
  }
  ~Watching() {
    watch->close();
    std::filesystem::remove_all(path);
  }
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;

  void asked(const std::string& instance, pid_t pid, const std::string& ticks,
             const std::string& command) const {
    watch->happened(instance, {"client_asked",
                               "…",
                               {{"pid", std::to_string(pid)},
                                {"startTicks", ticks},
                                {"uid", "1000"},
                                {"command", command}},
                               {}});
  }
  // Who a fault is put down to that comes when nobody counts who has gone by now.
  [[nodiscard]] const fault::Incident& fault() const {
    const auto later = std::chrono::system_clock::now() + 1min;
    instance::LogLine line;
    line.event.kind = control::FatalFault{500};
    line.at = later;
    watch->reading_on("gpu0.shared", false);
    watch->heard("gpu0.shared", line, {"log", 100});
    REQUIRE(watch->incidents().size() == 1);
    return watch->incidents().back();
  }

  boost::asio::io_context io;
  std::filesystem::path path;
  std::shared_ptr<FaultWatch> watch;
};

RecalledClients recalled(pid_t pid, std::uint64_t start_ticks) {
  fault::ClientFacts facts;
  facts.pid = pid;
  facts.start_ticks = start_ticks;
  return {{{facts, std::nullopt}}, true};
}

}  // namespace

TEST_CASE("who left before the instance was watched") {
  struct Case {
    const char* what;
    std::string instance;
    share::Process left;
    bool settled;  // before
    bool is_there;
  };
  const std::vector<Case> cases{
      {"it", "gpu0.shared", {7, 70}, false, false},
      {"another one that had its pid", "gpu0.shared", {7, 69}, false, true},
      {"one of this pid of another instance", "gpu1.shared", {7, 70}, false, true},
      {"one of an instance that was gone, when all there were had been watched",
       "gpu0.shared",
       {7, 70},
       true,
       true},
  };
  for (const auto& one : cases) {
    CAPTURE(one.what);
    const Watching watching;
    if (one.settled) watching.watch->settle();
    watching.watch->left(one.instance, one.left);
    watching.watch->watch(k_place, recalled(7, 70));
    const auto& fault = watching.fault();
    CHECK((fault.attribution == fault::Attribution::only_client) == one.is_there);
    CHECK(fault.culprits.size() == (one.is_there ? 1 : 0));
  }
}

TEST_CASE("who left before all were watched is nobody's business afterwards") {
  const Watching watching;
  watching.watch->left("gpu0.shared", {7, 70});
  watching.watch->settle();
  watching.watch->watch(k_place, recalled(7, 70));
  CHECK(watching.fault().culprits.size() == 1);
}

TEST_CASE("what is known of a client is kept up also where no more can be kept") {
  const Watching watching;
  watching.watch->watch(k_place, {{}, true});
  watching.asked("gpu0.shared", 7, "70", "old");
  for (pid_t pid = 1; pid <= 5000; ++pid) watching.asked("gpu1.shared", pid, "1", "other");
  watching.asked("gpu0.shared", 7, "71", "new");
  // MPS's list tells its pid alone.
  watching.watch->happened("gpu0.shared", {"client_connected", "…", {{"pid", "7"}}, {}});
  const auto& fault = watching.fault();
  REQUIRE(fault.culprits.size() == 1);
  CHECK(fault.culprits.front().client.command == "new");
}

TEST_CASE("the history is written anew on another thread while it is added to") {
  Watching w({4, 1 << 20, 2000, 1 << 24});
  const auto file = w.path / "faults.log";
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  std::size_t times = 0;
  std::uintmax_t largest = 0;
  while (std::filesystem::file_size(file) >= largest) {
    largest = std::filesystem::file_size(file);
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    const auto entry = w.watch->keep_out({{"team-a", "", ""}, 1min, "too many"}, "uid 0");
    REQUIRE(entry.has_value());
    REQUIRE(w.watch->lift(fault::entry_id(entry->number), "uid 0").has_value());
    ++times;
    w.io.run_one_for(1ms);
    w.io.restart();
  }
  CHECK(times > 5);
  const auto again = fault::Book::open(file);
  REQUIRE(again.has_value());
  CHECK(again->problems.empty());
  CHECK(again->book.quarantine().entries.empty());
  CHECK(again->book.quarantine().next == w.watch->quarantine().next);
}
