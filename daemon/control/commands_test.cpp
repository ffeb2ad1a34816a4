#include "control/commands.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <utility>

namespace mps::control {
namespace {

const std::string k_550_denied =
    "Insufficient privileges for UID 0. Control deamon settings can only be modified by the user "
    "started it or by the root user.";

std::optional<Answer> one(std::string_view lines) {
  const std::string output = std::string(lines) + "Unknown command \"end-of-1\"\n";
  const auto answers = parse_answers({get_server_list()}, output);
  if (!answers) return std::nullopt;
  REQUIRE(answers->size() == 1);
  return answers->front();
}

Answer reply(std::vector<std::string> lines) {
  return Reply{std::move(lines)};
}

TEST_CASE("commands are written in the only form that no version misreads") {
  const std::pair<Command, std::string> rows[] = {
      {set_default_active_thread_percentage(50), "set_default_active_thread_percentage 50"},
      {set_default_active_thread_percentage(12.5), "set_default_active_thread_percentage 12.5"},
      {set_default_active_thread_percentage(33.3), "set_default_active_thread_percentage 33.3"},
      {set_default_active_thread_percentage(33.39), "set_default_active_thread_percentage 33.3"},
      {set_default_active_thread_percentage(100), "set_default_active_thread_percentage 100"},
      {set_default_active_thread_percentage(250), "set_default_active_thread_percentage 100"},
      {set_default_active_thread_percentage(0.1), "set_default_active_thread_percentage 0.1"},
      {set_default_active_thread_percentage(0.04), "set_default_active_thread_percentage 0.1"},
      {set_default_active_thread_percentage(-5), "set_default_active_thread_percentage 0.1"},
      {set_default_active_thread_percentage(std::nan("")),
       "set_default_active_thread_percentage 0.1"},
      {set_default_active_thread_percentage(std::numeric_limits<double>::infinity()),
       "set_default_active_thread_percentage 100"},
      {get_default_active_thread_percentage(), "get_default_active_thread_percentage"},
      {set_default_device_pinned_mem_limit(0, 1536), "set_default_device_pinned_mem_limit 0 1536M"},
      {set_default_device_pinned_mem_limit(0, 0), "set_default_device_pinned_mem_limit 0 0M"},
      {get_default_device_pinned_mem_limit(0), "get_default_device_pinned_mem_limit 0"},
      {set_default_client_priority(1), "set_default_client_priority 1"},
      {get_default_client_priority(), "get_default_client_priority"},
      {get_server_list(), "get_server_list"},
      {get_server_status(77), "get_server_status 77"},
      {get_client_list(77), "get_client_list 77"},
      {set_active_thread_percentage(77, 25), "set_active_thread_percentage 77 25"},
      {get_active_thread_percentage(77), "get_active_thread_percentage 77"},
      {set_device_pinned_mem_limit(77, 0, 512), "set_device_pinned_mem_limit 77 0 512M"},
      {get_device_pinned_mem_limit(77, 0), "get_device_pinned_mem_limit 77 0"},
      {terminate_client(77, 88), "terminate_client 77 88"},
      {shutdown_server(77, false), "shutdown_server 77"},
      {shutdown_server(77, true), "shutdown_server 77 -f"},
      {quit(std::nullopt), "quit"},
      {quit(5), "quit -t 5"},
  };
  for (const auto& [command, text] : rows) CHECK(command.text == text);
}

TEST_CASE("a script puts a marker behind each command") {
  CHECK(script({}).empty());
  CHECK(script({get_server_list(), get_client_list(5)}) ==
        "get_server_list\nend-of-1\nget_client_list 5\nend-of-2\n");
}

// What 550 printed for this batch.
TEST_CASE("a whole batch, as the daemon answers it") {
  const std::vector<Command> batch{get_default_active_thread_percentage(),
                                   set_default_active_thread_percentage(12.5),
                                   set_default_device_pinned_mem_limit(0, 512),
                                   get_default_device_pinned_mem_limit(0),
                                   set_default_client_priority(2),
                                   get_server_status(77),
                                   Command{"ps"},  // we do not ask, but that is what it says
                                   terminate_client(77, 88)};
  const auto answers = parse_answers(batch,
                                     "100.0\n"
                                     "Unknown command \"end-of-1\"\n"
                                     "12.5\n"
                                     "Unknown command \"end-of-2\"\n"
                                     "Unknown command \"end-of-3\"\n"
                                     "512M\n"
                                     "Unknown command \"end-of-4\"\n"
                                     "Invalid priority value - must be 0 or 1!\n"
                                     "Unknown command \"end-of-5\"\n"
                                     "Server 77 not found\n"
                                     "Unknown command \"end-of-6\"\n"
                                     "Server not found\n"
                                     "Unknown command \"end-of-7\"\n"
                                     "Server 77 not found\n"
                                     "Server 77 not found!\n"
                                     "1\n"
                                     "Unknown command \"end-of-8\"\n");
  REQUIRE(answers);
  const std::vector<Answer> expected{Reply{{"100.0"}},
                                     Reply{{"12.5"}},
                                     Reply{},
                                     Reply{{"512M"}},
                                     Refusal{"Invalid priority value - must be 0 or 1!"},
                                     Refusal{"Server 77 not found"},
                                     Refusal{"Server not found"},
                                     Refusal{"Server 77 not found"}};
  CHECK(*answers == expected);
}

TEST_CASE("the daemon's ways to say no") {
  const std::string rows[] = {
      "Unknown command \"get_server_status\"",
      "Unknown command \"\"",
      k_550_denied,
      "Insufficient privileges for UID 1235",
      "Insufficient privileges for UID 5. Only the root user may shutdown another user's server.",
      "Not enough privilege to execute quit command",
      "Server 77 not found",
      "Server 77 not found!",
      "Server not found",
      "Invalid priority value - must be 0 or 1!",
      "Invalid process 88!",
      "A user id (UID) is required to start a new server",
      "A server PID is required",
      "The MPS control daemon is shutting down",
      "Failed to start server using uid 5. Operation not permitted",
  };
  for (const auto& words : rows) {
    CAPTURE(words);
    CHECK(one(words + "\n") == Answer(Refusal{words}));
  }
}

TEST_CASE("what is no refusal") {
  for (const std::string line : {"100.0", "1G", "0", "4242", "ACTIVE", "Server", "server not found",
                                 "the Unknown command \"x\"", ""}) {
    CAPTURE(line);
    CHECK(one(line + "\n") == reply({line}));
  }
}

TEST_CASE("a refusal's words are safe to print") {
  CHECK(one("Unknown command \"\x1b[31m\"\n") == Answer(Refusal{"Unknown command \"\\x1b[31m\""}));
}

TEST_CASE("a batch that was not answered in order was not answered") {
  const std::vector<Command> two{get_server_list(), get_default_client_priority()};
  const std::string rows[] = {
      "",
      "\n",
      "0\n",
      "Cannot send command to MPS control daemon process\n",
      "Unknown command \"end-of-1\"\n",                                // cut off
      "Unknown command \"end-of-1\"\n0\nUnknown command \"end-of-2",   // within the last marker
      "Unknown command \"end-of-2\"\n",                                // the first is missing
      "Unknown command \"end-of-2\"\nUnknown command \"end-of-1\"\n",  // out of turn
      "Unknown command \"end-of-1\"\nUnknown command \"end-of-1\"\nUnknown command \"end-of-2\"\n",
      "Unknown command \"end-of-1\"\nUnknown command \"end-of-2\"\nUnknown command \"end-of-3\"\n",
      "Unknown command \"end-of-1\"\nUnknown command \"end-of-2\"\nmore\n",
      "Unknown command \"end-of-01\"\nUnknown command \"end-of-1\"\nUnknown command \"end-of-2\"\n",
      "100.0Unknown command \"end-of-1\"\nUnknown command \"end-of-2\"\n",
  };
  for (const auto& output : rows) {
    CAPTURE(output);
    CHECK_FALSE(parse_answers(two, output));
  }
}

TEST_CASE("an answer that forges a marker makes a batch not answered, never misread") {
  const std::vector<Command> batch{get_server_list(), get_default_client_priority()};
  const std::string forged = "5\nUnknown command \"end-of-1\"\n1\nUnknown command \"end-of-2\"\n";
  CHECK(parse_answers(batch, forged));
  CHECK_FALSE(parse_answers(
      batch, forged + "Unknown command \"end-of-1\"\n0\nUnknown command \"end-of-2\"\n"));
}

TEST_CASE("an empty batch has an empty answer") {
  CHECK(parse_answers({}, "") == std::vector<Answer>{});
  CHECK_FALSE(parse_answers({}, "x\n"));
}

TEST_CASE("what a daemon can do is what it does not call unknown") {
  REQUIRE(capability_probe().size() == 3);
  CHECK(script(capability_probe()) ==
        "get_server_status 1\nend-of-1\ndevice_query\nend-of-2\nlspart\nend-of-3\n");
  const auto no = [](const std::string& name) {
    return Answer(Refusal{"Unknown command \"" + name + "\""});
  };
  CHECK(capabilities({no("get_server_status"), no("device_query"), no("lspart")}) ==
        Capabilities{});  // 535
  CHECK(capabilities({Refusal{"Server 1 not found"}, no("device_query"), no("lspart")}) ==
        Capabilities{true, false, false});  // 550, 555
  CHECK(capabilities({Refusal{"Server 1 not found"}, reply({}), reply({"GPU Partition"})}) ==
        Capabilities{true, true, true});
  CHECK(capabilities({}) == Capabilities{});
}

TEST_CASE("percentages") {
  CHECK(read_percentage(reply({"100.0"})) == 100.0);
  CHECK(read_percentage(reply({"12.5"})) == 12.5);
  CHECK(read_percentage(reply({"", "0.1 "})) == 0.1);
  for (const std::string line : {"", "0.0", "100.1", "-1", "nan", "inf", "5x", "x"}) {
    CAPTURE(line);
    CHECK_FALSE(read_percentage(reply({line})));
  }
  CHECK_FALSE(read_percentage(reply({})));
  CHECK_FALSE(read_percentage(reply({"50.0", "50.0"})));
  CHECK_FALSE(read_percentage(Refusal{k_550_denied}));
}

TEST_CASE("memory limits, as they are printed") {
  CHECK(read_pinned_limit(reply({"512M"})) == PinnedLimit{512, false});
  CHECK(read_pinned_limit(reply({"1G"})) == PinnedLimit{1024, true});
  CHECK(read_pinned_limit(reply({})) == PinnedLimit{});
  CHECK(read_pinned_limit(reply({""})) == PinnedLimit{});
  for (const std::string line : {"G", "M", "1", "1K", "-1G", "1.5G", "18446744073709551615G",
                                 "99999999999999999999M", "G1"}) {
    CAPTURE(line);
    CHECK_FALSE(read_pinned_limit(reply({line})));
  }
  CHECK(read_pinned_limit(reply({"17179869183G"})) == PinnedLimit{17592186043392, true});
  CHECK_FALSE(read_pinned_limit(reply({"512M", "1G"})));
  CHECK_FALSE(read_pinned_limit(Refusal{"Server 77 not found"}));
}

TEST_CASE("a limit prints rounded down to whole gibibytes from one on") {
  CHECK(prints_as(512, {512, false}));
  CHECK(prints_as(1023, {1023, false}));
  CHECK(prints_as(1024, {1024, true}));
  CHECK(prints_as(1536, {1024, true}));
  CHECK(prints_as(2047, {1024, true}));
  CHECK_FALSE(prints_as(2048, {1024, true}));
  CHECK_FALSE(prints_as(1023, {1024, true}));
  CHECK_FALSE(prints_as(512, {513, false}));
  CHECK_FALSE(prints_as(512, {}));
  CHECK(prints_as(std::nullopt, {}));
  CHECK(prints_as(0, {}));
  CHECK_FALSE(prints_as(0, {1, false}));
  CHECK_FALSE(prints_as(std::nullopt, {1024, true}));
}

TEST_CASE("priorities") {
  CHECK(read_priority(reply({"0"})) == 0U);
  CHECK(read_priority(reply({"1"})) == 1U);
  CHECK_FALSE(read_priority(reply({"2"})));
  CHECK_FALSE(read_priority(reply({"-1"})));
  CHECK_FALSE(read_priority(reply({})));
  CHECK_FALSE(read_priority(Refusal{k_550_denied}));
}

TEST_CASE("lists of pids") {
  CHECK(read_pids(reply({})) == std::vector<pid_t>{});
  CHECK(read_pids(reply({"3064"})) == std::vector<pid_t>{3064});
  CHECK(read_pids(reply({"3064", " 77 ", ""})) == std::vector<pid_t>{3064, 77});
  CHECK(read_pids(reply({"0"})) == std::vector<pid_t>{0});
  CHECK_FALSE(read_pids(reply({"-1"})));
  CHECK_FALSE(read_pids(reply({"3064", "x"})));
  CHECK_FALSE(read_pids(reply({"99999999999"})));
  CHECK_FALSE(read_pids(Refusal{"Server 55 not found"}));
}

}  // namespace
}  // namespace mps::control
