// The connections of all shares' admission.sock: who they are, what each may say now, and how long.
// Nothing here waits: turn() does what can be done at once, and the descriptor says when there is
// more.
//
// What a peer can cost: two descriptors, a few hundred bytes and 32 KiB of unread answers, until
// its deadline, within the bounds of its container and uid. Requests are heard one of each
// container in turn; one at a time of a connection. Descriptors that come with them are never taken
// (closing one may block, where it is of a file system that the peer serves).
//
// Threading: one thread, the desk's.
#pragma once

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>

#include "admission/crowd.h"
#include "admission/desk.h"
#include "admission/protocol.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "gate/system.h"

namespace mps::admission {

struct Limits {
  CrowdBounds crowd{};
  std::chrono::milliseconds silence{10000};  // without a request, unless it has been let in
  std::chrono::milliseconds answer{30000};   // of the desk, beyond what may be waited
  std::chrono::milliseconds longest_wait{std::chrono::hours(24)};
  std::chrono::milliseconds accept_again{100};  // after there were no descriptors
};

// What clients of an instance are told of its device.
struct ServedDevice {
  std::string uuid{};             // empty: not known
  std::string name{};             // "gpu0", "gpu0-mig3"
  std::string visible_devices{};  // what CUDA_VISIBLE_DEVICES has to be; empty: whatever it is
};

struct Counts {
  std::uint64_t accepted = 0;
  std::uint64_t questions = 0;
  std::uint64_t granted = 0;
  std::uint64_t refused = 0;
  std::uint64_t not_reading = 0;  // ended for it
  std::array<std::uint64_t, k_troubles> faults{};

  [[nodiscard]] std::uint64_t of(Trouble code) const {
    return faults.at(static_cast<std::size_t>(code));
  }
};

class Hall {
 public:
  using TimePoint = gate::System::TimePoint;

  Hall(gate::System& system, Desk& desk, Limits limits);
  ~Hall();  // the desk hears nothing of it
  Hall(const Hall&) = delete;
  Hall& operator=(const Hall&) = delete;

  Result<void> start();
  // A listening SOCK_SEQPACKET socket, non-blocking.
  Result<void> add_listener(const std::string& instance, const std::string& share, UniqueFd socket,
                            ServedDevice device = {});
  // Of all listeners of the instance.
  void set_device(const std::string& instance, const ServedDevice& device);
  // Its connections are told, and end.
  void remove_listener(const std::string& instance, const std::string& share);
  // All of them end; the desk hears of it now, and nothing later.
  void close();

  void turn();
  [[nodiscard]] int descriptor() const { return epoll_.get(); }  // readable: turn() has work
  [[nodiscard]] std::size_t connections() const { return connections_.size(); }
  [[nodiscard]] const Counts& counts() const { return counts_; }

 private:
  struct Listener {
    std::string instance;
    std::string share;
    UniqueFd socket;
    ServedDevice device;
  };
  enum class State { silent, idle, busy };
  struct Connection {
    UniqueFd socket{};  // none: it left, and the desk is still at work for it
    UniqueFd pidfd{};
    ucred who{};         // when it connected
    bool early = false;  // it spoke before it was known who has its pid
    ConnectionId listener = 0;
    State state = State::silent;
    std::uint64_t question = 0;  // that is being answered
    std::optional<RequestId> request{};
    std::optional<share::SlotId> slot{};
    share::Refusal waits_for{};
    std::optional<TimePoint> deadline{};
  };

  // Accepting
  void on_listener(ConnectionId id, unsigned events);
  void accept_peers(ConnectionId id);
  void take_in(UniqueFd socket, ConnectionId listener);
  std::optional<Fault> identify(Connection& connection);
  std::optional<Fault> find_place(const ucred& who, const std::string& container);
  [[nodiscard]] std::optional<ConnectionId> choose(const Crowd::Finding& finding) const;
  [[nodiscard]] int worth(const Connection& connection) const;
  void stop_accepting();
  void accept_again();
  void watch_listeners(unsigned events);

  // Talking
  void on_connection(ConnectionId id, unsigned events);
  void listen_to(ConnectionId id);
  std::variant<Question, Fault> judge(const Connection& connection, std::string_view said);
  void answer(ConnectionId id, const Question& question);
  void ask(ConnectionId id, const Ask& question, Peer peer);
  void on_verdict(ConnectionId id, const Verdict& verdict);
  void let_in(ConnectionId id, const share::LetIn& verdict);
  void keep_waiting(ConnectionId id, const share::Waits& why);
  template <typename Answer>
  std::function<void(std::variant<Answer, share::Refusal>)> teller(ConnectionId id);
  [[nodiscard]] const std::string& visible_devices(ConnectionId id) const;
  void answered(ConnectionId id, std::string_view message);
  void refuse(ConnectionId id, const share::Refusal& why);
  void fail(ConnectionId id, const Fault& fault);
  void leave(ConnectionId id);
  void drop(ConnectionId id);
  void count(const Fault& fault);
  void expire();
  void fail_late(ConnectionId id);

  bool watch(int operation, int descriptor, unsigned events, std::uint64_t id);
  void set_deadline(ConnectionId id, Connection& connection, std::optional<TimePoint> deadline);
  void arm_timer();
  // None: it is gone, or answered otherwise.
  Connection* find_asking(ConnectionId id, std::uint64_t question);

  gate::System& system_;
  Desk& desk_;
  Limits limits_;
  UniqueFd epoll_;
  UniqueFd timer_;
  std::optional<TimePoint> armed_;
  std::map<ConnectionId, Listener> listeners_;
  std::unordered_map<ConnectionId, Connection> connections_;
  Crowd crowd_;
  std::set<std::pair<TimePoint, ConnectionId>> deadlines_;
  ConnectionId latest_ = 0;
  std::uint64_t questions_ = 0;
  bool accepting_ = true;
  TimePoint accept_again_{};
  Counts counts_;
  std::shared_ptr<Hall*> self_;  // what the desk holds of it, weakly
};

}  // namespace mps::admission
