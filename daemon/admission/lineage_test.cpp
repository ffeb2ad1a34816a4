#include "admission/lineage.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

using namespace mps;
using namespace mps::admission;
namespace fs = std::filesystem;

namespace {

struct Node {
  Node() {
    std::string pattern = "/tmp/mps-lineage-XXXXXX";
    root = ::mkdtemp(pattern.data());
  }
  ~Node() {
    std::error_code ignored;
    fs::remove_all(root, ignored);
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  void process(pid_t pid, pid_t parent, std::uint64_t started) const {
    const auto folder = root / std::to_string(pid);
    fs::create_directories(folder);
    std::ofstream(folder / "stat")
        << pid << " (a b) S " << parent << " 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 " << started
        << " 0 0\n";
  }
  [[nodiscard]] std::vector<pid_t> family(const share::Process& of,
                                          const std::vector<share::Process>& processes) const {
    std::vector<pid_t> pids;
    for (const auto& one : family_of(of, processes, process::Proc(root))) pids.push_back(one.pid);
    return pids;
  }

  fs::path root;
};

}  // namespace

TEST_CASE("a process, its children and theirs; and none of its neighbours") {
  const Node node;
  node.process(1, 0, 1);
  node.process(10, 1, 100);  // the session
  node.process(20, 10, 200);
  node.process(21, 20, 210);
  node.process(22, 21, 220);
  node.process(30, 10, 300);
  const std::vector<share::Process> all{{10, 100}, {20, 200}, {21, 210}, {22, 220}, {30, 300}};
  CHECK(node.family({20, 200}, all) == std::vector<pid_t>{20, 21, 22});
  CHECK(node.family({22, 220}, all) == std::vector<pid_t>{22});
  CHECK(node.family({30, 300}, all) == std::vector<pid_t>{30});
  CHECK(node.family({10, 100}, all) == std::vector<pid_t>{10, 20, 21, 22, 30});
}

TEST_CASE("a pid that is another process's by now is none of the family") {
  const Node node;
  node.process(1, 0, 1);
  node.process(20, 1, 200);
  node.process(21, 20, 210);
  CHECK(node.family({20, 199}, {{21, 210}}).empty());   // the asking one has ended
  CHECK(node.family({20, 200}, {{21, 209}}).empty());   // the client has
  CHECK(node.family({20, 200}, {{404, 210}}).empty());  // and nobody has its pid
  node.process(20, 1, 250);                             // younger than its child: a pid used again
  CHECK(node.family({20, 250}, {{21, 210}}).empty());
}

TEST_CASE("the chain is bounded, whatever /proc says") {
  const Node node;
  node.process(50, 51, 5);
  node.process(51, 50, 5);
  CHECK(node.family({20, 5}, {{50, 5}}).empty());
  for (pid_t pid = 100; pid < 100 + k_generations; ++pid) node.process(pid, pid - 1, 5);
  CHECK(node.family({100, 5}, {{100 + k_generations - 1, 5}}).size() == 1);
  node.process(100 + k_generations, 100 + k_generations - 1, 5);
  CHECK(node.family({100, 5}, {{100 + k_generations, 5}}).empty());
}
