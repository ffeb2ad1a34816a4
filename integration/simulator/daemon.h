// The simulated control daemon. One thread and one poll loop as the real one, which waits for each
// new peer's opening before it looks at anybody else; a second thread prints the log.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/unique_fd.h"
#include "commands.h"
#include "log_pipe.h"
#include "pipe_folder.h"
#include "server_keeper.h"
#include "steering.h"
#include "wire.h"

namespace mps::sim {

struct DaemonOutput {
  int control = 1;
  int servers = 1;
};

class Daemon {
 public:
  Daemon(Steering steering, bool for_all_users);  // -multiuser-server
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Prints why it cannot; otherwise it is listening when this returns.
  bool start(const DaemonOutput& output);
  int run();  // the exit status

 private:
  struct FrontEnd {
    UniqueFd socket;
    Session session;
  };

  void read_environment();
  void poll_once();
  void accept_from(int listener, bool is_privileged);
  [[nodiscard]] bool gets_no_greeting(int socket) const;
  void sort(UniqueFd socket, const ucred& peer, Peer kind, bool is_privileged);
  void open_session(UniqueFd socket, const ucred& peer, bool is_privileged);
  void read_command();
  void answer(std::string_view text);
  void end_session(std::int32_t status);
  void reap();
  void begin_quit();
  int finish();

  Steering steering_;
  bool for_all_users_;
  PipeFolder folder_;
  std::unique_ptr<LogWriter> log_;
  Defaults defaults_;
  std::unique_ptr<ServerKeeper> keeper_;
  std::unique_ptr<Commands> commands_;
  UniqueFd child_signals_;
  std::thread printer_;
  std::optional<FrontEnd> front_end_;
  std::deque<UniqueFd> forgotten_;  // the real one never closes these either
  bool quitting_ = false;
};

}  // namespace mps::sim
