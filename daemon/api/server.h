// The HTTP API on its unix socket. Threading: the executor given, which is the agent's and the
// log's. Agent and log must live until stop() has returned; then nothing touches them any more.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "api/agent.h"
#include "api/event_log.h"
#include "api/listener.h"
#include "base/result.h"

namespace mps::api {

struct ServerSettings {
  std::filesystem::path socket = "/run/mps/supervisor.sock";
  std::optional<gid_t> operators;  // the socket's group, and who may use verbs besides root
  HttpLimits limits;
};

class Server {
 public:
  // The socket is made under another name and renamed into place, 0660 root:<operators>; a stale
  // one is replaced. (That no other supervisor lives is the run directory's lock's business.)
  static Result<std::unique_ptr<Server>> open(const boost::asio::any_io_executor& executor,
                                              ServerSettings settings, Agent& agent, EventLog& log);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Takes the socket away (if it is still ours) and lets connections end; see HttpListener.
  void stop();
  [[nodiscard]] std::size_t connections() const { return listener_.connections(); }

 private:
  Server(ServerSettings settings, struct ::stat identity, HttpListener listener);

  ServerSettings settings_;
  struct ::stat identity_;
  HttpListener listener_;
  bool stopped_ = false;
};

}  // namespace mps::api
