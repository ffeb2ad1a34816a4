#include "ctl/cli.h"

#include <doctest/doctest.h>

#include <fstream>
#include <mutex>
#include <sstream>
#include <streambuf>
#include <thread>

#include "api/server.h"
#include "api/test_support.h"
#include "ctl/cli_kit.h"
#include "ctl/client.h"

using namespace mps::api;
using mps::api::test::Reactor;
using mps::api::test::TempDir;
using mps::api::test::wait_until;
using mps::ctl::test::Result;
using mps::ctl::test::run;

namespace {

// A stream that another thread may look into.
class SharedStream : public std::streambuf {
 public:
  std::string text() {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 protected:
  std::streamsize xsputn(const char* data, std::streamsize size) override {
    const std::lock_guard lock(mutex_);
    text_.append(data, static_cast<std::size_t>(size));
    return size;
  }
  int_type overflow(int_type character) override {
    const std::lock_guard lock(mutex_);
    text_.push_back(static_cast<char>(character));
    return character;
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

struct Fixture {
  Fixture() {
    log = std::move(EventLog::open({directory.path(), 16, 1 << 20}).value());
    server = std::move(reactor
                           .run([this] {
                             return Server::open(reactor.executor(), {path, {}, {}}, agent, *log);
                           })
                           .value());
  }
  ~Fixture() {
    stop();
    reactor.finish();
  }
  void stop() {
    reactor.run([this] { server.reset(); });
  }
  void append(const std::string& kind) {
    reactor.run([&] { log->append(test::event(kind, "message")); });
  }
  Result ctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--socket", path.string()});
    return run(arguments);
  }

  TempDir directory;
  std::filesystem::path path = directory.path() / "s.sock";
  mps::api::test::FakeAgent agent;
  std::unique_ptr<EventLog> log;
  Reactor reactor;
  std::unique_ptr<Server> server;
};

}  // namespace

TEST_CASE("a supervisor that is not there") {
  const auto result = run({"--socket", "/nonexistent/s.sock", "status"});
  CHECK(result.status == 3);
  CHECK(result.out.empty());
  CHECK(
      result.err ==
      "mps-ctl: cannot reach the supervisor at /nonexistent/s.sock: No such file or directory; is "
      "mps-supervisor running? (try: systemctl status mps-supervisor, mps-ctl doctor)\n");
  CHECK(run({"events", "--follow", "--socket", "/nonexistent/s.sock"}).status == 3);
  CHECK(run({"clients", "--watch", "--socket", "/nonexistent/s.sock"}).status == 3);
  CHECK(run({"admissions", "--socket", "/nonexistent/s.sock"}).status == 3);
  CHECK(run({"restart", "x", "--socket", "/nonexistent/s.sock"}).status == 3);
  const auto far = run({"--socket", "/" + std::string(200, 'x'), "status"});
  CHECK(far.status == 3);
  CHECK(far.err.find(": a socket's path has 1 to 107 bytes\n") != std::string::npos);
  const auto version = run({"--socket", "/nonexistent/s.sock", "version"});
  CHECK(version.status == 0);
  CHECK(version.out == "mps-ctl " MPS_VERSION "\nmps-supervisor not reachable\n");
}

TEST_CASE("a supervisor that does not answer") {
  const TempDir directory;
  const auto path = directory.path() / "s.sock";
  const mps::UniqueFd listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  REQUIRE(::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  REQUIRE(::listen(listening.get(), 4) == 0);
  mps::ctl::Client client(path, std::chrono::milliseconds(50));
  const auto response = client.request("GET", "/v1/status");
  REQUIRE(!response);
  CHECK(response.error().message ==
        "the supervisor at " + path.string() + " does not answer: no answer in time");
  const auto stream = client.follow("/v1/events?follow=1", [](const std::string&) { return true; });
  REQUIRE(!stream);
  CHECK(stream.error().message == response.error().message);
}

TEST_CASE("wrong usage") {
  const auto none = run({});
  CHECK(none.status == 2);
  CHECK(none.err == "mps-ctl: A subcommand is required\nRun mps-ctl --help for usage.\n");
  const auto unknown = run({"statsu"});
  CHECK(unknown.status == 2);
  CHECK(unknown.err ==
        "mps-ctl: unknown command \"statsu\"; did you mean \"status\"?\nRun mps-ctl --help for "
        "usage.\n");
  CHECK(run({"--bogus"}).err ==
        "mps-ctl: unknown option \"--bogus\"\nRun mps-ctl --help for usage.\n");
  CHECK(run({"drain"}).status == 2);
  CHECK(run({"-o", "xml", "status"}).status == 2);
  CHECK(run({"events", "--since", "x"}).status == 2);
  CHECK(run({"events", "--retry"}).status == 2);
  CHECK(run({"completion", "tcsh"}).status == 2);
  const auto help = run({"--help"});
  CHECK(help.status == 0);
  CHECK(help.out.find("Exit status: 0 done, 1 failed, 2 wrong usage, 3 the supervisor is not "
                      "reachable.") != std::string::npos);
  CHECK(run({"events", "--help"}).status == 0);
}

TEST_CASE_FIXTURE(Fixture, "lists and single things") {
  CHECK(ctl({"status"}).out.find("\nready\ndevices    0\ninstances  1 (1 ready)\nclients    1\n") !=
        std::string::npos);
  CHECK(ctl({"instances"}).out.find("gpu0.shared  ready") != std::string::npos);
  CHECK(ctl({"instances", "-o", "wide"}).out.find("/run/mps/gpu0.shared/open/pipe") !=
        std::string::npos);
  CHECK(ctl({"devices"}).out == "ID  UUID  NAME  MEMORY  SMS  CC  MPS  ERROR\n");
  CHECK(ctl({"clients", "-o", "json"}).out ==
        "[\n  {\n    \"admission\": null,\n    \"adopted\": false,\n    \"command\": \"train\",\n"
        "    \"connected\": true,\n    \"container\": null,\n    \"description\": null,\n"
        "    \"instance\": \"gpu0.shared\",\n    \"limits\": null,\n    \"namespace\": null,\n"
        "    \"pid\": 100,\n    \"share\": null,\n    \"since\": \"2026-11-20T10:00:01.000Z\",\n"
        "    \"uid\": 1000\n  }\n]\n");
  CHECK(ctl({"clients", "-o", "yaml"}).out ==
        "- admission: ~\n  adopted: false\n  command: train\n  connected: true\n  container: ~\n"
        "  description: ~\n  instance: gpu0.shared\n  limits: ~\n  namespace: ~\n  pid: 100\n"
        "  share: ~\n  since: 2026-11-20T10:00:01.000Z\n  uid: 1000\n");
  CHECK(ctl({"-o", "json", "devices"}).out == "[]\n");
  CHECK(ctl({"version", "-o", "json"}).out == "{\n  \"client\": \"" MPS_VERSION
                                              "\",\n  \"supervisor\": \"0.1.0\"\n}\n");
}

TEST_CASE_FIXTURE(Fixture, "admissions of a namespace, who waits, and what it comes to") {
  reactor.run([this] {
    auto& status = agent.admissions_;
    status.gated = true;
    mps::share::Admission admission;
    admission.id = 7;
    admission.instance = "gpu0.shared";
    admission.share = "gpu0.shared/open";
    admission.subject = "team-a";
    admission.description = "pod web-0";
    status.admissions.push_back({admission, 0});
    mps::share::Request request;
    request.instance = "gpu0.shared";
    request.subject = "team-b";
    request.process.pid = 102;
    request.deadline = status.now + std::chrono::hours(100);
    status.waiting.push_back({request, mps::share::draining("gpu0.shared"), status.now, false});
    status.time = std::chrono::system_clock::now();
  });
  const std::string head = "ID  INSTANCE     SHARE  NAMESPACE  CONTAINER  LIMITS  CLIENTS\n";
  const std::string row = "7   gpu0.shared  open   team-a     pod web-0  none    0\n";
  CHECK(ctl({"admissions"}).out == head + row);
  CHECK(ctl({"admissions", "--namespace", "team-a"}).out == head + row);
  CHECK(ctl({"admissions", "--namespace", "unit:a", "-o", "json"}).out == "[]\n");
  CHECK(ctl({"admissions", "-o", "wide"}).out.find("  PIDS  DEVICE  CONTAINER ID\n") !=
        std::string::npos);
  CHECK(ctl({"admissions", "-o", "yaml"}).out.starts_with("- clients: 0\n  container: \"\"\n"));
  CHECK(ctl({"admissions", "--waiting"})
            .out.find("  draining  gpu0.shared takes no new clients: "
                      "it is draining\n") != std::string::npos);
  CHECK(ctl({"admissions", "--waiting", "--namespace", "team-a", "-o", "json"}).out == "[]\n");
  CHECK(ctl({"admissions", "--use"}).out ==
        "DEVICE  UUID  CLIENTS  THREADS  MEMORY  ADOPTED\n\n"
        "NAMESPACE  DEVICE  CLIENTS  THREADS  MEMORY  WAITING\n");
  const auto wrong = ctl({"admissions", "--namespace", "Team"});
  CHECK(wrong.status == 2);
  CHECK(wrong.err ==
        "mps-ctl: --namespace: must be a namespace, docker:NAME, unit:NAME, user:LOGIN, or \"*\" "
        "for a kind's default: \"Team\"\nRun mps-ctl --help for usage.\n");
  CHECK(ctl({"admissions", "--use", "--waiting"}).err ==
        "mps-ctl: --waiting excludes --use\nRun mps-ctl --help for usage.\n");
}

TEST_CASE_FIXTURE(Fixture, "shares") {
  reactor.run([this] {
    mps::api::ShareView view;
    view.share = {0, "open", "gpu0.shared"};
    view.is_open_share = true;
    view.clients = 3;
    view.device = "GPU-0a";
    view.directory = "/run/mps/gpu0.shared/open";
    agent.shares_.push_back(view);
    view.share = {7, "s7", "gpu1.shared", "team-a", {25, 12288}, 0, 1000, true};
    view.is_open_share = false;
    agent.shares_.push_back(view);
  });
  const std::string head = "SHARE  INSTANCE     NAMESPACE  LIMITS     CLIENTS  STATE    LEFT\n";
  const std::string open = "open   gpu0.shared  -          by policy  3        open     -\n";
  CHECK(ctl({"shares"}).out ==
        head + open + "s7     gpu1.shared  team-a     25% 12Gi   3        closing  0s\n");
  CHECK(ctl({"shares", "--instance", "gpu0.shared"}).out ==
        "SHARE  INSTANCE     NAMESPACE  LIMITS     CLIENTS  STATE  LEFT\n"
        "open   gpu0.shared  -          by policy  3        open   -\n");
  CHECK(ctl({"shares", "-o", "wide"}).out.find("  GPU-0a  /run/mps/gpu0.shared/open\n") !=
        std::string::npos);
  CHECK(ctl({"shares", "create", "--device", "1", "--threads", "25", "--memory", "12Gi",
             "--namespace", "team-a", "--ttl", "8h"})
            .out ==
        "share s8 of gpu0.shared, 25% 12Gi for each client, for team-a\n"
        "mount /run/mps/gpu0.shared/shares/s8 at any path (read-only is enough), and set "
        "CUDA_MPS_PIPE_DIRECTORY to that path with /pipe behind it\n");
  CHECK(ctl({"shares", "create", "--device", "gpu0"})
            .out.find(
                "share s8 of gpu0.shared, none for each client, for whoever has it mounted\n") ==
        0);
  CHECK(ctl({"shares", "delete", "s7"}).out == "delete s7: accepted\n");
  CHECK(ctl({"shares", "delete", "s7", "--drain"}).out == "delete s7 drain: accepted\n");
  auto wrong = ctl({"shares", "create", "--device", "0", "--memory", "lots"});
  CHECK(wrong.status == 1);
  CHECK(wrong.err == "mps-ctl: pinnedDeviceMemory: must be a quantity such as 10Gi: \"lots\"\n");
  CHECK(ctl({"shares", "create"}).status == 2);
  CHECK(ctl({"shares", "delete"}).status == 2);
  CHECK(ctl({"shares", "remove"}).err ==
        "mps-ctl: unknown command \"remove\"\nRun mps-ctl --help for usage.\n");
}

TEST_CASE_FIXTURE(Fixture, "faults, and the story of one") {
  reactor.run([this] {
    mps::fault::Incident incident;
    incident.number = 3;
    incident.instance = "gpu0.shared";
    incident.noticed = mps::fault::time_of(test::at("2026-11-20T09:00:00.000Z"));
    agent.faults_.incidents_ = {incident};
  });
  CHECK(ctl({"faults"}).out.find("gpu0.shared  app_fault  0       0        open") !=
        std::string::npos);
  CHECK(ctl({"faults", "--instance", "x", "--since", "f1", "--limit", "5"}).out.find("f3") ==
        std::string::npos);
  CHECK(ctl({"faults", "--since", "f3", "-o", "json"}).out == "[]\n");
  CHECK(ctl({"faults", "f3"}).out.starts_with("fault      f3\nwhat       a client's fault\n"));
  const auto none = ctl({"faults", "f4"});
  CHECK(none.status == 1);
  CHECK(none.err == "mps-ctl: no incident \"f4\"\n");
  CHECK(ctl({"faults", "f3", "--limit", "1"}).status == 2);
}

TEST_CASE_FIXTURE(Fixture, "the quarantine") {
  const auto added = ctl({"quarantine", "add", "--namespace", "team-a", "--owner", "Job/x",
                          "--command", "a b", "--for", "1h", "--reason", "broken"});
  CHECK(added.status == 0);
  CHECK(added.out.find("q1     team-a     Job/x  a b      ") != std::string::npos);
  CHECK(ctl({"quarantine", "list"}).out == added.out);
  const auto wrong =
      ctl({"quarantine", "add", "--namespace", "team-a", "--for", "soon", "--reason", "x"});
  CHECK(wrong.status == 1);
  CHECK(wrong.err == "mps-ctl: for: must be a duration such as 15m or 8h: \"soon\"\n");
  CHECK(ctl({"quarantine", "remove", "q1"}).out ==
        "a b of Job/x in team-a is kept out no longer\n");
  CHECK(ctl({"quarantine", "remove", "q1"}).err == "mps-ctl: no entry \"q1\"\n");
  CHECK(ctl({"quarantine"}).status == 2);
  CHECK(ctl({"quarantine", "remove"}).status == 2);
  CHECK(ctl({"quarantine", "add", "--namespace", "team-a", "--for", "1h"}).status == 2);
  CHECK(ctl({"quarantine", "lift"}).err ==
        "mps-ctl: unknown command \"lift\"; did you mean \"list\"?\nRun mps-ctl --help for "
        "usage.\n");
}

TEST_CASE_FIXTURE(Fixture, "admissions where no instance has a gate") {
  CHECK(ctl({"admissions"}).out == "ID  INSTANCE  SHARE  NAMESPACE  CONTAINER  LIMITS  CLIENTS\n");
  CHECK(ctl({"admissions", "--use"}).out ==
        "no instance has a gate: whoever reaches its socket gets in, and is not counted here\n");
}

TEST_CASE_FIXTURE(Fixture, "policies of the supervisor") {
  reactor.run([this] {
    agent.policies_.generation =
        test::generation_of({{"a.yaml", test::document("team-a", "  {}\n")}});
  });
  CHECK(ctl({"policy", "list"}).out ==
        "NAMESPACE  FILE      STATE  ISOLATION  DEVICES  THREADS  MEMORY  QUOTA  OVERRIDES\n"
        "team-a     a.yaml:4  good   shared     *        none     none    none   0\n");
  CHECK(ctl({"policy", "show", "team-a"}).out.starts_with("namespace  team-a\n"));
  const auto unknown = ctl({"policy", "show", "team-b"});
  CHECK(unknown.status == 1);
  CHECK(unknown.err == "mps-ctl: no policy for namespace \"team-b\"; did you mean \"team-a\"?\n");
  CHECK(ctl({"policy", "explain", "--namespace", "team-a"}).out == "no device\n");
}

TEST_CASE_FIXTURE(Fixture, "verbs say what was accepted, or why not") {
  const auto done = ctl({"restart", "gpu0.shared", "--force"});
  CHECK(done.status == 0);
  CHECK(done.out == "restart gpu0.shared force: accepted\n");
  CHECK(ctl({"drain", "gpu0.shared"}).out == "drain gpu0.shared: accepted\n");
  CHECK(ctl({"undrain", "gpu0.shared", "-o", "yaml"}).out ==
        "instance: gpu0.shared\nmessage: \"undrain gpu0.shared: accepted\"\n");
  const auto unknown = ctl({"drain", "gpu0.sharde"});
  CHECK(unknown.status == 1);
  CHECK(unknown.err == "mps-ctl: no instance \"gpu0.sharde\"; did you mean \"gpu0.shared\"?\n");
  reactor.run([this] { agent.refusal_ = VerbError{VerbError::Kind::conflict, "a client runs"}; });
  const auto refused = ctl({"restart", "gpu0.shared"});
  CHECK(refused.status == 1);
  CHECK(refused.err == "mps-ctl: a client runs\n");
}

TEST_CASE_FIXTURE(Fixture, "a client is terminated, or it is said why not") {
  const auto done = ctl({"terminate", "100"});
  CHECK(done.status == 0);
  CHECK(done.out == "terminate 100: accepted\n");
  CHECK(ctl({"terminate", "100", "-o", "yaml"}).out ==
        "message: \"terminate 100: accepted\"\npid: 100\n");
  reactor.run([this] {
    agent.refusal_ = VerbError{VerbError::Kind::unanswered, "what came of client 100 is not known"};
  });
  const auto unknown = ctl({"terminate", "100"});
  CHECK(unknown.status == 1);
  CHECK(unknown.err == "mps-ctl: what came of client 100 is not known\n");
  CHECK(run({"terminate"}).status == 2);
  CHECK(run({"terminate", "train"}).status == 2);
}

TEST_CASE_FIXTURE(Fixture, "events") {
  append("one");
  append("two");
  CHECK(ctl({"events", "--kind", "two"}).out ==
        "2026-11-20T10:00:00.000Z gpu0.shared   two                 message\n");
  CHECK(ctl({"events", "--since", "1", "-o", "json"}).out.find("\"id\": 2") != std::string::npos);
  CHECK(ctl({"events", "--instance", "gpu9.shared"}).out.empty());
}

TEST_CASE_FIXTURE(Fixture, "events are followed until the supervisor goes") {
  append("one");
  SharedStream seen;
  std::ostream out(&seen);
  std::ostringstream err;
  int status = -1;
  std::thread follower([&] {
    status = mps::ctl::run({"events", "--follow", "--since", "0", "-o", "json", "--socket", path},
                           out, err);
  });
  CHECK(wait_until([&] { return seen.text().find(R"("kind":"one")") != std::string::npos; }));
  append("two");
  CHECK(wait_until([&] { return seen.text().find(R"("kind":"two")") != std::string::npos; }));
  stop();
  follower.join();
  CHECK(status == 0);
  CHECK(err.str() == "mps-ctl: the supervisor at " + path.string() + " has ended the stream\n");
}

TEST_CASE_FIXTURE(Fixture, "following ends when its output cannot be written") {
  append("one");
  std::ofstream full("/dev/full");
  std::ostringstream err;
  const int status =
      mps::ctl::run({"events", "--follow", "--since", "0", "--retry", "--socket", path}, full, err);
  CHECK(status == 1);
  CHECK(err.str() == "mps-ctl: the output cannot be written\n");
}

TEST_CASE_FIXTURE(Fixture, "clients are watched until the supervisor goes") {
  SharedStream seen;
  std::ostream out(&seen);
  std::ostringstream err;
  int status = -1;
  std::thread watcher([&] {
    status = mps::ctl::run({"clients", "--watch", "--socket", path}, out, err);
  });
  CHECK(wait_until([&] { return seen.text().find("train") != std::string::npos; }));
  reactor.run([this] { agent.instances_[0].clients[0].command = "infer"; });
  CHECK(wait_until([&] { return seen.text().find("infer") != std::string::npos; }));
  stop();
  watcher.join();
  CHECK(status == 3);
}

TEST_CASE("doctor refuses settings that it cannot read") {
  const auto missing = run({"doctor", "--config", "/nonexistent/x.yaml"});
  CHECK(missing.status == 1);
  CHECK(missing.err == "mps-ctl: cannot read /nonexistent/x.yaml\n");
}
