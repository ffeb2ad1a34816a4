#include "gate/gate_kit.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

namespace mps::gate::test {

namespace fs = std::filesystem;

// ---- the system ----

bool FaultySystem::fails(Call call, int socket) {
  ++calls;
  const auto found = faults_.find(call);
  if (found == faults_.end() || found->second.times == 0) return false;
  if (socket >= 0 && socket == supervisor) return false;
  --found->second.times;
  errno = found->second.error;
  return true;
}

int FaultySystem::accept(int listener) {
  if (listener != control) return fails(Call::accept) ? -1 : System::accept(listener);
  return supervisor = System::accept(listener);
}

int FaultySystem::pidfd_of(int socket, const ucred& peer, bool& exact) {
  if (fails(Call::pidfd)) return -1;
  const int pidfd = System::pidfd_of(socket, peer, exact);
  exact = exact && !inexact;
  return pidfd;
}

// Not counted as something that happens: it is tried in each turn.
int FaultySystem::connect(int socket, int directory) {
  const bool failed = fails(Call::connect);
  --calls;
  return failed ? -1 : System::connect(socket, directory);
}

ssize_t FaultySystem::receive(int socket, std::span<char> buffer, Received& received) {
  return fails(Call::receive, socket) ? -1 : System::receive(socket, buffer, received);
}

ssize_t FaultySystem::peek(int socket, std::span<char> buffer, Received& received) {
  return fails(Call::peek, socket) ? -1 : System::peek(socket, buffer, received);
}

ssize_t FaultySystem::send(int socket, std::span<const char> bytes, const ucred* credentials,
                           std::span<const int> descriptors) {
  if (socket == supervisor && supervisor_error != 0) {
    errno = supervisor_error;
    return -1;
  }
  return fails(Call::send, socket) ? -1 : System::send(socket, bytes, credentials, descriptors);
}

std::string FaultySystem::cgroup_of(pid_t) {
  if (at_cgroup) at_cgroup();
  return cgroup;
}

int FaultySystem::watch(int epoll, int operation, int descriptor, unsigned events,
                        unsigned long long data) {
  if (operation == EPOLL_CTL_ADD && fails(Call::add, descriptor)) return -1;
  return System::watch(epoll, operation, descriptor, events, data);
}

// ---- sockets ----

std::size_t open_descriptors() {
  const fs::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

UniqueFd make_socket() {
  UniqueFd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  REQUIRE(made);
  return made;
}

}  // namespace

UniqueFd listening(const std::string& path, int backlog) {
  auto made = make_socket();
  const auto address = address_of(path);
  ::unlink(path.c_str());
  REQUIRE(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(::listen(made.get(), backlog) == 0);
  return made;
}

UniqueFd connected(const std::string& path) {
  auto made = make_socket();
  const auto address = address_of(path);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(made.get(), generic, sizeof(address)) == 0) return made;
  REQUIRE(errno == EAGAIN);
  return {};
}

std::string heard(const UniqueFd& socket) {
  static std::vector<char> buffer(300000);
  const auto got = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got > 0) return {buffer.data(), static_cast<std::size_t>(got)};
  if (got == 0) return "(end)";
  return errno == EAGAIN ? "(none)" : "(reset)";
}

bool is_open(const UniqueFd& socket) {
  char byte = 0;
  const auto got = ::recv(socket.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK);
  return got > 0 || (got < 0 && errno == EAGAIN);
}

bool tell(const UniqueFd& socket, std::string_view text, std::vector<int> beside) {
  System plain;
  return plain.send(socket.get(), text, nullptr, beside) >= 0;
}

void tell_from_child(const UniqueFd& socket, const std::vector<std::string>& texts) {
  const auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (const auto& text : texts) (void)::send(socket.get(), text.data(), text.size(), 0);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
}

// ---- the kit ----

Kit::Kit(const Bounds& bounds) : descriptors_(open_descriptors()) {
  std::string name = "/tmp/mps-gate-test-XXXXXX";
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  folder = name;
  auto control = listening(folder + "/gate");
  system.control = control.get();
  gate = std::make_unique<Gate>(system, std::move(control), bounds);
  REQUIRE(gate->start().has_value());
}

Kit::~Kit() {
  supervisor_.reset();
  listeners.clear();
  daemon.reset();
  words.clear();
  gate.reset();
  CHECK(open_descriptors() == descriptors_);
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

void Kit::settle() {
  int quiet = 0;
  for (int i = 0; i < 20000 && quiet < 3; ++i) {
    const auto before = system.calls;
    gate->turn(0ms);
    hear();
    quiet = system.calls == before ? quiet + 1 : 0;
  }
  CHECK(quiet == 3);
}

void Kit::advance(std::chrono::milliseconds by) {
  system.clock += by;
  settle();
}

// Only that it does not return early is asked: a busy machine can't make it do that.
bool Kit::is_idle() {
  settle();
  const auto before = std::chrono::steady_clock::now();
  gate->turn(20ms);
  return std::chrono::steady_clock::now() - before >= 15ms;
}

void Kit::supervise() {
  supervisor_ = connected(folder + "/gate");
  words.clear();
  settle();
}

bool Kit::say(const Message& message, int beside) {
  Buffer buffer;
  const auto bytes = encode(message, buffer);
  const bool said = tell(supervisor_, {bytes.data(), bytes.size()},
                         beside < 0 ? std::vector<int>{} : std::vector<int>{beside});
  settle();
  return said;
}

void Kit::say_bytes(std::string_view bytes) {
  tell(supervisor_, bytes);
  settle();
}

bool Kit::is_supervised() {
  settle();
  return supervisor_ && is_open(supervisor_);
}

void Kit::set_up() {
  std::vector<std::string> texts{k_greeting};
  texts.insert(texts.end(), k_opening.begin(), k_opening.end());
  const auto packed = pack(texts);
  say({.kind = Kind::setup, .bytes = packed});
}

void Kit::serve() {
  if (!daemon) {
    fs::create_directory(folder + "/daemon");
    daemon = listening(folder + "/daemon/control");
    const int yes = 1;
    ::setsockopt(daemon.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
  }
  const UniqueFd directory(::open((folder + "/daemon").c_str(), O_PATH | O_CLOEXEC));
  say({.kind = Kind::daemon}, directory.get());
}

void Kit::listen(const std::string& share) {
  auto& listener = listeners[share];
  if (!listener) listener = listening(folder + "/" + share);
  say({.kind = Kind::listen, .share = share}, listener.get());
}

void Kit::start() {
  supervise();
  set_up();
  serve();
  listen();
}

void Kit::hear() {
  System plain;
  Buffer buffer;
  Received received;
  while (supervisor_) {
    const auto got = plain.receive(supervisor_.get(), buffer, received);
    if (got <= 0) return;
    const auto message = decode({buffer.data(), static_cast<std::size_t>(got)});
    REQUIRE(message.has_value());
    auto& word = words.emplace_back();
    word = {message->kind, message->peer, message->pid,
            message->uid,  message->code, std::string(message->share),
            UniqueFd()};
    if (received.descriptor_count == 0) continue;
    REQUIRE(received.descriptor_count == 1);
    word.beside.reset(received.descriptors[0]);
    received.descriptor_count = 0;
  }
}

std::optional<Heard> Kit::find(Kind kind) {
  settle();
  const auto found = std::find_if(words.begin(), words.end(),
                                  [kind](const auto& word) { return word.kind == kind; });
  if (found == words.end()) return std::nullopt;
  auto word = std::move(*found);
  words.erase(found);
  return word;
}

Heard Kit::expect(Kind kind) {
  auto word = find(kind);
  REQUIRE_MESSAGE(word.has_value(), "not said: " << static_cast<int>(kind));
  return std::move(*word);
}

std::size_t Kit::count(Kind kind) {
  settle();
  return static_cast<std::size_t>(std::count_if(
      words.begin(), words.end(), [kind](const auto& word) { return word.kind == kind; }));
}

UniqueFd Kit::join(const std::string& share) {
  auto peer = connected(folder + "/" + share);
  REQUIRE(peer);
  settle();
  return peer;
}

UniqueFd Kit::open_up(const std::string& share) {
  auto peer = join(share);
  REQUIRE(heard(peer) == k_greeting);
  for (const auto& text : k_opening) REQUIRE(tell(peer, text));
  settle();
  return peer;
}

UniqueFd Kit::accept() {
  settle();
  return UniqueFd(::accept4(daemon.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

UniqueFd Kit::accept_and_greet() {
  auto end = accept();
  REQUIRE(end);
  REQUIRE(tell(end, k_greeting));
  settle();
  return end;
}

void Kit::expect_opening(const UniqueFd& end, pid_t pid) {
  System plain;
  std::array<char, 64> buffer{};
  for (const auto& text : k_opening) {
    Received received;
    REQUIRE(plain.receive(end.get(), buffer, received) == static_cast<ssize_t>(text.size()));
    CHECK(std::string(buffer.data(), received.size) == text);
    REQUIRE(received.credentials);
    CHECK(received.credentials->pid == pid);
    CHECK(received.credentials->uid == ::getuid());
  }
}

Inside Kit::enter(const std::string& share) {
  Inside inside;
  inside.peer = open_up(share);
  inside.id = expect(Kind::ask).peer;
  let_in(inside.id);
  inside.daemon = accept_and_greet();
  expect_opening(inside.daemon, ::getpid());
  CHECK(expect(Kind::inside).peer == inside.id);
  return inside;
}

void Kit::let_through(const UniqueFd& peer) {
  if (!is_supervised()) supervise();
  const auto ask = expect(Kind::ask);
  let_in(ask.peer);
  const auto end = accept_and_greet();
  expect_opening(end, ::getpid());
  CHECK(expect(Kind::inside).peer == ask.peer);
  CHECK(is_open(peer));
}

void Kit::expect_refusal(Refusal why, std::uint64_t times) {
  advance(100ms);
  const auto refused = expect(Kind::refused);
  CHECK(std::string(to_string(static_cast<Refusal>(refused.code))) == to_string(why));
  CHECK(refused.peer == times);
  CHECK(refused.share == "s");
  CHECK(refused.pid == ::getpid());
}

}  // namespace mps::gate::test
