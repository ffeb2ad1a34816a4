// Servers and clients, as the log tells of them.
#include <doctest/doctest.h>

#include <algorithm>

#include "instance/machine_test_kit.h"

using namespace mps;
using namespace mps::instance;
using namespace std::chrono_literals;
using Lines = Kit::Lines;

TEST_CASE("a client that asks, is served, and goes") {
  Kit kit;
  kit.make_ready();
  CHECK(
      kit.line("NEW CLIENT 900 from user 1000: Server is not ready, push client to pending list") ==
      Lines{"watch-client 900",
            "emit client_asked: client 900 (python3) of uid 1000 asks for a "
            "server"});
  CHECK(kit.machine.running_clients() == 0);  // no server yet: nobody runs
  CHECK(kit.line("Starting new server 500 for user 1000") == Lines{"watch-server 500"});
  CHECK(kit.machine.server()->status == ServerStatus::starting);
  CHECK(kit.machine.running_clients() == 1);
  CHECK(kit.line("NEW SERVER 500: Ready") ==
        Lines{"watch-server 500", "emit server_ready: server 500 is ready", "set next_probe 1s"});
  CHECK(kit.machine.server()->status == ServerStatus::active);
  // However many come, MPS is asked once whom it serves.
  CHECK(kit.line("NEW CLIENT 901 from user 1000: Server already exists").size() == 2);
  kit.due(Timer::next_probe);
  kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900", "901"}));
  CHECK(kit.machine.clients().at(901).connected);
  CHECK(kit.give(ClientEnded{900}) == Lines{"emit client_gone: client 900 has gone"});
  CHECK(kit.give(ClientEnded{900}).empty());
}

TEST_CASE("who has gone is not there again because MPS was asked before") {
  Kit kit;
  kit.give(DaemonFound{100, {500}});
  kit.line("NEW CLIENT 900 from user 1000: Server already exists");
  CHECK(kit.give(ClientEnded{900}) == Lines{"emit client_gone: client 900 has gone"});
  auto lines = kit.give(kit.configured(Kit::limits(), {"500"}, Lines{"900", "901"}));
  CHECK(kit.machine.clients().size() == 1);
  CHECK(lines.front() == "emit client_connected: client 901 is served");
  CHECK(lines.at(2) == "emit clients_listed: MPS lists its clients, 2");
  // Another process has that pid by the next time, and nobody has heard it ask.
  kit.line("NEW CLIENT 902 from user 1000: Server already exists");
  kit.due(Timer::next_probe);
  lines = kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900", "901", "902"}));
  CHECK(lines.at(1) == "emit client_connected: client 900 is served");
  // Or it asks itself, and is listed at once.
  kit.give(ClientEnded{900});
  kit.line("NEW CLIENT 900 from user 1000: Server already exists");
  kit.due(Timer::next_probe);
  kit.give(Kit::probed(Kit::limits(), {"500"}, Lines{"900", "901"}));
  CHECK(kit.machine.clients().at(900).connected);
}

TEST_CASE("a client has its server when it has a context, where the log says no more") {
  Kit kit;
  kit.make_busy();
  CHECK(kit.server_line("Status of client {900, 1} is INACTIVE").empty());
  CHECK(kit.server_line("Status of client {900, 1} is ACTIVE") ==
        Lines{"emit client_connected: client 900 is served"});
  CHECK(kit.server_line("Status of client {900, 2} is ACTIVE").empty());
  CHECK(kit.machine.clients().at(900).connected);
  // Nobody becomes a client by it who has not asked.
  CHECK(kit.server_line("Status of client {901, 1} is ACTIVE").empty());
  CHECK(kit.machine.clients().size() == 1);
}

TEST_CASE("a server that fails to start is one incident, however often MPS tries") {
  Kit kit;
  kit.make_ready();
  kit.line("NEW CLIENT 900 from user 0: Server is not ready, push client to pending list");
  Lines events;
  for (int i = 0; i < 6; ++i) {
    const auto pid = std::to_string(500 + i);
    const Lines log{"Starting new server " + pid + " for user 0",
                    "Driver initialization failed with: no CUDA-capable device is detected",
                    "Failed to start : no CUDA-capable device is detected",
                    "Server encountered a fatal exception. Shutting down",
                    "Server " + pid + " exited with status 1"};
    for (const auto& text : log) {
      const bool by_server = text.starts_with("Driver") || text.starts_with("Failed");
      const auto lines = by_server ? kit.written(text, "Other  " + pid) : kit.line(text);
      for (const auto& line : lines) {
        if (line.starts_with("emit")) events.push_back(line);
      }
    }
    kit.give(ServerEnded{500 + i});
  }
  CHECK(events == Lines{"emit server_start_failed: the server does not start: no CUDA-capable "
                        "device is detected"});
  REQUIRE(kit.machine.server());
  CHECK(kit.machine.server()->status == ServerStatus::start_failed);
  CHECK(kit.machine.server()->cause == "no CUDA-capable device is detected");
  CHECK(kit.machine.server()->failed_starts == 6);
  CHECK(kit.machine.state() == State::ready);  // a property of a ready instance
  CHECK(kit.machine.running_clients() == 0);

  SUBCASE("the next client's attempts belong to it too") {
    kit.line("Starting new server 600 for user 0");
    CHECK(kit.line("Server 600 exited with status 1").empty());
    CHECK(kit.machine.server()->failed_starts == 7);
  }
  SUBCASE("a server that becomes ready ends it") {
    kit.line("Starting new server 600 for user 0");
    kit.line("NEW SERVER 600: Ready");
    CHECK(kit.machine.server()->failed_starts == 0);
    CHECK(kit.line("Server 600 exited with status 0") ==
          Lines{"emit server_exited: server 600 exited with status 0"});
  }
}

TEST_CASE("an incident that the journal remembers goes on as the same") {
  Kit kit;
  kit.machine.restore_start_failure("no CUDA-capable device is detected");
  kit.make_ready();
  kit.line("Starting new server 600 for user 0");
  kit.server_line("Failed to start : no CUDA-capable device is detected");
  CHECK(kit.line("Server 600 exited with status 1").empty());
}

TEST_CASE("an idle server that outlives its daemon is ended, one with clients is left alone") {
  Kit kit;
  SUBCASE("idle") {
    kit.make_busy();
    kit.give(ClientEnded{900});
    const auto lines = kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
    CHECK(std::count(lines.begin(), lines.end(), "signal-server 500 15") == 1);
  }
  SUBCASE("with a client") {
    kit.make_busy();
    const auto lines = kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
    CHECK(std::count(lines.begin(), lines.end(),
                     "emit server_orphaned: server 500 lives on without its control daemon; its "
                     "clients are left alone, and it is ended when they have gone") == 1);
    CHECK(lines.back() == "spawn-daemon");  // newcomers are served meanwhile
    CHECK(kit.give(ClientEnded{900}) ==
          Lines{"emit client_gone: client 900 has gone", "signal-server 500 15"});
    CHECK(kit.give(ServerEnded{500}) ==
          Lines{"emit orphan_gone: server 500 of an earlier control daemon has ended"});
  }
}

TEST_CASE("each orphan is ended with its own last client, not with the newcomers'") {
  Kit kit;
  kit.make_busy();
  kit.give(DaemonEnded{"was killed by signal 9 (SIGKILL)"});
  kit.give(DaemonSpawned{101});
  kit.due(Timer::configure_again);
  kit.give(kit.configured());
  kit.line("NEW CLIENT 901 from user 1000: Server is not ready, push client to pending list");
  CHECK(kit.give(ClientEnded{900}).back() == "signal-server 500 15");
  CHECK(kit.machine.clients().contains(901));
}

TEST_CASE("an end that was asked for takes the server along") {
  Kit kit;
  kit.make_busy();
  kit.give(RestartWanted{true});
  const auto lines = kit.give(DaemonEnded{"was killed by signal 15 (SIGTERM)"});
  CHECK(std::count(lines.begin(), lines.end(), "signal-server 500 15") == 1);
}

TEST_CASE("a process that asks again and again is one client, and no news") {
  Kit kit;
  kit.make_ready();
  kit.line("NEW CLIENT 900 from user 0: Server already exists");
  for (int i = 0; i < 100; ++i) {
    CHECK(kit.line("NEW CLIENT 900 from user 0: Server already exists").empty());
  }
}

TEST_CASE("a process's end changes the state at once; the event waits for the log's line") {
  Kit kit;
  kit.make_busy();
  CHECK(kit.give(ServerEnded{500}).empty());
  CHECK(kit.machine.server()->status == ServerStatus::exited);
  CHECK(kit.machine.running_clients() == 0);
  CHECK(kit.line("Server 500 exited with status 0") ==
        Lines{"emit server_exited: server 500 exited with status 0"});
}

TEST_CASE("one line makes at most one event, in every state") {
  // The journal records with each event how far the log was read: two events of one line could not
  // both be recorded in one write.
  const std::vector<std::string> lines{
      "Starting control daemon using socket /x/control",
      "Accepting connection...",
      "NEW UI",
      "Cmd:quit",
      "UI closed",
      "NEW CLIENT 900 from user 0: Server already exists",
      "NEW CLIENT 901 from user 7: Server is not ready, push client to pending list",
      "Starting new server 500 for user 0",
      "Driver initialization failed with: no CUDA-capable device is detected",
      "Failed to start : no CUDA-capable device is detected",
      "NEW SERVER 500: Ready",
      "Server is handling a fatal GPU error.",
      "Status of client {900, 1} is INACTIVE",
      "Client process 900 encountered a fatal GPU error.",
      "Client {900, 1} exit",
      "Creating server context on device 0 (GPU)",
      "Server 500 exited with status 1",
      "Exit with status 0",
      "what is this"};
  for (const bool draining : {false, true}) {
    for (const auto& first : lines) {
      for (const auto& second : lines) {
        Kit kit;
        kit.make_busy();
        if (draining) kit.give(DrainWanted{});
        for (const auto& text : {first, second}) {
          for (const auto& actions : {kit.line(text), kit.server_line(text)}) {
            const auto events = std::count_if(actions.begin(), actions.end(), [](const auto& line) {
              return line.starts_with("emit");
            });
            CAPTURE(text);
            CHECK(events <= 1);
          }
        }
      }
    }
  }
}

TEST_CASE("unknown lines are counted") {
  Kit kit;
  kit.make_ready();
  const auto before = kit.machine.unknown_lines();
  kit.line("something new in 2030");
  CHECK(kit.machine.unknown_lines() == before + 1);
}

TEST_CASE("clients are bounded") {
  Kit kit;
  kit.make_ready();
  for (int pid = 1; pid <= 5000; ++pid) {
    kit.line("NEW CLIENT " + std::to_string(pid) + " from user 0: Server already exists");
  }
  CHECK(kit.machine.clients().size() == 4096);
}
