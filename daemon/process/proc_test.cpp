#include "process/proc.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <csignal>
#include <fstream>

#include "process/child.h"
#include "process/test_support.h"

using namespace mps::process;
using namespace mps::process::testing;

namespace {

const std::string k_stat =
    "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 11 22 5 6 20 0 1 0 98765 1000 200 "
    "18446744073709551615 1 1 0\n";

// A /proc of our own making.
class FakeProc {
 public:
  void write(pid_t pid, const std::string& file, std::string_view text) {
    const auto path = folder_ / "proc" / std::to_string(pid) / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  [[nodiscard]] Proc proc() const { return Proc(folder_ / "proc"); }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("stat: the name may hold blanks and brackets") {
  const auto stat = parse_stat(k_stat);
  REQUIRE(stat);
  CHECK(stat->pid == 42);
  CHECK(stat->parent == 7);
  CHECK(stat->name == "a (b) c");
  CHECK(stat->state == 'S');
  CHECK(stat->start_time == 98765);
  CHECK(stat->cpu_time == 33);
}

TEST_CASE("stat: what is cut or no stat at all is nothing") {
  for (const auto* bad :
       {"", "42", "42 (x", ")42(", "42 (x) S 7", "x (x) S 1 2 3 4 5 6 7 8 9 10 11", "42 () "}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_stat(bad));
  }
  for (std::size_t length = 0; length < k_stat.find("98765"); ++length) {
    CHECK_FALSE(parse_stat(std::string_view(k_stat).substr(0, length)));
  }
}

TEST_CASE("a fake /proc") {
  FakeProc fake;
  fake.write(42, "stat", k_stat);
  fake.write(42, "cmdline", std::string_view("nvidia-cuda-mps-control\0-f\0\0", 28));
  fake.write(42, "environ", std::string_view("A=1\0AB=2\0EMPTY=\0A=3\0LAST=x", 26));
  fake.write(42, "status", "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t0\t0\t0\t0\n");
  fake.write(42, "statm", "100 25 3 4 0 5 0\n");
  fake.write(42, "task/42/children", "43 44 ");
  fake.write(42, "task/50/children", "45 ");
  fake.write(7, "stat", "7 (parent) S 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 5 0\n");
  const auto proc = fake.proc();

  CHECK(proc.pids() == std::vector<pid_t>{7, 42});
  CHECK(proc.stat(42)->name == "a (b) c");
  CHECK(proc.command_line(42) == std::vector<std::string>{"nvidia-cuda-mps-control", "-f", ""});
  CHECK(proc.environment(42, "A") == "1");
  CHECK(proc.environment(42, "AB") == "2");
  CHECK(proc.environment(42, "EMPTY") == "");
  CHECK(proc.environment(42, "LAST") == "x");
  CHECK_FALSE(proc.environment(42, "B"));
  CHECK_FALSE(proc.environment(42, ""));
  CHECK(proc.uid(42) == 2U);
  CHECK(proc.resident_bytes(42) == 25U * static_cast<unsigned long>(::sysconf(_SC_PAGESIZE)));
  CHECK(proc.children(42) == std::vector<pid_t>{43, 44, 45});
  CHECK_MESSAGE(proc.children(7) == std::vector<pid_t>{42},
                "by the parents, without task/*/children");
  CHECK(is_running(proc, 42, 98765));
  CHECK_FALSE(is_running(proc, 42, 98764));
}

TEST_CASE("who is gone has nothing") {
  const FakeProc fake;
  const auto proc = fake.proc();
  CHECK(proc.pids().empty());
  CHECK_FALSE(proc.stat(1));
  CHECK(proc.command_line(1).empty());
  CHECK_FALSE(proc.environment(1, "PATH"));
  CHECK(proc.children(1).empty());
  CHECK_FALSE(proc.uid(1));
  CHECK_FALSE(proc.resident_bytes(1));
  CHECK_FALSE(is_running(proc, 1, 0));
}

TEST_CASE("a zombie does not run") {
  FakeProc fake;
  fake.write(9, "stat", "9 (z) Z 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 5 0\n");
  CHECK(fake.proc().stat(9)->state == 'Z');
  CHECK_FALSE(is_running(fake.proc(), 9, 5));
}

TEST_CASE("an environment longer than the limit gives no half variable") {
  FakeProc fake;
  fake.write(
      9, "environ",
      "FIRST=1" + std::string(1, '\0') + "LONG=" + std::string(std::size_t{300} * 1024, 'x'));
  CHECK(fake.proc().environment(9, "FIRST") == "1");
  CHECK_FALSE(fake.proc().environment(9, "LONG"));
}

TEST_CASE("the living /proc") {
  const Proc proc;
  const auto own = proc.stat(::getpid());
  REQUIRE(own);
  CHECK(own->pid == ::getpid());
  CHECK(own->parent == ::getppid());
  CHECK(is_running(proc, ::getpid(), own->start_time));
  CHECK(proc.uid(::getpid()) == ::geteuid());
  CHECK(proc.resident_bytes(::getpid()).value_or(0) > 0);
  CHECK_FALSE(proc.command_line(::getpid()).empty());

  boost::asio::io_context io;
  auto spec = shell("read line");
  spec.environment.emplace_back("MPS_TEST=a=b");
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const mps::UniqueFd reader(ends[0]);
  mps::UniqueFd writer(ends[1]);
  spec.stdin_fd = reader.get();
  auto child = Child::spawn(io.get_executor(), spec);
  REQUIRE(child);
  // A spawn returns in the middle of exec, when the new program's memory has no arguments yet.
  REQUIRE(run_until(io, [&] { return proc.environment(child->pid(), "MPS_TEST").has_value(); }));
  CHECK(proc.environment(child->pid(), "MPS_TEST") == "a=b");
  CHECK(proc.command_line(child->pid()) == std::vector<std::string>{"/bin/sh", "-c", "read line"});
  const auto children = proc.children(::getpid());
  CHECK(std::find(children.begin(), children.end(), child->pid()) != children.end());
  const auto pids = proc.pids();
  CHECK(std::binary_search(pids.begin(), pids.end(), child->pid()));
  writer.reset();
  CHECK(finish(io, child->wait()).code == 1);
  CHECK_FALSE(is_running(proc, child->pid(), child->start_time()));
}
