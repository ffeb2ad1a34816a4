#include "device/error_inbox.h"

#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <string>

#include "device/nvml_listener.h"

using namespace mps::device;
using namespace std::chrono_literals;

TEST_CASE("errors are kept in their order, and counted where there are too many") {
  ErrorInbox inbox;
  inbox.watch({"GPU-A"});
  for (unsigned i = 0; i < ErrorInbox::k_most_errors + 3; ++i) inbox.error("GPU-A", {.number = i});
  auto content = inbox.take();
  REQUIRE(content.errors.size() == ErrorInbox::k_most_errors);
  CHECK(content.errors.front().second.number == 0);
  CHECK(content.errors.back().second.number == ErrorInbox::k_most_errors - 1);
  CHECK(content.lost == 3);
  CHECK(inbox.empty());
  inbox.error("GPU-A", {.number = 31});
  content = inbox.take();
  CHECK(content.errors.size() == 1);
  CHECK(content.lost == 0);
}

TEST_CASE("of actions the last one counts") {
  ErrorInbox inbox;
  inbox.watch({"GPU-A", "GPU-B"});
  inbox.action("GPU-A", 1);
  inbox.action("GPU-A", 2);
  inbox.action("GPU-B", 0);
  CHECK(inbox.take().actions == std::map<std::string, unsigned>{{"GPU-A", 2}, {"GPU-B", 0}});
}

TEST_CASE("whether errors are told is said once, until it changes or is watched anew") {
  using Listening = std::map<std::string, std::string>;
  ErrorInbox inbox;
  inbox.watch({"GPU-A"});
  inbox.listening("GPU-A", "");
  CHECK(inbox.take().listening == Listening{{"GPU-A", ""}});
  inbox.listening("GPU-A", "");
  CHECK(inbox.empty());
  inbox.listening("GPU-A", "nvmlInit: Driver Not Loaded");
  CHECK(inbox.take().listening == Listening{{"GPU-A", "nvmlInit: Driver Not Loaded"}});
  inbox.watch({});
  inbox.watch({"GPU-A"});
  inbox.listening("GPU-A", "nvmlInit: Driver Not Loaded");
  CHECK_FALSE(inbox.empty());
}

TEST_CASE("what is not watched is not told, also where it was heard before") {
  ErrorInbox inbox;
  inbox.watch({"GPU-A", "GPU-B"});
  for (const char* gpu : {"GPU-A", "GPU-B", "GPU-C"}) {
    inbox.error(gpu, {.number = 79});
    inbox.action(gpu, 2);
    inbox.listening(gpu, "");
  }
  inbox.watch({"GPU-B"});
  const auto content = inbox.take();
  REQUIRE(content.errors.size() == 1);
  CHECK(content.errors[0].first == "GPU-B");
  CHECK(content.actions.size() == 1);
  CHECK(content.listening.size() == 1);
}

TEST_CASE("a pause doubles up to a minute") {
  CHECK(pause_after(0) == 1s);
  CHECK(pause_after(1) == 1s);
  CHECK(pause_after(2) == 2s);
  CHECK(pause_after(6) == 32s);
  CHECK(pause_after(7) == 60s);
  CHECK(pause_after(4000000000U) == 60s);
}
