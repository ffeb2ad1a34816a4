#include "process/slow_work.h"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <future>
#include <optional>
#include <string>
#include <vector>

using namespace mps::process;
using namespace std::chrono_literals;

TEST_CASE("jobs are done in order, and what follows runs on the executor") {
  boost::asio::io_context io;
  SlowWork work(io.get_executor());
  std::string done;
  for (const char letter : {'a', 'b', 'c'}) {
    work.run([&done, letter] { return [&done, letter] { done += letter; }; });
  }
  CHECK(work.finish(60s));
  CHECK(done.empty());
  io.poll();
  CHECK(done == "abc");
}

TEST_CASE("closed while a job hangs, nobody waits for it, and nothing follows") {
  auto released = std::make_shared<std::promise<void>>();
  auto ended = std::make_shared<std::promise<void>>();
  std::promise<void> begun;
  bool followed = false;
  {
    boost::asio::io_context io;
    SlowWork work(io.get_executor());
    work.run([released, ended, &begun, &followed]() -> SlowWork::Then {
      begun.set_value();
      released->get_future().wait();
      ended->set_value();
      return [&followed] { followed = true; };
    });
    work.run([&followed]() -> SlowWork::Then {
      followed = true;
      return [] {};
    });
    begun.get_future().wait();
    CHECK_FALSE(work.finish(1ms));
    work.close();
    work.run([&followed]() -> SlowWork::Then {
      followed = true;
      return [] {};
    });
  }
  released->set_value();
  ended->get_future().wait();
  CHECK_FALSE(followed);
}

TEST_CASE("a job that hangs for ever does not keep a process from ending") {
  boost::asio::io_context io;
  SlowWork work(io.get_executor());
  work.run([never = std::make_shared<std::promise<void>>()]() -> SlowWork::Then {
    never->get_future().wait();
    return [] {};
  });
  CHECK_FALSE(work.finish(1ms));
}
