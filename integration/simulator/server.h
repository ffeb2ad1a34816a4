// A simulated nvidia-cuda-mps-server: registers with the control daemon that started it, takes the
// clients that it is handed, answers the daemon's orders and a test's. One thread, one poll loop.
#pragma once

#include <poll.h>

#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "blast.h"
#include "client_link.h"
#include "device_model.h"
#include "log_pipe.h"
#include "memory_book.h"
#include "orders.h"
#include "steering.h"
#include "work.h"

namespace mps::sim {

class Server {
 public:
  explicit Server(Steering steering);
  int run();  // the exit status

 private:
  using Time = Work::Time;

  struct Client {
    UniqueFd socket;
    pid_t pid = 0;  // 0 until it has said hello
    PinnedLimits limits{};
    unsigned connections = 0;             // of each context's
    std::vector<std::uint32_t> contexts;  // the device of each
    CudaResult sticky = k_success;        // what every request gets from now on
    bool in_fault = false;                // the server waits for its end
    Work work;
    std::optional<Request> waiting;  // for the end of its work
  };

  struct Fault {
    std::set<std::uint32_t> devices;
    std::optional<Time> recovered_at;  // once all that it reached have gone
  };

  // What a test has ordered.
  struct Ordered {
    bool stopped = false;
    unsigned garbled_lines = 0;
    unsigned lost_lines = 0;
    std::chrono::milliseconds slow{0};
    bool out_of_memory = false;
  };

  // server.cpp: its life, and what the control daemon wants
  bool initialize();  // false when interrupted
  bool reach_control();
  int fail(const std::string& cause);
  bool register_as_ready();
  void take_defaults();
  int serve();
  std::vector<pollfd> await_events();
  [[nodiscard]] int wait_ms() const;
  [[nodiscard]] bool is_interrupted(std::vector<pollfd>& polled) const;
  bool handle_order();
  bool handle_settings(Order order);
  void take_client();
  bool shut_down();
  void list_clients();
  void list_processes();
  void terminate_client();
  void say(std::string_view text);

  // server_clients.cpp
  void handle_client(Client& client);
  void handle_request(Client& client, const Request& request);
  void welcome(Client& client, const Message& message);
  [[nodiscard]] CudaResult admit(const Client& client);
  [[nodiscard]] Welcome terms(const Hello& hello) const;
  Reply answer_to(Client& client, const Request& request);
  CudaResult create_context(Client& client, std::uint32_t device);
  void answer_the_waiting();
  void lose(Client& client);
  [[nodiscard]] std::size_t context_count() const;
  [[nodiscard]] std::size_t contexts_on(std::uint32_t device) const;
  [[nodiscard]] long connections_on(std::uint32_t device) const;
  [[nodiscard]] long most_clients() const;

  // server_faults.cpp
  std::string obey(std::string_view line);
  std::string obey_about_client(pid_t pid, Kernel kernel);
  std::string post_about_device(const order::Xid& xid) const;
  std::string post_about_device(const order::Recovery& recovery) const;
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] const Device* device_named(const std::string& uuid) const;
  void fault(Client& culprit, std::uint32_t device, Kernel kind);
  void note_fault(const Client& culprit, Kernel kind) const;
  void post_xids(const std::set<std::uint32_t>& devices, const Client& culprit, Kernel kind) const;
  void recover();

  Steering steering_;
  std::string directory_;
  LogWriter log_;
  Wording wording_;
  std::vector<Device> devices_;
  MemoryBook memory_;
  UniqueFd control_;
  UniqueFd interrupts_;  // SIGINT: a forced shutdown
  OrderDesk orders_;
  double percentage_ = 100.0;
  PinnedLimits limits_{};
  std::int32_t priority_ = 0;
  bool leaving_ = false;
  bool hangs_ = false;  // a busy client was killed: no client is answered any more
  std::optional<Fault> fault_;
  Ordered ordered_;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace mps::sim
