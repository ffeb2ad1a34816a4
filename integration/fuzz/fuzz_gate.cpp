// The gate between a supervisor, peers and a daemon that each do anything: the input is a list of
// steps, two bytes each, and what is said in them. Nobody is closed who has not spoken, and each
// turn comes to an end.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "gate/gate.h"
#include "gate/system.h"
#include "gate/wire.h"
#include "targets.h"

namespace mps::fuzz {

namespace {

using namespace mps::gate;

constexpr std::size_t k_steps = 64;
constexpr std::size_t k_peers = 24;
const std::string k_greeting("greeting\0", 9);
const std::string k_first("an opening");
const std::string k_second("four");

class Machine : public System {
 public:
  TimePoint now() override { return clock; }
  std::string cgroup_of(pid_t) override { return cgroup; }
  int accept(int listener) override { return short_of() ? -1 : System::accept(listener); }
  int pidfd_of(int socket, const ucred& peer, bool& exact) override {
    return short_of() ? -1 : System::pidfd_of(socket, peer, exact);
  }
  ssize_t receive(int socket, std::span<char> buffer, Received& received) override {
    return short_of() ? -1 : System::receive(socket, buffer, received);
  }
  ssize_t send(int socket, std::span<const char> bytes, const ucred* credentials,
               std::span<const int> descriptors) override {
    return short_of() ? -1 : System::send(socket, bytes, credentials, descriptors);
  }
  int watch(int epoll, int operation, int descriptor, unsigned events,
            unsigned long long data) override {
    // To be taken out of a set, or changed in it, needs no memory.
    if (operation == 1 && short_of()) return -1;
    return System::watch(epoll, operation, descriptor, events, data);
  }

  TimePoint clock{std::chrono::hours(1)};
  std::string cgroup;
  int failures = 0;  // of the next calls
  int error = 0;

 private:
  bool short_of() {
    if (failures == 0) return false;
    --failures;
    errno = error;
    return true;
  }
};

struct Program {
  UniqueFd socket;
  bool spoke = false;
};

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// At an address that the kernel gives, or at a path.
UniqueFd listening(const std::string& path = {}) {
  auto made = make_socket();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto size = path.empty() ? sizeof(address.sun_family) : sizeof(address);
  require(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address),
                 static_cast<socklen_t>(size)) == 0 &&
              ::listen(made.get(), 64) == 0,
          "a socket listens");
  return made;
}

UniqueFd connected(const UniqueFd& listener) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  auto made = make_socket();
  if (::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) return {};
  return made;
}

const std::string& folder() {
  static const std::string name = [] {
    std::string made = "/tmp/mps-fuzz-gate-XXXXXX";
    require(::mkdtemp(made.data()) != nullptr, "a folder is made");
    static std::string kept;
    kept = made;
    (void)std::atexit([] {
      ::unlink((kept + "/control").c_str());
      ::rmdir(kept.c_str());
    });
    return made;
  }();
  return name;
}

class Play {
 public:
  Play() {
    auto control = listening();
    control_ = UniqueFd(::dup(control.get()));
    Bounds bounds;
    bounds.peers = 12;
    bounds.greeted_of_container = 3;
    bounds.asked_of_container = 2;
    bounds.listeners = 2;
    bounds.containers = 2;
    bounds.reports = 8;
    gate_.emplace(machine_, std::move(control), bounds);
    require(gate_->start().has_value(), "a gate starts");
    ::unlink((folder() + "/control").c_str());
    daemon_ = listening(folder() + "/control");
    directory_ = UniqueFd(::open(folder().c_str(), O_PATH | O_CLOEXEC));
  }

  void step(unsigned what, unsigned how, std::string_view& rest) {
    switch (what % 12) {
      case 0:
        supervisor_ = connected(control_);
        break;
      case 1:
        return say(static_cast<Kind>(1 + how % 8), how);
      case 2:
        return say_bytes(take(rest, how));
      case 3:
        if (programs_.size() < k_peers)
          programs_.push_back({connected(listeners_[how % 2]), false});
        break;
      case 4:
        return speak(how, k_first);
      case 5:
        return speak(how, k_second);
      case 6:
        return speak(how, take(rest, how % 32));
      case 7:
        if (!programs_.empty()) programs_.erase(programs_.begin() + place(how));
        break;
      case 8:
        machine_.clock += std::chrono::milliseconds(how * 2);
        break;
      case 9:
        return serve(how);
      case 10:
        machine_.failures = static_cast<int>(how % 8);
        machine_.error = std::array{ENOMEM, EMFILE, ENOBUFS, EAGAIN, EINTR}.at(how % 5);
        break;
      default:
        machine_.cgroup = std::to_string(how % 4);
    }
  }

  void turn() {
    for (int i = 0; i < 3 && !ended_; ++i) ended_ = !gate_->turn(std::chrono::milliseconds(0));
    hear();
    for (auto& program : programs_) look_at(program);
    require(gate_->peers() <= 12, "peers are bounded");
  }

 private:
  static std::string take(std::string_view& rest, std::size_t size) {
    const auto taken = rest.substr(0, size);
    rest.remove_prefix(taken.size());
    return std::string(taken);
  }

  [[nodiscard]] std::ptrdiff_t place(unsigned how) const {
    return static_cast<std::ptrdiff_t>(how % programs_.size());
  }

  void say_bytes(std::string_view bytes, int beside = -1) {
    System plain;
    const std::span<const int> descriptors(&beside, beside < 0 ? 0U : 1U);
    if (supervisor_) (void)plain.send(supervisor_.get(), bytes, nullptr, descriptors);
  }

  void say(Kind kind, unsigned how) {
    const auto packed = pack({k_greeting, how % 4 == 3 ? k_second : k_first, k_second});
    Message message;
    message.kind = kind;
    message.peer = asked_.empty() ? how : asked_[how % asked_.size()];
    message.share = how % 2 == 0 ? "a" : "b";
    message.bytes = packed;
    Buffer buffer;
    const auto bytes = encode(message, buffer);
    const int beside = kind == Kind::daemon   ? directory_.get()
                       : kind == Kind::listen ? listeners_[how % 2].get()
                                              : -1;
    say_bytes({bytes.data(), bytes.size()}, beside);
  }

  void hear() {
    System plain;
    Buffer buffer;
    Received received;
    for (;;) {
      const auto got = supervisor_ ? plain.receive(supervisor_.get(), buffer, received) : -1;
      if (got <= 0) return;
      const auto message = decode({buffer.data(), static_cast<std::size_t>(got)});
      require(message.has_value(), "the gate speaks its protocol");
      if (message->kind == Kind::ask) asked_.push_back(message->peer);
    }
  }

  void speak(unsigned how, const std::string& text) {
    if (programs_.empty()) return;
    auto& program = programs_[static_cast<std::size_t>(place(how))];
    if (!program.socket) return;
    program.spoke = true;
    (void)::send(program.socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  // An end before it spoke is what lets CUDA run without limits.
  static void look_at(Program& program) {
    std::array<char, 64> buffer{};
    while (program.socket) {
      const auto got = ::recv(program.socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) return;
      require(got > 0 || program.spoke, "nobody is closed who has not spoken");
      if (got <= 0) program.socket.reset();
    }
  }

  void serve(unsigned how) {
    UniqueFd end(::accept4(daemon_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (end && sessions_.size() < k_peers) sessions_.push_back(std::move(end));
    if (sessions_.empty()) return;
    auto& session = sessions_[how % sessions_.size()];
    const auto& text = how % 8 == 7 ? k_second : k_greeting;
    (void)::send(session.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (how % 16 == 15) sessions_.clear();
  }

  Machine machine_;
  std::optional<Gate> gate_;
  bool ended_ = false;
  UniqueFd control_, supervisor_, daemon_, directory_;
  std::array<UniqueFd, 2> listeners_{listening(), listening()};
  std::vector<Program> programs_;
  std::vector<UniqueFd> sessions_;
  std::vector<std::uint64_t> asked_;
};

void check_wire(std::string_view text) {
  const auto message = decode(text);
  if (message) {
    Buffer buffer;
    const auto again = decode(encode(*message, buffer));
    require(again && again->kind == message->kind && again->share == message->share &&
                again->bytes == message->bytes && again->peer == message->peer,
            "what was decoded is encoded the same");
  }
  const auto texts = unpack(text);
  require(!texts || pack(*texts) == text, "what was unpacked is packed the same");
}

}  // namespace

void gate(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  check_wire(text);
  Play play;
  std::string_view rest = text;
  for (std::size_t i = 0; i < k_steps && rest.size() >= 2; ++i) {
    const auto what = static_cast<unsigned char>(rest[0]);
    const auto how = static_cast<unsigned char>(rest[1]);
    rest.remove_prefix(2);
    play.step(what, how, rest);
    play.turn();
  }
}

}  // namespace mps::fuzz
