#include "control/channel.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "control/channel_kit.h"
#include "process/proc.h"

namespace mps::control {
namespace {

using namespace mps::control::test;

std::size_t open_descriptors() {
  std::size_t count = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    static_cast<void>(entry);
    ++count;
  }
  return count;
}

// Reaps none itself.
bool has_no_children() {
  siginfo_t ended{};
  return ::waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}

TEST_CASE("a batch can be made when its turn has come, or be none by then") {
  Bench bench(k_answering);
  std::vector<std::string> made;
  const auto make = [&made](const std::string& name, const std::vector<Command>& batch) {
    return [&made, name, batch] {
      made.push_back(name);
      return batch;
    };
  };
  const auto first = bench.start_made(make("first", {get_default_active_thread_percentage()}));
  const auto none = bench.start_made(make("none", {}));
  const auto last = bench.start_made(make("last", {get_server_status(77)}));
  REQUIRE(bench.until([&] { return !made.empty(); }));
  CHECK(made.size() == 1);  // the others wait for their turn
  REQUIRE(bench.until([&] { return last->has_value(); }));
  CHECK(made == std::vector<std::string>{"first", "none", "last"});
  CHECK(first->has_value());
  CHECK((**none == Outcome(Answered{})));
  CHECK((**last == Outcome(Answered{{Refusal{"Server 77 not found"}}})));
}

TEST_CASE("what was told in the same turn comes before a front-end's start") {
  Bench bench(k_answering);
  std::vector<std::string> order;
  std::shared_ptr<std::optional<Outcome>> outcome;
  asio::post(*bench.io, [&] {
    asio::post(*bench.io, [&order] { order.emplace_back("told"); });
    outcome = bench.start_made([&order] {
      order.emplace_back("started");
      return k_one;
    });
  });
  REQUIRE(bench.until([&] { return outcome && outcome->has_value(); }));
  CHECK(order == std::vector<std::string>{"told", "started"});
}

TEST_CASE("what gives way has its turn behind all that does not, whoever came first") {
  Bench bench("while [ ! -e \"$DIR/go\" ]; do sleep 0.01; done\n" + k_answering);
  std::vector<std::string> made;
  std::vector<std::shared_ptr<std::optional<Outcome>>> outcomes;
  const auto start = [&](const std::string& name, Channel::Turn turn) {
    const auto make = [&made, name] {
      made.push_back(name);
      return k_one;
    };
    outcomes.push_back(bench.start_made(make, turn));
  };
  // What runs is not interrupted.
  start("0 gives way", Channel::Turn::gives_way);
  REQUIRE(bench.until([&] { return made.size() == 1; }));
  start("1 gives way", Channel::Turn::gives_way);
  start("2 gives way", Channel::Turn::gives_way);
  start("3", Channel::Turn::in_order);
  start("4 gives way", Channel::Turn::gives_way);
  start("5", Channel::Turn::in_order);
  bench.io->restart();
  bench.io->poll();  // each is in the queue
  CHECK(made.size() == 1);
  std::ofstream(bench.dir / "go").flush();
  for (const auto& outcome : outcomes) {
    REQUIRE(bench.until([&] { return outcome->has_value(); }));
    CHECK((**outcome == Outcome(Answered{{Reply{{"100.0"}}}})));
  }
  CHECK(made == std::vector<std::string>{"0 gives way", "3", "5", "1 gives way", "2 gives way",
                                         "4 gives way"});
}

TEST_CASE("answers and refusals, in order") {
  Bench bench(k_answering);
  const auto outcome =
      bench.run({get_default_active_thread_percentage(), get_server_list(), get_server_status(77)});
  const Outcome expected = Answered{{Reply{{"100.0"}}, Reply{}, Refusal{"Server 77 not found"}}};
  CHECK((outcome == expected));
  CHECK(bench.channel->counters().batches == 1);
  CHECK(bench.channel->counters().not_answered == 0);
  CHECK(bench.until(has_no_children));
}

struct Case {
  const char* what;
  std::string script;
  Outcome outcome;
};

TEST_CASE("front-ends that do not answer") {
  const std::vector<Case> cases{
      {"rubbish", "echo hello",
       Unanswered{"the front-end exited with status 0 and said no answer: \"hello\""}},
      {"nothing", "exit 0", Busy{}},
      {"nothing, and status 1", "exit 1", Busy{}},
      {"turned away", "echo Cannot send command to MPS control daemon process >&2; exit 1", Busy{}},
      {"no daemon", "echo Cannot find MPS control daemon process >&2; exit 1",
       Absent{"Cannot find MPS control daemon process"}},
      {"a status of its own", "exit 3",
       Unanswered{"the front-end exited with status 3 and said nothing"}},
      {"a crash", "kill -SEGV $$",
       Unanswered{"the front-end was killed by signal 11 (SIGSEGV) and said nothing"}},
      {"cut off", "echo 100.0",
       Unanswered{"the front-end exited with status 0 and said no answer: "
                  "\"100.0\""}},
      {"a flood", "exec yes", Unanswered{"the front-end printed more than is ever an answer"}},
  };
  for (const auto& row : cases) {
    CAPTURE(row.what);
    Bench bench(row.script);
    const auto outcome = bench.run(k_one);
    CHECK((outcome == row.outcome));
    if (outcome != row.outcome) CHECK(why(outcome) == why(row.outcome));
    CHECK(bench.channel->counters().not_answered == 1);
    CHECK(bench.until(has_no_children));
  }
}

TEST_CASE("front-ends that do not end are killed at the deadline and reaped") {
  for (const std::string script : {
           "exec sleep 1000",
           "trap '' TERM INT HUP; while :; do read -r x || exec sleep 1000; done",
           "exec <&- >&- 2>&-; exec sleep 1000",
       }) {
    CAPTURE(script);
    Bench bench(script, 200ms);
    CHECK(why(bench.run(k_one)) == "no answer within 200ms");
    CHECK(bench.until(has_no_children));
  }
}

TEST_CASE("a deadline of its own") {
  Bench bench("exec sleep 1000");
  std::optional<Outcome> outcome;
  asio::co_spawn(
      *bench.io, bench.channel->run(k_one, 150ms),
      [&outcome](const std::exception_ptr&, Outcome result) { outcome = std::move(result); });
  REQUIRE(bench.until([&] { return outcome.has_value(); }));
  CHECK(why(*outcome) == "no answer within 150ms");
}

TEST_CASE("an answer counts, even if the front-end then hangs") {
  Bench bench(k_answering + "exec sleep 1000", 2s);
  CHECK((bench.run(k_one) == Outcome(Answered{{Reply{{"100.0"}}}})));
  CHECK(bench.until(has_no_children));
}

TEST_CASE("who inherited the front-end's descriptors does not keep us waiting") {
  Bench bench("sleep 1000 & echo $! >$DIR/pid\n" + k_answering);
  CHECK((bench.run(k_one) == Outcome(Answered{{Reply{{"100.0"}}}})));
  CHECK(::kill(bench.pid_in("pid"), SIGKILL) == 0);
}

TEST_CASE("a front-end that leaves without reading a long script") {
  Bench bench("exit 0");
  const std::vector<Command> batch(20000, get_default_active_thread_percentage());
  CHECK((bench.run(batch) == Outcome(Busy{})));
}

TEST_CASE("a program that is not there") {
  Bench bench;
  bench.make("/nonexistent/nvidia-cuda-mps-control", k_generous);
  CHECK(why(bench.run(k_one)) ==
        "exec /nonexistent/nvidia-cuda-mps-control: No such file or directory");
  CHECK(bench.until(has_no_children));
}

TEST_CASE("one at a time, first come, first served") {
  Bench bench("read -r first\necho \"begin $first\" >>$DIR/order\n" + std::string(R"(
echo 'Unknown command "end-of-1"'
while read -r line; do :; done
)") + "echo \"end $first\" >>$DIR/order");
  std::vector<std::shared_ptr<std::optional<Outcome>>> places;
  std::string expected;
  for (unsigned number = 1; number <= 5; ++number) {
    places.push_back(bench.start({get_server_status(static_cast<pid_t>(number))}));
    const auto text = "get_server_status " + std::to_string(number) + "\n";
    expected.append("begin ").append(text).append("end ").append(text);
  }
  for (const auto& place : places) REQUIRE(bench.until([&] { return place->has_value(); }));
  CHECK(contents(bench.dir / "order") == expected);
  CHECK(bench.channel->counters().batches == 5);
}

TEST_CASE("the queue is bounded, and the channel's end answers everybody in it") {
  Bench bench("echo $$ >$DIR/pid; exec sleep 1000");
  std::vector<std::shared_ptr<std::optional<Outcome>>> places;
  places.push_back(bench.start(k_one));
  const auto pid = bench.pid_in("pid");
  for (std::size_t count = 0; count < Channel::k_queue_limit; ++count) {
    places.push_back(bench.start(k_one));
  }
  CHECK(why(bench.run(k_one)) == "64 batches wait for their turn already");
  bench.channel.reset();
  for (const auto& place : places) {
    REQUIRE(bench.until([&] { return place->has_value(); }));
    CHECK(why(**place) == "the channel is closed");
  }
  REQUIRE(bench.until([&] { return ::kill(pid, 0) != 0; }));
  CHECK(bench.until(has_no_children));
}

TEST_CASE("a caller that is cancelled takes its front-end with it, and nobody else's") {
  Bench bench(
      "read -r first; echo $$ >>$DIR/pid\n"
      "test \"$first\" = get_default_client_priority && exec sleep 1000\n"
      "echo 'Unknown command \"end-of-1\"'");
  asio::cancellation_signal signal;
  const auto running = bench.start({get_default_client_priority()}, signal.slot());
  const auto next = bench.start({get_server_list()});
  const auto pid = bench.pid_in("pid");
  signal.emit(asio::cancellation_type::terminal);
  REQUIRE(bench.until([&] { return running->has_value(); }));
  CHECK(why(**running) == "nobody waits for the answer any more");
  REQUIRE(bench.until([&] { return next->has_value(); }));
  CHECK((**next == Outcome(Answered{{Reply{}}})));
  CHECK(::kill(pid, 0) != 0);
  CHECK(bench.until(has_no_children));
}

TEST_CASE("a caller that is cancelled in the queue never has its turn") {
  Bench bench(
      "read -r first; echo $first >>$DIR/order\n"
      "test \"$first\" = get_default_client_priority && echo $$ >$DIR/pid && exec sleep 1000\n"
      "echo 'Unknown command \"end-of-1\"'");
  asio::cancellation_signal end;
  const auto running = bench.start({get_default_client_priority()}, end.slot());
  bench.pid_in("pid");
  asio::cancellation_signal signal;
  const auto waiting = bench.start({get_server_list()}, signal.slot());
  bench.io->poll();
  signal.emit(asio::cancellation_type::terminal);
  REQUIRE(bench.until([&] { return waiting->has_value(); }));
  CHECK(why(**waiting) == "nobody waits for the answer any more");
  CHECK_FALSE(running->has_value());
  end.emit(asio::cancellation_type::terminal);
  REQUIRE(bench.until([&] { return running->has_value(); }));
  CHECK((bench.run({get_server_status(7)}) == Outcome(Answered{{Reply{}}})));
  CHECK(contents(bench.dir / "order") == "get_default_client_priority\nget_server_status 7\n");
}

TEST_CASE("a reactor that goes away kills the front-end") {
  Bench bench("echo $$ >$DIR/pid; exec sleep 1000");
  bench.start(k_one);
  const auto pid = bench.pid_in("pid");
  SUBCASE("after the channel") {
    bench.channel.reset();
  }
  SUBCASE("before the channel") {}
  bench.io.reset();
  int status = 0;
  CHECK(::waitpid(pid, &status, 0) == pid);
  CHECK(WIFSIGNALED(status));
  CHECK(has_no_children());
}

TEST_CASE("no descriptor and no process is left behind") {
  const auto before = open_descriptors();
  {
    Bench bench(k_answering, 200ms);
    for (int count = 0; count < 50; ++count) bench.run(k_one);
    Bench hanging("exec sleep 1000", 20ms);
    for (int count = 0; count < 10; ++count) hanging.run(k_one);
  }
  CHECK(open_descriptors() == before);
  CHECK(has_no_children());
}

}  // namespace
}  // namespace mps::control
