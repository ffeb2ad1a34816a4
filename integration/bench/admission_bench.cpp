// admission_bench: what the gate and the desk cost a program that starts, and how many they let in
// a second, beside the same exchange with the daemon itself, in turns; and the gate's memory.
//
// The real mps-gate, link, desk and ledger with its checkpoint; a daemon of our own that greets,
// reads an opening and answers, so that nothing but the way in is measured. Each client is a new
// process: one that has a slot already would not be asked about again. It measures from before its
// connect to the daemon's answer; starting the process is not in it.
//   admission_bench [--clients N] [--peers N…] [--hostile N] [--inside N]
#include <fcntl.h>
#include <sys/epoll.h>
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
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
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
constexpr int k_turns = 10;  // of the daemon itself and of the gate, one after the other

[[noreturn]] void fail(const std::string& what) {
  const auto reason = std::generic_category().message(errno);
  std::fprintf(stderr, "admission_bench: %s: %s\n", what.c_str(), reason.c_str());
  std::_Exit(1);
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

void greet_and_answer(int peer) {
  std::array<char, 256> bytes{};
  ::send(peer, k_greeting.data(), k_greeting.size(), MSG_NOSIGNAL);
  bool whole = true;
  for (std::size_t i = 0; whole && i < k_opening.size(); ++i) {
    whole = ::recv(peer, bytes.data(), bytes.size(), 0) > 0;
  }
  if (whole) ::send(peer, "in", 2, MSG_NOSIGNAL);
}

// One connection at a time until its opening is there, as the real one; then until its peer leaves.
[[noreturn]] void be_daemon(int listener) {
  const int events = ::epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [events](int descriptor) {
    epoll_event wanted{.events = EPOLLIN, .data = {.fd = descriptor}};
    ::epoll_ctl(events, EPOLL_CTL_ADD, descriptor, &wanted);
  };
  watch(listener);
  for (;;) {
    epoll_event event{};
    if (::epoll_wait(events, &event, 1, -1) != 1) continue;
    if (event.data.fd != listener) {
      ::close(event.data.fd);
      continue;
    }
    const int peer = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (peer < 0) continue;
    greet_and_answer(peer);
    watch(peer);
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
  auto generation = policy::next_generation({}, {{"all.yaml", k_policies, ""}}, {});
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
  entrance->daemon_is_at(instance::PipePlace::visible(layout));
  entrance->start();
  (void)entrance->open(layout.control);
  entrance->instance_is(instance::State::ready, "", "");
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

struct Figures {
  std::vector<double> took;  // us
  double seconds = 0;
  [[nodiscard]] double at(double part) const {
    return took[static_cast<std::size_t>(part * static_cast<double>(took.size() - 1))];
  }
};

// `peers` at a time, each of its clients a new process.
void run_clients(const fs::path& control, Shared& shared, int clients, int peers, Figures& into) {
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
  into.seconds += std::chrono::duration<double>(Clock::now() - began).count();
  into.took.insert(into.took.end(), shared.took.data(), shared.took.data() + clients);
}

void report(const char* what, Figures& figures, const char* end) {
  std::sort(figures.took.begin(), figures.took.end());
  std::printf("  %-18s median %6.0f us, p99 %7.0f us, %5.0f a second%s", what, figures.at(0.5),
              figures.at(0.99), static_cast<double>(figures.took.size()) / figures.seconds, end);
  std::fflush(stdout);
}

// In turns, so that what the machine does besides meets both.
void compare(const fs::path& daemon, const fs::path& gate, Shared& shared, int clients, int peers) {
  Figures direct;
  Figures gated;
  const int each = std::max(1, clients / k_turns);
  for (int done = 0; done < clients; done += each) {
    run_clients(daemon, shared, std::min(each, clients - done), peers, direct);
    run_clients(gate, shared, std::min(each, clients - done), peers, gated);
  }
  report("the daemon itself", direct, "\n");
  report("through the gate", gated, ": ");
  std::printf("%.2f times as long, p99 %.2f\n", gated.at(0.5) / direct.at(0.5),
              gated.at(0.99) / direct.at(0.99));
}

// Half of them take the greeting and say nothing, half say a part of the opening.
std::vector<int> connect_hostile(const fs::path& share, int count) {
  std::vector<int> held;
  std::array<char, 256> bytes{};
  for (int i = 0; i < count; ++i) {
    held.push_back(connect_to(share));
    if (i % 2 == 0) continue;
    if (::recv(held.back(), bytes.data(), bytes.size(), 0) <= 0) fail("no greeting");
    ::send(held.back(), k_opening[0].data(), k_opening[0].size(), MSG_NOSIGNAL);
  }
  return held;
}

// ---- the gate's memory ----

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

pid_t gate_of(pid_t supervisor) {
  const auto parent = std::to_string(supervisor);
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (std::atoi(entry.path().filename().c_str()) <= 0) continue;
    const auto stat = text_of(entry.path() / "stat");
    const auto name = stat.find("(mps-gate) ");
    if (name == std::string::npos) continue;
    if (stat.compare(name + 13, parent.size() + 1, parent + " ") == 0) {
      return std::atoi(entry.path().filename().c_str());
    }
  }
  fail("there is no gate");
}

// A line such as "VmRSS:      1234 kB".
long kibibytes(const std::string& text, const std::string& name) {
  const auto at = text.find(name + ":");
  return at == std::string::npos ? 0 : std::atol(text.c_str() + at + name.size() + 1);
}

long descriptors_of(pid_t pid) {
  return std::distance(fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd"), {});
}

// Who has closed has not been seen to leave at that moment.
bool is_left_with(pid_t gate, long descriptors) {
  const auto deadline = Clock::now() + std::chrono::seconds(k_answer_within_s);
  while (descriptors_of(gate) > descriptors && Clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return descriptors_of(gate) <= descriptors;
}

void print_memory(const char* when, pid_t gate) {
  const auto folder = fs::path("/proc") / std::to_string(gate);
  const auto parts = text_of(folder / "smaps_rollup");
  std::printf("  %-18s resident %ld KiB, of which its own %ld KiB; %ld descriptors\n", when,
              kibibytes(text_of(folder / "status"), "VmRSS"),
              kibibytes(parts, "Private_Dirty") + kibibytes(parts, "Private_Clean"),
              descriptors_of(gate));
  std::fflush(stdout);
}

// Clients inside that stay, one process each, until they are ended.
class Inside {
 public:
  Inside(const fs::path& share, int count) {
    std::array<int, 2> entered{};
    if (::pipe2(entered.data(), O_CLOEXEC) != 0) fail("pipe");
    for (int i = 0; i < count; ++i) {
      clients_.push_back(::fork());
      if (clients_.back() != 0) continue;
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      (void)enter(share);
      (void)!::write(entered[1], "i", 1);
      for (;;) ::pause();
    }
    char byte = 0;
    for (int i = 0; i < count; ++i) {
      if (::read(entered[0], &byte, 1) != 1) fail("a client did not enter");
    }
    for (const auto end : entered) ::close(end);
  }
  ~Inside() {
    for (const auto pid : clients_) ::kill(pid, SIGKILL);
    for (const auto pid : clients_) ::waitpid(pid, nullptr, 0);
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  std::vector<pid_t> clients_;
};

// Those that a gate has by itself. One that stands may not have all of them yet; one that has let
// somebody in has, and each who is in costs three: both connections, and the process.
long own_descriptors(const fs::path& share, pid_t gate) {
  long own = 0;
  {
    const Inside one(share, 1);
    own = descriptors_of(gate) - 3;
  }
  if (!is_left_with(gate, own)) fail("the gate keeps descriptors");
  return own;
}

void measure_memory(const fs::path& share, pid_t gate, int inside) {
  std::printf("the gate, %d clients inside\n", inside);
  print_memory("with nobody", gate);
  const Inside all(share, inside);
  print_memory("with all of them", gate);
}

// ---- what is started here, and ended however this ends ----

struct Started {
  pid_t by = 0;
  std::vector<pid_t> children{};
  pid_t gate = 0;  // it outlives its supervisor
  fs::path folder{};
};

Started& started() {
  static Started all;
  return all;
}

void end_all() {
  auto& all = started();
  if (all.by != ::getpid()) return;
  for (const auto pid : all.children) ::kill(pid, SIGTERM);
  while (::wait(nullptr) > 0) {
  }
  if (all.gate > 0) ::kill(all.gate, SIGKILL);  // now, so that nobody starts another
  std::error_code ignored;
  fs::remove_all(all.folder, ignored);
}

}  // namespace

int main(int argc, char** argv) {
  int clients = 5000;
  std::vector<int> peers{1, 16, 256};
  int hostile = 1000;
  int inside = 60;
  CLI::App app{"What the way in through a gate costs", "admission_bench"};
  app.add_option("--clients", clients, "in all, for each number of peers")
      ->check(CLI::Range(1, 100000));
  app.add_option("--peers", peers, "at a time")->check(CLI::Range(1, 4096));
  app.add_option("--hostile", hostile, "connections beside them that say nothing, or half")
      ->check(CLI::Range(0, 20000));
  app.add_option("--inside", inside, "clients that stay, for the gate's memory")
      ->check(CLI::Range(0, 1000));
  CLI11_PARSE(app, argc, argv);

  std::string pattern = "/tmp/mps-bench-XXXXXX";
  const fs::path folder = ::mkdtemp(pattern.data());
  const instance::Layout layout(folder, "gpu0.shared");
  if (!layout.make()) fail("make " + folder.string());
  started() = {.by = ::getpid(), .folder = folder};
  std::atexit(end_all);
  started().children.push_back(start_daemon(layout.control));
  std::array<int, 2> ready{};
  if (::pipe2(ready.data(), O_CLOEXEC) != 0) fail("pipe");
  const auto supervisor = ::fork();
  if (supervisor == 0) be_supervisor(folder, layout, ready[1]);
  started().children.push_back(supervisor);
  ::close(ready[1]);
  char byte = 0;
  if (::read(ready[0], &byte, 1) != 1) fail("the gate does not stand");

  auto* const memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  auto& shared = *new (memory) Shared{};
  const auto share = layout.open_pipe / "control";
  const auto gate = gate_of(supervisor);
  started().gate = gate;
  const auto descriptors = own_descriptors(share, gate);
  if (inside > 0) measure_memory(share, gate, inside);
  for (const auto count : peers) {
    std::printf("%d at a time, %d clients\n", count, clients);
    compare(layout.control, share, shared, clients, count);
  }
  const auto held = connect_hostile(share, hostile);
  for (const auto count : held.empty() ? std::vector<int>{} : peers) {
    std::printf("%d at a time, %d clients, beside %d hostile ones\n", count, clients, hostile);
    compare(layout.control, share, shared, clients, count);
  }
  for (const auto socket : held) ::close(socket);
  if (!is_left_with(gate, descriptors)) fail("the gate keeps descriptors");
  std::printf("the gate, in the end\n");
  print_memory("with nobody", gate);
  return 0;
}
