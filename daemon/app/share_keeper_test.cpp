// With a desk and a gate's entrance of our own; the gate's program itself never starts.
#include "app/share_keeper.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <mutex>

using namespace mps;
using namespace mps::app;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using process::Mounted;

namespace {

// What the keeper asks on its other thread, which may be at it still when the keeper has gone.
struct Node {
  std::vector<Mounted> answer(const std::vector<fs::path>& folders) {
    const std::scoped_lock guard(lock);
    std::vector<Mounted> answers;
    for (const auto& one : folders) {
      looked_at.push_back(one.filename().string());
      answers.push_back(one.extension() == ".gone" ? second : first);
    }
    return answers;
  }

  std::mutex lock;
  Mounted first = Mounted::yes, second = Mounted::no;
  std::vector<std::string> looked_at;
};

struct Kit {
  Kit() {
    std::string pattern = "/tmp/mps-shares-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    fs::create_directories(folder / "state");
    open();
  }
  ~Kit() {
    close();
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }

  void open() {
    admission::ControllerSettings desk_settings;
    desk_settings.checkpoint = folder / "state/admissions.log";
    auto opened = admission::Controller::open(
        io.get_executor(), desk_settings,
        {std::make_shared<identity::Resolver>(identity::ResolverSettings{}),
         [this] { return generation; }, say()});
    REQUIRE(opened.has_value());
    desk = *opened;
    server = std::make_shared<admission::AdmissionServer>(io.get_executor(), *desk);
    REQUIRE(server->start().has_value());
    ShareKeeper::Settings settings;
    settings.look_every = 1ms;
    settings.most = 3;
    settings.mounted = [node = node](const std::vector<fs::path>& folders) {
      return node->answer(folders);
    };
    keeper = std::make_shared<ShareKeeper>(io.get_executor(), std::move(settings), desk, say());
    const instance::Layout layout(folder, "gpu0.shared");
    GatedEntranceSettings entrance{
        {"gpu0.shared", "shared", {.name = "gpu0", .uuid = "GPU-0"}}, layout, "/nonexistent", {}};
    gate = std::make_shared<GatedEntrance>(io.get_executor(), entrance, desk, server, say());
    desk->on_share_change([this] { keeper->look_soon(); });
    keeper->attach(gate);
    gate->start();
  }
  void close() {
    keeper->close();
    gate->leave();
    server->stop();
    desk->close();
    io.restart();
    io.poll();
  }
  GatedEntrance::Say say() {
    return [this](const std::string& kind, const std::string&, const std::string& message) {
      said.push_back(kind + ": " + message);
    };
  }
  void mounted(Mounted now, Mounted then) {
    const std::scoped_lock guard(node->lock);
    node->first = now;
    node->second = then;
    node->looked_at.clear();
  }
  std::size_t looks(const std::string& name) {
    const std::scoped_lock guard(node->lock);
    const auto& all = node->looked_at;
    return static_cast<std::size_t>(std::count(all.begin(), all.end(), name));
  }
  void until(const std::function<bool()>& what) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (!what()) {
      REQUIRE(std::chrono::steady_clock::now() < limit);
      io.restart();
      io.run_one_for(20ms);
    }
  }
  [[nodiscard]] fs::path share(const std::string& id) const {
    return folder / "gpu0.shared/shares" / id;
  }
  [[nodiscard]] bool was_said(const std::string& what) const {
    return std::count(said.begin(), said.end(), what) == 1;
  }
  Result<share::Share> create() { return keeper->create({"gpu0.shared", "", {25, 1024}, {}}); }

  boost::asio::io_context io;
  fs::path folder;
  std::vector<std::string> said;
  std::shared_ptr<const policy::Generation> generation = std::make_shared<policy::Generation>();
  std::shared_ptr<admission::Controller> desk;
  std::shared_ptr<admission::AdmissionServer> server;
  std::shared_ptr<GatedEntrance> gate;
  std::shared_ptr<ShareKeeper> keeper;
  std::shared_ptr<Node> node = std::make_shared<Node>();
};

}  // namespace

TEST_CASE("a share's sockets are there before anybody hears of it") {
  Kit kit;
  const auto made = kit.create();
  REQUIRE(made.has_value());
  CHECK(made->id == "s1");
  CHECK(fs::is_socket(kit.share("s1") / "pipe/control"));
  CHECK(fs::is_socket(kit.share("s1") / "admission.sock"));
}

TEST_CASE("the folder of a share that has ended stays while somebody has it mounted") {
  Kit kit;
  REQUIRE(kit.create().has_value());
  kit.desk->close_share(1);
  kit.until([&] { return kit.looks("s1") >= 2; });
  CHECK(fs::is_socket(kit.share("s1") / "pipe/control"));
  // Somebody mounted it in the last moment.
  kit.mounted(Mounted::no, Mounted::yes);
  kit.until([&] { return kit.looks("s1.gone") >= 2; });
  kit.mounted(Mounted::unknown, Mounted::no);
  kit.until([&] { return kit.looks("s1") >= 2; });
  CHECK(fs::is_socket(kit.share("s1") / "pipe/control"));
  CHECK(kit.looks("s1.gone") == 0);
  kit.mounted(Mounted::no, Mounted::no);
  kit.until([&] { return !fs::exists(kit.share("s1")); });
  kit.until([&] {
    return kit.was_said(
        "share_removed: share s1: nobody has its folder mounted any more, and it was removed");
  });
  CHECK_FALSE(fs::exists(kit.folder / "gpu0.shared/private/s1.gone"));
  CHECK_FALSE(fs::exists(kit.folder / "gpu0.shared/private/s1.socket"));
  CHECK_FALSE(fs::exists(kit.folder / "gpu0.shared/private/s1.admission"));
}

TEST_CASE("what an earlier supervisor left is found again") {
  Kit kit;
  REQUIRE(kit.create().has_value());
  REQUIRE(kit.create().has_value());
  kit.desk->close_share(2);
  kit.until([&] { return kit.looks("s2") >= 1; });
  kit.close();
  // As if it had ended between its two looks.
  fs::rename(kit.share("s2"), kit.folder / "gpu0.shared/private/s2.gone");
  kit.open();
  CHECK(fs::is_socket(kit.share("s2") / "admission.sock"));
  CHECK(fs::is_socket(kit.share("s1") / "admission.sock"));
  kit.mounted(Mounted::no, Mounted::no);
  kit.until([&] { return !fs::exists(kit.share("s2")); });
  CHECK(fs::exists(kit.share("s1")));
}

TEST_CASE("a share is there again after the machine was, though the run directory is empty") {
  Kit kit;
  REQUIRE(kit.create().has_value());
  kit.close();
  fs::remove_all(kit.folder / "gpu0.shared");
  kit.open();
  CHECK(fs::is_directory(kit.share("s1") / "pipe"));
  CHECK(fs::is_socket(kit.share("s1") / "admission.sock"));
  CHECK(kit.said == std::vector<std::string>{"share_created: share s1 of gpu0.shared: 25 % of the "
                                             "SMs, 1Gi for each client, for whoever has it "
                                             "mounted"});
}

TEST_CASE("no id is used twice, even if its record was lost") {
  Kit kit;
  fs::create_directories(kit.share("s41"));
  fs::create_directories(kit.share("something"));
  const auto made = kit.create();
  REQUIRE(made.has_value());
  CHECK(made->id == "s42");
}

TEST_CASE("there are not too many, and each needs a gate") {
  Kit kit;
  for (int i = 0; i < 3; ++i) REQUIRE(kit.create().has_value());
  CHECK(kit.create().error().message ==
        "gpu0.shared has 3 shares, which is the most that it may have");
  CHECK(kit.keeper->create({"gpu1.shared", "", {}, {}}).error().message ==
        "gpu1.shared has no gate");
}

TEST_CASE("a share whose folder cannot be made is not there") {
  Kit kit;
  fs::create_directories(kit.folder / "gpu0.shared");
  fs::create_symlink("/nonexistent", kit.folder / "gpu0.shared/shares");
  const auto made = kit.create();
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().message == "share s1 cannot be made: cannot use the directory " +
                                    (kit.folder / "gpu0.shared/shares").string() +
                                    ": Not a directory");
  CHECK(kit.desk->shares().empty());
}
