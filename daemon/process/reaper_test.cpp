#include "process/reaper.h"

#include <doctest/doctest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <string>

#include "base/text.h"
#include "process/child.h"
#include "process/proc.h"
#include "process/test_support.h"

using namespace mps;
using namespace mps::process;
using namespace mps::process::testing;
namespace asio = boost::asio;

namespace {

// For the length of a test, orphans come to us.
struct Subreaper {
  Subreaper() { REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0); }
  Subreaper(const Subreaper&) = delete;
  Subreaper& operator=(const Subreaper&) = delete;
  ~Subreaper() { ::prctl(PR_SET_CHILD_SUBREAPER, 0); }
};

bool is_zombie(pid_t pid) {
  const auto stat = Proc{}.stat(pid);
  return stat && stat->state == 'Z';
}

// A process whose parent has ended; it ends itself when the writing end of `input` goes.
pid_t start_orphan(asio::io_context& io, const TempFolder& folder, int input) {
  auto spec = shell("exec 3<&0; sh -c 'read line' <&3 >/dev/null & echo $!");
  const auto file = open_file(folder / "pid", O_RDWR | O_CREAT);
  spec.stdin_fd = input;
  spec.stdout_fd = file.get();
  auto parent = Child::spawn(io.get_executor(), spec);
  REQUIRE(parent);
  REQUIRE(finish(io, parent->wait()).success());
  const auto pid = parse_number<pid_t>(trim(read_text(folder / "pid")));
  REQUIRE(pid);
  return *pid;
}

}  // namespace

TEST_CASE("only a zombie that was there before is due") {
  OrphanSweep sweep;
  CHECK(sweep.due({{10, 1}, {11, 2}}).empty());
  CHECK(sweep.due({{11, 2}, {12, 3}}) == std::vector<pid_t>{11});
  CHECK(sweep.due({{12, 4}}).empty());  // another process with that pid
  CHECK(sweep.due({}).empty());
  CHECK(sweep.due({{12, 4}}).empty());
}

TEST_CASE("nothing is started where orphans go to somebody else") {
  if (::getpid() == 1) return;
  asio::io_context io;
  CHECK_FALSE(start_reaper(io.get_executor()));
}

TEST_CASE("an orphan is reaped, a child that somebody owns is left to its owner") {
  const Subreaper subreaper;
  const TempFolder folder;
  asio::io_context io;
  REQUIRE(start_reaper(io.get_executor(), std::chrono::milliseconds(1)));
  auto owned = Child::spawn(io.get_executor(), shell("exit 7"));
  REQUIRE(owned);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const auto orphan = start_orphan(io, folder, reader.get());
  REQUIRE(Proc{}.stat(orphan)->parent == ::getpid());
  writer.reset();
  CHECK(run_until(io, [&] { return !Proc{}.stat(orphan); }));
  CHECK(run_until(io, [&] { return is_zombie(owned->pid()); }));
  CHECK(finish(io, owned->wait()) == ExitStatus{.code = 7, .signal = {}});
}

TEST_CASE("a child whose owner has gone is an orphan as well") {
  const Subreaper subreaper;
  asio::io_context io;
  REQUIRE(start_reaper(io.get_executor(), std::chrono::milliseconds(1)));
  pid_t pid = 0;
  {
    auto child = Child::spawn(io.get_executor(), shell("exit 0"));
    REQUIRE(child);
    pid = child->pid();
    REQUIRE(run_until(io, [&] { return is_zombie(pid); }));
  }
  CHECK(run_until(io, [&] { return !Proc{}.stat(pid); }));
}
