#include "instance/found_daemon.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace mps;
using namespace mps::instance;
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

  void add(int pid, const std::string& command, const std::string& children = "", char state = 'S',
           unsigned uid = 0) const {
    const auto folder = root / std::to_string(pid);
    fs::create_directories(folder / "task" / std::to_string(pid));
    std::string name = command.substr(0, command.find(' '));
    name = name.substr(name.rfind('/') + 1).substr(0, 15);
    std::string zeros;
    for (int i = 0; i < 17; ++i) zeros += " 0";
    write(folder / "stat",
          std::to_string(pid) + " (" + name + ") " + state + " 1" + zeros + " 4711 0");
    std::string arguments = command + " ";
    for (auto& letter : arguments) letter = letter == ' ' ? '\0' : letter;
    write(folder / "cmdline", arguments);
    write(folder / "environ", std::string("A=b\0CUDA_VISIBLE_DEVICES=GPU-1\0", 31));
    const auto id = std::to_string(uid);
    write(folder / "status",
          "Name:\t" + name + "\nUid:\t" + id + "\t" + id + "\t" + id + "\t" + id + "\n");
    write(folder / "task" / std::to_string(pid) / "children", children);
  }
  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  fs::path root;
};

}  // namespace

TEST_CASE("a daemon is NVIDIA's program as a daemon, ours, and alive") {
  FakeProc fake;
  fake.add(10, "/opt/mps/nvidia-cuda-mps-control -f", "11 12 ");
  fake.add(11, "/opt/mps/nvidia-cuda-mps-server", "", 'S', 1000);
  fake.add(12, "/opt/mps/nvidia-cuda-mps-control -f");  // has not executed its server yet
  fake.add(13, "/opt/mps/nvidia-cuda-mps-control");     // a front-end
  fake.add(14, "/opt/mps/nvidia-cuda-mps-control -f", "", 'S', 1000);
  fake.add(15, "/opt/mps/nvidia-cuda-mps-control -d", "", 'Z');
  fake.add(16, "/usr/bin/python3 -f");
  const process::Proc proc(fake.root);

  const auto found = identify_daemon(proc, 10, 0);
  REQUIRE(found);
  CHECK(found->pid == 10);
  CHECK(found->start_ticks == 4711);
  CHECK(found->device == "GPU-1");
  CHECK(found->servers == std::vector<pid_t>{11});
  for (const auto pid : {11, 13, 14, 15, 16, 99}) {
    CAPTURE(pid);
    CHECK_FALSE(identify_daemon(proc, pid, 0));
  }
}
