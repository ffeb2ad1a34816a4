#include "process/mounts.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

using namespace mps::process;
namespace fs = std::filesystem;

namespace {

// The host's: /run is a tmpfs, /var/lib/x a disk's folder bound elsewhere.
const char* const k_host =
    "22 28 0:21 / /proc rw - proc proc rw\n"
    "28 1 259:1 / / rw shared:1 - ext4 /dev/root rw\n"
    "25 28 0:23 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n"
    "40 28 259:1 /srv/state /var/lib/x rw - ext4 /dev/root rw\n";

Mount on_run(const std::string& root) {
  return {"0:23", root, "/mnt"};
}

// A /proc of our own making: what a process's namespace is called, and what is mounted there.
class Node {
 public:
  Node() {
    std::string pattern = "/tmp/mps-mounts-XXXXXX";
    root = ::mkdtemp(pattern.data());
    fs::create_directories(root / "run/gpu0.shared/shares/s1/pipe");
    add("self", "mnt:[1]", "");
    fs::create_symlink("pid:[4026531836]", root / "self/ns/pid");
  }
  ~Node() { fs::remove_all(root); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // "9:9" is the filesystem that everything here is on.
  void add(const std::string& pid, const std::string& name, const std::string& mounts) const {
    fs::create_directories(root / pid / "ns");
    fs::create_symlink(name, root / pid / "ns/mnt");
    std::ofstream(root / pid / "mountinfo") << "1 0 9:9 / / rw - tmpfs tmpfs rw\n" << mounts;
  }
  [[nodiscard]] Mounted ask() const {
    return who_is_mounted(root / "run", {root / "run/gpu0.shared/shares/s1"}, root).at(0);
  }

  fs::path root;
};

}  // namespace

TEST_CASE("mounts are read, and what is none is passed over") {
  const auto mounts = parse_mounts(std::string(k_host) + "rubbish\n\n1 2 3 4 5 6\n" +
                                   "41 28 0:23 /a\\040b /c\\134d\\011e\\1 rw - tmpfs x rw\n");
  REQUIRE(mounts.size() == 5);
  CHECK(mounts[3].device == "259:1");
  CHECK(mounts[3].root == "/srv/state");
  CHECK(mounts[3].point == "/var/lib/x");
  CHECK(mounts[4].root == "/a b");
  CHECK(mounts[4].point == "/c\\d\te\\1");
}

TEST_CASE("a folder is known by what it is on") {
  const auto mounts = parse_mounts(k_host);
  const auto place = [&mounts](const char* folder) {
    const auto found = place_of(mounts, folder);
    return found ? found->device + " " + found->path : "none";
  };
  CHECK(place("/run/mps/gpu0.shared") == "0:23 /mps/gpu0.shared");
  CHECK(place("/run") == "0:23 /");
  CHECK(place("/runner/x") == "259:1 /runner/x");
  CHECK(place("/var/lib/x/y") == "259:1 /srv/state/y");
  CHECK(place("/") == "259:1 /");
  CHECK_FALSE(place_of({}, "/run"));
}

TEST_CASE("what is mounted over something hides it") {
  const auto mounts = parse_mounts(std::string(k_host) + "50 28 0:99 / /run rw - tmpfs new rw\n");
  CHECK(place_of(mounts, "/run/mps")->device == "0:99");
}

TEST_CASE("a mount shows a folder by itself, by a part, or by a parent below the base") {
  const FolderPlace base{"0:23", "/mps"};
  const FolderPlace folder{"0:23", "/mps/gpu0.shared/shares/s1"};
  for (const auto* root : {"/mps/gpu0.shared/shares/s1", "/mps/gpu0.shared/shares/s1/pipe",
                           "/mps/gpu0.shared/shares", "/mps/gpu0.shared"}) {
    CHECK_MESSAGE(shows(on_run(root), folder, base), root);
  }
  for (const auto* root :
       {"/", "/mps", "/mps/gpu0.shared/shares/s11", "/mps/gpu1.shared", "/mps/gpu0", "/other"}) {
    CHECK_MESSAGE(!shows(on_run(root), folder, base), root);
  }
  CHECK_FALSE(shows({"0:24", "/mps/gpu0.shared", "/mnt"}, folder, base));
}

TEST_CASE("any namespace's mount counts") {
  const Node node;
  CHECK(node.ask() == Mounted::no);
  node.add("100", "mnt:[2]", "");
  CHECK(node.ask() == Mounted::no);
  const auto share = (node.root / "run/gpu0.shared/shares/s1").string();
  node.add("101", "mnt:[3]", "2 1 9:9 " + share + " /opt/mps ro - tmpfs tmpfs ro\n");
  CHECK(node.ask() == Mounted::yes);
}

TEST_CASE("where processes are hidden nobody knows") {
  const Node node;
  fs::remove(node.root / "self/ns/pid");
  fs::create_symlink("pid:[4026532444]", node.root / "self/ns/pid");
  CHECK(node.ask() == Mounted::unknown);
}

TEST_CASE("a process that ends meanwhile counts for nothing") {
  const Node node;
  fs::create_directories(node.root / "102/ns");
  CHECK(node.ask() == Mounted::no);
  // A folder in the place of a file cannot be read, and is not "gone".
  fs::create_directories(node.root / "103/mountinfo");
  CHECK(node.ask() == Mounted::unknown);
}

TEST_CASE("of a folder that is gone nobody knows") {
  const Node node;
  CHECK(who_is_mounted(node.root / "run", {node.root / "run/none"}, node.root).at(0) ==
        Mounted::unknown);
}
