#include "app/left_daemons.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace mps;
namespace fs = std::filesystem;

namespace {

// A /proc of files.
struct FakeProc {
  FakeProc() {
    std::string name = "/tmp/mps-proc-XXXXXX";
    root = ::mkdtemp(name.data());
  }
  ~FakeProc() { fs::remove_all(root); }
  FakeProc(const FakeProc&) = delete;
  FakeProc& operator=(const FakeProc&) = delete;

  void add(int pid, int parent, const std::string& command, const std::string& pipe,
           std::uint64_t start, char state = 'S', unsigned uid = 0) const {
    const auto folder = root / std::to_string(pid);
    fs::create_directories(folder / "task" / std::to_string(pid));
    std::string name = command.substr(0, command.find(' '));
    name = name.substr(name.rfind('/') + 1).substr(0, 15);
    std::string fields;
    for (int i = 0; i < 17; ++i) fields += " 0";
    write(folder / "stat", std::to_string(pid) + " (" + name + ") " + state + " " +
                               std::to_string(parent) + fields + " " + std::to_string(start) +
                               " 0");
    std::string arguments = command + " ";
    for (auto& letter : arguments) letter = letter == ' ' ? '\0' : letter;
    write(folder / "cmdline", arguments);
    write(folder / "environ", std::string("A=b\0CUDA_MPS_PIPE_DIRECTORY=", 29 - 1) + pipe + '\0');
    write(folder / "status", "Name:\t" + name + "\nUid:\t" + std::to_string(uid) + "\t" +
                                 std::to_string(uid) + "\t0\t0\n");
    write(folder / "task" / std::to_string(pid) / "children", "");
  }
  void children(int pid, const std::string& pids) const {
    write(root / std::to_string(pid) / "task" / std::to_string(pid) / "children", pids);
  }
  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  fs::path root;
};

constexpr auto k_daemon = "/opt/mps/nvidia-cuda-mps-control -f";

}  // namespace

TEST_CASE("our daemons are found by program, uid and pipe directory") {
  FakeProc fake;
  fake.add(10, 1, k_daemon, "/run/mps/gpu0.shared/pipe", 100);
  fake.add(11, 10, "/opt/mps/nvidia-cuda-mps-server", "/run/mps/gpu0.shared/pipe", 110, 'S', 1000);
  fake.children(10, "11 ");
  fake.add(12, 1, "/opt/mps/nvidia-cuda-mps-control", "/run/mps/gpu0.shared/pipe", 120);  // a UI
  fake.add(13, 1, k_daemon, "/run/other/gpu0.shared/pipe", 130);  // another supervisor's
  fake.add(14, 1, k_daemon, "/tmp/nvidia-mps", 140);
  fake.add(15, 1, k_daemon, "/run/mps/gpu1.shared/pipe", 150, 'S', 1000);  // a tenant pretends
  fake.add(16, 1, k_daemon, "/run/mps/gpu2.shared/pipe", 160, 'Z');
  fake.add(17, 1, "/usr/bin/python3 -f", "/run/mps/gpu3.shared/pipe", 170);
  fake.add(18, 1, k_daemon, "/run/mps/gpu4.shared/pipe", 180);

  const auto found = app::find_left_daemons(process::Proc(fake.root), "/run/mps", 0);
  REQUIRE(found.size() == 2);
  CHECK(found.at("gpu0.shared").pid == 10);
  CHECK(found.at("gpu0.shared").start_ticks == 100);
  CHECK(found.at("gpu0.shared").servers == std::vector<pid_t>{11});
  CHECK(found.at("gpu4.shared").pid == 18);
}

TEST_CASE("a daemon's child that has not executed its server yet is not a second daemon") {
  FakeProc fake;
  fake.add(20, 19, k_daemon, "/run/mps/gpu0.shared/pipe", 200);
  fake.add(19, 1, k_daemon, "/run/mps/gpu0.shared/pipe", 100);
  const auto found = app::find_left_daemons(process::Proc(fake.root), "/run/mps", 0);
  REQUIRE(found.size() == 1);
  CHECK(found.at("gpu0.shared").pid == 19);
}
