// What stands between the sockets that containers see and one control daemon. It asks the
// supervisor about each program that wants in, and relays those that may. It knows no protocol: an
// opening is either what a known client sends, byte for byte, or it is refused.
//
// CUDA runs without MPS and without limits when its first connection fails. So no connection is
// closed before its peer has had the greeting and has said something; on any trouble before that
// (descriptors, memory, bounds, no supervisor) it is held, or left in the backlog.
//
// Fair: who waits to be asked for stands in the line of its container (its cgroup), and the lines
// take turns. Bounded: peers in all, and how many of a container are greeted, or asked for, at a
// time. Once a peer is inside, nothing is allocated for it.
//
// The daemon takes one connection at a time, so one peer at a time is taken to it, with a deadline.
//
// No spin: epoll reports the end of a connection whether it is asked to or not, so what can't be
// worked on is taken out of the set (or fires once), and is looked at again in a moment.
//
// Threading: one thread, which calls turn().
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "gate/system.h"
#include "gate/wire.h"

namespace mps::gate {

struct Bounds {
  std::uint32_t peers = 131072;               // two descriptors each
  std::uint32_t greeted_of_container = 4096;  // and not yet asked for; the others wait ungreeted
  std::uint32_t asked_of_container = 64;      // without a verdict
  std::uint32_t listeners = 1024;
  std::uint32_t containers = 8192;  // those beyond share one line
  std::uint32_t reports = 8192;     // to a supervisor that does not read; then it is let go
  std::chrono::milliseconds entering{100};
};

class Gate {
 public:
  // `control` listens for supervisors (SOCK_SEQPACKET, in a directory of ours alone).
  Gate(System& system, UniqueFd control, const Bounds& bounds);
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Before the first turn.
  Result<void> start();
  // Waits for something to do, at most `limit`, and does it. False: the supervisor asked for the
  // end, and nobody is left who may not be closed yet.
  bool turn(std::chrono::milliseconds limit);

  [[nodiscard]] std::size_t peers() const { return peer_count_; }

 private:
  using Index = std::uint32_t;
  static constexpr Index k_none = 0xffffffffU;
  static constexpr std::uint8_t k_outdated = 0xff;  // `said` of who was greeted by another driver

  enum class Step : std::uint8_t {
    free,
    parked,    // not greeted: nobody said how, or too many of its container are
    speaking,  // greeted; its opening is not complete
    queued,    // to be asked for
    asked,
    entering,  // let in; waits for its turn at the daemon, or has it
    inside,
  };
  enum class What : std::uint8_t { control, supervisor, listener, peer, daemon };

  struct Container;
  struct Line {  // of peers, linked by `next` and `previous`
    Index first = k_none;
    Index last = k_none;
  };
  struct Peer {
    UniqueFd socket, daemon, pidfd;
    std::uint64_t id = 0;
    Container* container = nullptr;
    Index listener = k_none;
    Index next = k_none, previous = k_none;
    ucred who{};            // as at connect
    ucred spoke{};          // as in the opening
    std::uint8_t said = 0;  // messages of the opening
    Step step = Step::free;
    bool counted = false;  // among its container's greeted
    bool early = false;    // it may have spoken before its pidfd was opened, or ended before that
    bool watched = false;  // its socket is in the epoll set
    bool stalled = false;  // something was short: looked at again in a moment
    bool to_peer_full = false, to_daemon_full = false;
  };
  // Containers that wait for something, each in turn. Linked, since nothing may be allocated.
  struct Ring {
    Container* first = nullptr;
    Container* last = nullptr;
  };
  struct Link {
    Container* next = nullptr;
    Container* previous = nullptr;
    bool linked = false;
  };
  struct Container {
    std::string cgroup;
    std::uint32_t peers = 0, greeted = 0, asked = 0;
    Line parked, queued;
    Link to_ask, to_greet;
  };
  struct Listener {
    std::string share;
    UniqueFd socket;
    bool open = false;        // else: who came through it and has spoken is refused
    std::uint32_t peers = 0;  // that came through it: its place is not given away before they left
  };
  struct Report {
    Kind kind{};
    std::uint64_t peer = 0;
    ucred who{};
    std::uint32_t code = 0;
  };
  // The last of those that are not reported yet.
  struct Refused {
    ucred who{};
    Refusal why{};
    std::array<char, k_share_limit> share{};
    std::size_t share_size = 0;
    std::uint32_t times = 0;
  };
  enum class Passed : std::uint8_t { nothing, one, later, ended };

  // events
  void on_event(std::uint64_t data, unsigned events);
  void accept_supervisor();
  void on_supervisor(Index which, unsigned events);
  void on_listener(Index index, unsigned events);
  void on_peer(Index index, unsigned events);
  void on_waiting(Index index, unsigned events);
  void on_daemon(Index index, unsigned events);
  void on_inside(Index index, bool of_peer, unsigned events);

  // the supervisor's words
  bool hear();
  bool understand(std::span<const char> bytes);
  bool obey(const Message& message, UniqueFd beside);
  bool set_up(std::string_view packed);
  void outdate(Index index);
  bool add_listener(std::string_view share, UniqueFd socket);
  void remove_listener(std::string_view share);
  void close_listener(Index index);
  void begin_end();
  void verdict(std::uint64_t peer, bool let_in);
  void lose_supervisor();

  // telling it
  void report(Kind kind, std::uint64_t peer, const ucred& who, std::uint32_t code);
  void report_refusal(const Peer& peer, Refusal why);
  void speak();
  bool say_next();
  bool say_report();
  bool say_refusals();
  bool say_listed();
  bool say_of(Kind kind, const Peer& peer);
  bool say(const Message& message, int descriptor);
  bool ask_one();

  // peers
  bool accept_peers(Index listener);
  void empty_backlog(Index listener);
  void take_in(UniqueFd socket, Index listener);
  bool open_pidfd(Peer& peer);
  Container& container_of(pid_t pid);
  void greet_parked();
  [[nodiscard]] bool may_greet(std::uint32_t greeted) const;
  bool say_greeting(int socket);
  bool greet(Index index);
  bool dropped_if_away(Index index);
  void now_speaks(Index index);
  void no_more_greeted(Peer& peer, Container& container);
  void listen_to(Index index);
  bool take_opening(Index index);
  void queue(Index index);
  void judge(Index index, std::string_view said);
  void refuse(Index index, Refusal why);
  void turn_away(Index index);
  void drop(Index index);
  void leave_container(Peer& peer);

  // the way in
  void next_to_enter();
  void begin_entering(Index index);
  void connect_to_daemon(Index index);
  void greeted_by_daemon(Index index);
  void hand_over(Index index);
  void not_entered(Index index, int error);
  void back_to_line(Index index);

  // inside
  void relay(Index index, bool to_daemon);
  Passed relay_one(Peer& peer, bool to_daemon);
  Passed pass_on(Peer& peer, bool to_daemon);
  void watch_ends(Index index);

  // lines
  void append(Line& line, Index index);
  void remove(Line& line, Index index);
  Line* line_of(Peer& peer);
  [[nodiscard]] Index find(std::uint64_t id) const;
  bool have_slot();
  Index take_slot();
  void link(Ring& ring, Link Container::*which, Container& container);
  void unlink(Ring& ring, Link Container::*which, Container& container);
  void greet_waiting();
  bool watch(int operation, int descriptor, unsigned events, What what, Index index);
  [[nodiscard]] static std::uint32_t round_of(std::uint64_t id);
  bool watch_peer(Index index, unsigned events);
  void stop_accepting();
  void listen_again();
  void stall(Index index);
  void again_later();
  void try_again();
  void look_again(Index index);
  void deadlines();
  [[nodiscard]] bool can_enter() const;
  [[nodiscard]] int wait_time(std::chrono::milliseconds limit) const;

  System& system_;
  Bounds bounds_;
  UniqueFd control_, supervisor_, epoll_, daemon_directory_;
  std::vector<Listener> listeners_;
  std::deque<Peer> peers_;  // slots; they stay where they are
  Index free_ = k_none;     // linked by `next`
  std::size_t peer_count_ = 0;
  std::uint32_t greeted_ = 0;  // of all containers, and not yet asked for
  std::uint64_t rounds_ = 0;   // makes ids unique: a slot's index, and which peer of it this is
  std::unordered_map<std::string, std::unique_ptr<Container>> containers_;
  Container overflow_;
  Ring to_ask_;    // somebody of it is to be asked for
  Ring to_greet_;  // somebody of it may be greeted now
  Line entering_;
  bool taking_ = false;  // the first of `entering_` has its turn
  System::TimePoint enter_by_{};
  bool enter_again_ = false;  // the daemon's backlog is full
  bool accepting_ = false;
  bool exact_pidfds_ = false;  // this kernel gives them; learnt from the first peer
  bool stalled_ = false;       // a peer or something else: to be tried again at again_at_
  System::TimePoint again_at_{};

  std::string greeting_;
  std::vector<std::string> opening_;

  std::vector<Report> reports_;  // a ring
  std::size_t first_report_ = 0, report_count_ = 0;
  UniqueFd reserve_;  // given up for a supervisor when descriptors are short
  Index listed_listeners_ = 0, listed_peers_ = 0;
  bool listed_ = false;
  bool mute_ = false;           // the supervisor has no room
  bool more_to_say_ = false;    // than is said in one turn
  Index which_supervisor_ = 0;  // so that an event of the one before is none of this one's
  Refused refused_;
  System::TimePoint refusals_at_{};
  bool ending_ = false;
  Received received_;
};

}  // namespace mps::gate
