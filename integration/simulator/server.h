// A simulated nvidia-cuda-mps-server: registers with the control daemon that started it, takes the
// clients that it is handed, answers the daemon's orders. One thread, one poll loop.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "client_link.h"
#include "device_model.h"
#include "log_pipe.h"
#include "memory_book.h"
#include "steering.h"

namespace mps::sim {

class Server {
 public:
  explicit Server(Steering steering);
  int run();  // the exit status

 private:
  struct Client {
    UniqueFd socket;
    pid_t pid = 0;  // 0 until it has said hello
    PinnedLimits limits{};
    std::vector<std::uint32_t> contexts;  // the device of each
    bool terminated = false;
  };

  bool initialize();  // false when interrupted
  bool reach_control();
  int fail(const std::string& cause);
  bool register_as_ready();
  int serve();
  bool handle_order();
  bool handle_settings(Order order);
  void take_client();
  bool shut_down();
  void list_clients();
  void list_processes();
  void terminate_client();
  void handle_client(Client& client);
  void welcome(Client& client, const Message& message);
  Reply handle_request(Client& client, const Request& request);
  void lose(Client& client);
  [[nodiscard]] std::size_t context_count() const;

  Steering steering_;
  std::string directory_;
  LogWriter log_;
  std::vector<Device> devices_;
  MemoryBook memory_;
  UniqueFd control_;
  UniqueFd interrupts_;  // SIGINT: a forced shutdown
  double percentage_ = 100.0;
  PinnedLimits limits_{};
  std::int32_t priority_ = 0;
  bool leaving_ = false;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace mps::sim
