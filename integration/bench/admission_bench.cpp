// admission_bench: what the gate and the desk cost a program that starts, and how many they let in
// a second, beside the same exchange with the daemon itself.
//
// The real mps-gate, link, desk and ledger with its checkpoint; a daemon of our own that greets,
// reads an opening and answers, so that nothing but the way in is measured. Each client is a new
// process: one that has a slot already would not be asked about again. It measures from before its
// connect to the daemon's answer; starting the process is not in it.
//   admission_bench [--clients N] [--peers N] [--silent N]
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "app/gated_entrance.h"

namespace {

using namespace mps;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

const std::string k_greeting = "greeting!";
const std::vector<std::string> k_opening{"an opening of a client", "four"};
const char* const k_policies =
    "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"user:*\"}\n"
    "spec: {}\n---\n"
    "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"unit:*\"}\n"
    "spec: {}\n";
constexpr int k_answer_within_s = 20;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "admission_bench: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

sockaddr_un address_of(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof(address.sun_path)) fail("the path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  return address;
}

int connect_to(const fs::path& path) {
  const int made = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const auto address = address_of(path);
  if (made < 0 || ::connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof(address))) {
    fail("connect " + path.string());
  }
  const timeval patience{k_answer_within_s, 0};
  ::setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return made;
}

// ---- the daemon ----

// One connection at a time until its opening is there, as the real one.
[[noreturn]] void be_daemon(int listener) {
  std::array<char, 256> bytes{};
  for (;;) {
    const int peer = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (peer < 0) continue;
    ::send(peer, k_greeting.data(), k_greeting.size(), MSG_NOSIGNAL);
    bool whole = true;
    for (std::size_t i = 0; whole && i < k_opening.size(); ++i) {
      whole = ::recv(peer, bytes.data(), bytes.size(), 0) > 0;
    }
    if (whole) ::send(peer, "in", 2, MSG_NOSIGNAL);
    ::close(peer);
  }
}

pid_t start_daemon(const fs::path& control) {
  const int listener = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const auto address = address_of(control);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener, 4096) != 0) {
    fail("listen at " + control.string());
  }
  const auto pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    be_daemon(listener);
  }
  ::close(listener);
  return pid;
}

// ---- the desk ----

[[noreturn]] void be_supervisor(const fs::path& folder, const instance::Layout& layout, int ready) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  boost::asio::io_context io(1);
  const auto generation = policy::next_generation({}, {{"all.yaml", k_policies, ""}}, {});
  const auto say = [](const std::string& kind, const std::string& instance,
                      const std::string& message) {
    std::fprintf(stderr, "%s %s: %s\n", kind.c_str(), instance.c_str(), message.c_str());
  };
  admission::ControllerSettings desk_settings;
  desk_settings.checkpoint = folder / "admissions.log";
  auto desk = admission::Controller::open(
      io.get_executor(), desk_settings,
      {std::make_shared<identity::Resolver>(), [generation] { return generation; }, say});
  if (!desk) fail(desk.error().message);
  auto server = std::make_shared<admission::AdmissionServer>(io.get_executor(), **desk);
  if (!server->start()) fail("admission.sock");
  app::GatedEntranceSettings settings{
      {"gpu0.shared", "shared", {.name = "gpu0", .uuid = "GPU-0"}}, layout, MPS_GATE_PROGRAM, {}};
  auto entrance =
      std::make_shared<app::GatedEntrance>(io.get_executor(), settings, *desk, server, say);
  gate::Opening opening;
  opening.greeting = k_greeting;
  opening.messages = k_opening;
  entrance->set_opening(opening);
  entrance->start();
  (void)entrance->open(layout.control);
  entrance->instance_is(instance::State::ready, "");
  while (entrance->gate() != instance::GateState::standing) io.run_one();
  (void)!::write(ready, "r", 1);
  boost::asio::signal_set end(io, SIGTERM);
  end.async_wait([&io](const boost::system::error_code&, int) { io.stop(); });
  io.run();
  std::_Exit(0);
}

// ---- clients ----

double enter(const fs::path& control) {
  const auto began = Clock::now();
  const int socket = connect_to(control);
  std::array<char, 256> bytes{};
  if (::recv(socket, bytes.data(), bytes.size(), 0) <= 0) fail("no greeting");
  for (const auto& text : k_opening) ::send(socket, text.data(), text.size(), MSG_NOSIGNAL);
  if (::recv(socket, bytes.data(), bytes.size(), 0) != 2) fail("not let in");
  return std::chrono::duration<double, std::micro>(Clock::now() - began).count();
}

struct Shared {
  std::atomic<int> next;
  std::array<double, 100000> took;
};

// `peers` at a time, each of its clients a new process.
double run_clients(const fs::path& control, Shared& shared, int clients, int peers) {
  shared.next = 0;
  const auto began = Clock::now();
  for (int peer = 0; peer < peers; ++peer) {
    if (::fork() != 0) continue;
    for (int turn = shared.next++; turn < clients; turn = shared.next++) {
      const auto client = ::fork();
      if (client == 0) {
        shared.took[static_cast<std::size_t>(turn)] = enter(control);
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(client, &status, 0);
      if (status != 0) ::_exit(1);
    }
    ::_exit(0);
  }
  for (int peer = 0; peer < peers; ++peer) {
    int status = 0;
    ::wait(&status);
    if (status != 0) fail("a client failed");
  }
  return std::chrono::duration<double>(Clock::now() - began).count();
}

void report(const char* what, Shared& shared, int clients, double seconds) {
  auto* const first = shared.took.data();
  std::sort(first, first + clients);
  const auto at = [&](double part) {
    return first[static_cast<std::size_t>(part * (clients - 1))];
  };
  std::printf("  %-22s median %7.0f us, p99 %7.0f us, %6.0f a second\n", what, at(0.5), at(0.99),
              clients / seconds);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  int clients = 5000;
  std::vector<int> peers{1, 16, 256};
  int silent = 1000;
  CLI::App app{"What the way in through a gate costs", "admission_bench"};
  app.add_option("--clients", clients, "in all, for each number of peers")
      ->check(CLI::Range(1, 100000));
  app.add_option("--peers", peers, "at a time")->check(CLI::Range(1, 4096));
  app.add_option("--silent", silent, "connections beside them that say nothing, at the end")
      ->check(CLI::Range(0, 20000));
  CLI11_PARSE(app, argc, argv);

  std::string pattern = "/tmp/mps-bench-XXXXXX";
  const fs::path folder = ::mkdtemp(pattern.data());
  const instance::Layout layout(folder, "gpu0.shared");
  if (!layout.make()) fail("make " + folder.string());
  const auto daemon = start_daemon(layout.control);
  std::array<int, 2> ready{};
  if (::pipe2(ready.data(), O_CLOEXEC) != 0) fail("pipe");
  const auto supervisor = ::fork();
  if (supervisor == 0) be_supervisor(folder, layout, ready[1]);
  ::close(ready[1]);
  char byte = 0;
  if (::read(ready[0], &byte, 1) != 1) fail("the gate does not stand");

  auto* const memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  auto& shared = *new (memory) Shared{};
  const auto share = layout.open_pipe / "control";
  for (const auto count : peers) {
    std::printf("%d at a time, %d clients\n", count, clients);
    report("the daemon itself", shared, clients,
           run_clients(layout.control, shared, clients, count));
    report("through the gate", shared, clients, run_clients(share, shared, clients, count));
  }
  std::vector<int> held;
  for (int i = 0; i < silent; ++i) held.push_back(connect_to(share));
  if (silent > 0) {
    std::printf("16 at a time, %d clients, beside %d that are silent\n", clients, silent);
    report("through the gate", shared, clients, run_clients(share, shared, clients, 16));
  }
  for (const auto pid : {supervisor, daemon}) ::kill(pid, SIGTERM);
  while (::wait(nullptr) > 0) {
  }
  fs::remove_all(folder);
  return 0;
}
