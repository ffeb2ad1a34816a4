// For tests: a gate with a supervisor, a daemon and peers, all in one process and one thread. Its
// clock stands still unless it is moved, and its calls fail when they are told to.
#pragma once

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "gate/gate.h"
#include "gate/system.h"
#include "gate/wire.h"

namespace mps::gate::test {

using namespace std::chrono_literals;

inline const std::string k_greeting("greet\0ng\0", 9);
inline const std::vector<std::string> k_opening{std::string("openin\0g!", 9),
                                                std::string("cl\0i", 4)};

enum class Call : std::uint8_t { accept, pidfd, socket, connect, receive, peek, send, add };

class FaultySystem : public System {
 public:
  // From the next on; those at the supervisor's socket never fail.
  void fail(Call call, int error, int times = 1 << 30) { faults_[call] = {error, times}; }
  void heal() { faults_.clear(); }

  TimePoint now() override { return clock; }
  int accept(int listener) override;
  int pidfd_of(int socket, const ucred& peer, bool& exact) override;
  bool has_ended(int pidfd) override { return ended || System::has_ended(pidfd); }
  std::string cgroup_of(pid_t) override;
  int socket() override { return fails(Call::socket) ? -1 : System::socket(); }
  int connect(int socket, int directory) override;
  ssize_t receive(int socket, std::span<char> buffer, Received& received) override;
  ssize_t peek(int socket, std::span<char> buffer, Received& received) override;
  ssize_t send(int socket, std::span<const char> bytes, const ucred* credentials,
               std::span<const int> descriptors) override;
  int watch(int epoll, int operation, int descriptor, unsigned events,
            unsigned long long data) override;

  TimePoint clock{std::chrono::hours(1)};
  std::string cgroup = "0::/a\n";     // of who is accepted next
  std::function<void()> at_cgroup{};  // called when it is asked for
  bool ended = false;                 // every process
  bool inexact = false;               // as kernels before 6.5
  int control = -1, supervisor = -1;
  int supervisor_error = 0;  // of what it is told
  long calls = 0;

 private:
  struct Fault {
    int error = 0;
    int times = 0;
  };
  bool fails(Call call, int socket = -1);
  std::map<Call, Fault> faults_;
};

struct Heard {
  Kind kind{};
  std::uint64_t peer = 0;
  pid_t pid = 0;
  uid_t uid = 0;
  std::uint32_t code = 0;
  std::string share;
  UniqueFd beside;
};

struct Inside {
  UniqueFd peer, daemon;
  std::uint64_t id = 0;
};

std::size_t open_descriptors();
UniqueFd listening(const std::string& path, int backlog = 4096);
UniqueFd connected(const std::string& path);  // -1: its backlog is full
// "(none)", "(end)", "(reset)" or what was said.
std::string heard(const UniqueFd& socket);
bool is_open(const UniqueFd& socket);
bool tell(const UniqueFd& socket, std::string_view text, std::vector<int> beside = {});
// A child says it, on a socket of ours.
void tell_from_child(const UniqueFd& socket, const std::vector<std::string>& texts);

class Kit {
 public:
  explicit Kit(const Bounds& bounds = {});
  ~Kit();  // checks that no descriptor is left over
  Kit(const Kit&) = delete;
  Kit& operator=(const Kit&) = delete;

  // Turns until nothing more happens.
  void settle();
  void advance(std::chrono::milliseconds by);
  // It waits when there is nothing to do.
  bool is_idle();

  void supervise();  // a new supervisor connects
  void leave() { supervisor_.reset(); }
  bool say(const Message& message, int beside = -1);
  void say_bytes(std::string_view bytes);
  bool is_supervised();
  [[nodiscard]] const UniqueFd& supervisor() const { return supervisor_; }
  void set_up();
  void serve();  // the daemon
  void listen(const std::string& share = "s");
  void start();  // all of the above

  // The first of this kind that was said and not been read yet.
  std::optional<Heard> find(Kind kind);
  Heard expect(Kind kind);
  std::size_t count(Kind kind);

  UniqueFd join(const std::string& share = "s");     // connects
  UniqueFd open_up(const std::string& share = "s");  // and says all, once it is greeted
  void let_in(std::uint64_t id) { say({.kind = Kind::let_in, .peer = id}); }
  UniqueFd accept();  // the daemon's end
  UniqueFd accept_and_greet();
  void expect_opening(const UniqueFd& daemon, pid_t pid);
  Inside enter(const std::string& share = "s");
  // Asks a new supervisor, if need be: the gate has forgotten nothing.
  void let_through(const UniqueFd& peer);
  void expect_refusal(Refusal why, std::uint64_t times = 1);

  FaultySystem system;
  std::string folder;
  std::map<std::string, UniqueFd> listeners;  // the supervisor's
  UniqueFd daemon;
  std::unique_ptr<Gate> gate;
  std::deque<Heard> words;

 private:
  void hear();
  std::size_t descriptors_;
  UniqueFd supervisor_;
};

}  // namespace mps::gate::test
