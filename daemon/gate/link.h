// The supervisor's end of one gate: finds the one that an earlier supervisor left, or starts one,
// and starts it again when it dies. Holds the listening sockets too, so that newcomers wait in the
// backlog while there is no gate.
//
// Threading: the executor given. The handler is called from it, never from within a call of ours.
#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "gate/wire.h"
#include "process/child.h"

namespace mps::gate {

// A program at the gate. Its pidfd was opened before it was greeted.
struct Peer {
  std::uint64_t id = 0;  // of this gate process
  std::string share;
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  UniqueFd pidfd{};
};

class Handler {
 public:
  virtual ~Handler() = default;
  virtual void gate_stands(pid_t pid, bool adopted) = 0;  // what is inside of it follows
  virtual void gate_lost(const std::string& how) = 0;     // all that it said of peers is void
  virtual void is_inside(Peer peer) = 0;                  // let in by an earlier supervisor
  virtual void all_listed() = 0;
  virtual void asks(Peer peer) = 0;  // answer with let_in() or refuse()
  virtual void entered(std::uint64_t peer) = 0;
  virtual void not_entered(std::uint64_t peer, int error) = 0;  // it waits for another let_in()
  virtual void gone(std::uint64_t peer) = 0;                    // before it was inside
  virtual void left(std::uint64_t peer) = 0;                    // the connection, not the process
  virtual void refused(pid_t pid, uid_t uid, Refusal why, unsigned times) = 0;
};

class Link : public std::enable_shared_from_this<Link> {
 public:
  struct Settings {
    std::string name;               // of the instance, for `ps`
    std::filesystem::path program;  // mps-gate
    std::filesystem::path socket;   // where gates wait for supervisors; in a directory of mode 0700
    std::vector<std::string> environment{};
  };

  Link(const boost::asio::any_io_executor& executor, Settings settings, Handler& handler);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void start();
  // The gate goes on; nothing is called any more.
  void close();
  // Who waits is refused, who is inside is cut off, and the gate's process ends. Nothing is called
  // any more.
  void end();

  // All of these are remembered, and said to each gate that comes.
  void set_up(std::string greeting, const std::vector<std::string>& opening);
  void serve(UniqueFd daemon_directory);  // O_PATH
  void hold();                            // no daemon: who is let in waits
  // A listening SOCK_SEQPACKET socket. Of a share that is listened for already nothing changes.
  void listen(const std::string& share, UniqueFd socket);
  void unlisten(const std::string& share);
  // A gate that was found may have shares' sockets that this supervisor has not.
  [[nodiscard]] bool listens(const std::string& share) const { return listeners_.contains(share); }
  // Its socket, still ours; -1: none.
  [[nodiscard]] int listener(const std::string& share) const;

  void let_in(std::uint64_t peer);
  void refuse(std::uint64_t peer);

  [[nodiscard]] bool stands() const { return listed_; }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  using Self = std::shared_ptr<Link>;
  struct Word {
    std::string bytes;
    int descriptor = -1;  // a duplicate of ours, closed when it was said
  };

  static boost::asio::awaitable<void> run(Self self);
  static boost::asio::awaitable<void> write(Self self, std::uint64_t turn);
  static boost::asio::awaitable<void> give_up(Self self);
  static boost::asio::awaitable<void> reap(std::shared_ptr<process::Child> child);
  boost::asio::awaitable<std::string> converse();
  Result<UniqueFd> connect_or_start();
  Result<UniqueFd> start_gate();
  // False: the gate is let go, with the reason in trouble_.
  bool hear(const Message& message, UniqueFd beside);
  bool welcome(const Message& message);
  void introduce();
  void say(const Message& message, int descriptor);
  void clear_words();

  boost::asio::any_io_executor executor_;
  Settings settings_;
  Handler* handler_;
  std::optional<boost::asio::posix::stream_descriptor> gate_;
  boost::asio::steady_timer pause_;
  std::deque<Word> words_;
  bool writing_ = false;
  std::uint64_t turn_ = 0;  // of the connection
  bool started_here_ = false;
  bool greeted_ = false;
  bool listed_ = false;
  bool closed_ = false;
  bool ending_ = false;  // only its end is waited for
  pid_t pid_ = 0;
  std::string trouble_;

  std::string setup_;  // packed
  UniqueFd daemon_directory_;
  std::map<std::string, UniqueFd> listeners_;
};

}  // namespace mps::gate
