// The one server that a control daemon has, and the clients that wait for one. One server per uid
// at a time: other uids wait until its clients have gone. A server that ends while clients of its
// uid wait is started again, six starts in all. Time is passed in.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "log_pipe.h"
#include "steering.h"
#include "values.h"

namespace mps::sim {

using Clock = std::chrono::steady_clock;

struct Defaults {
  double percentage = 100.0;
  PinnedLimits limits{};
  int priority = 0;
};

class ServerKeeper {
 public:
  // `for_all_users`: one server, root's, and everybody counts as root (-multiuser-server).
  ServerKeeper(const LogWriter& log, const Defaults& defaults, bool is_535, bool for_all_users)
      : log_(log), defaults_(defaults), is_535_(is_535), for_all_users_(for_all_users) {}

  // Connections from outside.
  void add_client(UniqueFd socket, ucred peer);
  void on_ready(UniqueFd socket, const ucred& peer);
  void on_failure(UniqueFd socket, const ucred& peer);
  void on_exit(pid_t pid, int status);

  // Commands.
  void start(uid_t uid);
  void shut_down(bool by_force);
  void begin_quit(std::optional<std::chrono::seconds> until_forced);

  [[nodiscard]] std::optional<pid_t> server() const;
  [[nodiscard]] bool is_ready() const;  // takes orders; on 535 not while it shuts down
  [[nodiscard]] int orders() const { return server_ ? server_->socket.get() : -1; }
  // The first status but 0 that a server ended with: the daemon's own, as with the real one.
  [[nodiscard]] int exit_status() const { return exit_status_; }

  [[nodiscard]] std::optional<Clock::time_point> deadline() const;
  void on_time(Clock::time_point now);

 private:
  struct Server {
    pid_t pid = 0;
    uid_t uid = 0;
    UniqueFd socket;
    bool ready = false;
    bool leaving = false;
    std::chrono::milliseconds next_pause{200};
    std::optional<Clock::time_point> next_try;
  };
  struct Waiting {
    UniqueFd socket;
    uid_t uid = 0;
  };

  void launch(uid_t uid);
  void run_server(uid_t uid) const;
  bool send_defaults() const;
  void serve_waiting();
  void hand_over(const UniqueFd& client) const;
  void ask_to_leave(bool is_retry, bool by_force);
  [[nodiscard]] bool anybody_waits(uid_t uid) const;

  const LogWriter& log_;
  const Defaults& defaults_;
  bool is_535_;
  bool for_all_users_;
  std::optional<Server> server_;
  std::deque<Waiting> waiting_;
  std::optional<uid_t> wanted_;  // start_server for another uid
  int starts_ = 0;
  bool quitting_ = false;
  std::optional<Clock::time_point> force_at_;
  int exit_status_ = 0;
};

}  // namespace mps::sim
