// What the control daemon makes of a line from a front-end: the real answers, word for word.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "log_pipe.h"
#include "server_keeper.h"

namespace mps::sim {

struct Session {
  bool privileged = false;  // came through control_privileged
  uid_t uid = 0;
};

class Commands {
 public:
  using Answer = std::function<void(std::string_view)>;  // logs and sends one answer

  Commands(const LogWriter& log, Defaults& defaults, ServerKeeper& keeper, bool is_535)
      : log_(log), defaults_(defaults), keeper_(keeper), is_535_(is_535) {}

  // True when the daemon is to quit; the session then ends with it.
  bool run(const Session& session, std::string_view line, const Answer& answer);

 private:
  using Words = std::vector<std::string>;
  bool run_default(const Session& session, const Words& words, const Answer& answer);
  bool run_on_server(const Words& words, const Answer& answer);
  bool run_on_processes(const Session& session, const Words& words, const Answer& answer);
  void set_default(const Words& words, const Answer& answer);
  bool quit(const Session& session, const Words& words, const Answer& answer);
  void start_server(const Session& session, const Words& words, const Answer& answer);
  void server_status(const Words& words, const Answer& answer);
  void client_list(const Answer& answer);
  void server_percentage(const Words& words, const Answer& answer);
  void server_limit(const Words& words, const Answer& answer);
  void terminate_client(const Words& words, const Answer& answer);
  void list_processes(const Words& words, const Answer& answer);
  void say_limit(std::uint64_t bytes, const Answer& answer);
  [[nodiscard]] std::optional<std::size_t> ordinal(const Words& words, std::size_t index) const;
  [[nodiscard]] bool is_here(const Words& words, const Answer& answer) const;
  [[nodiscard]] bool is_ready() const;  // says in the log when it is not

  const LogWriter& log_;
  Defaults& defaults_;
  ServerKeeper& keeper_;
  bool is_535_;
};

}  // namespace mps::sim
