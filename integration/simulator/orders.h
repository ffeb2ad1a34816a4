// Orders that a test gives a running server: lines of text, each answered. A server listens on the
// abstract socket @mps-sim-server-<its pid> (SOCK_SEQPACKET), which needs no directory, no
// permission and nothing to clean up, and works where NVIDIA's control daemon started the server.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/unique_fd.h"
#include "work.h"

namespace mps::sim {

namespace order {
struct Fault {
  pid_t client = 0;
  Kernel kind = Kernel::k_bad_address;
};
struct Hang {
  pid_t client = 0;
};
struct Die {
  int signal = 0;  // 0: exits with the status
  int status = 0;
};
struct Answer {
  bool again = false;
};
struct Garble {
  unsigned lines = 0;
};
struct Lose {
  unsigned lines = 0;
};
struct Slow {
  std::chrono::milliseconds each{0};
};
struct OutOfMemory {
  bool on = false;
};
struct Xid {
  unsigned number = 0;
  std::string device;  // a UUID; empty: the server's first
};
struct DropXids {
  unsigned count = 0;
};
struct Recovery {
  unsigned action = 0;  // as NVML numbers them
  std::string device;
};
struct Set {
  std::string key;
  std::string value;
};
struct Status {};
}  // namespace order

using SimOrder = std::variant<order::Fault, order::Hang, order::Die, order::Answer, order::Garble,
                              order::Lose, order::Slow, order::OutOfMemory, order::Xid,
                              order::DropXids, order::Recovery, order::Set, order::Status>;

// nullopt where it is not understood.
std::optional<SimOrder> parse_order(std::string_view line);
// "fault 17 trap": what README.md lists; shown where an order is not understood.
extern const char* const k_order_usage;

class OrderDesk {
 public:
  using Handler = std::function<std::string(std::string_view line)>;  // the answer

  // Nothing is heard where the name is taken, as by a server of another pid namespace.
  OrderDesk();
  void poll_for(std::vector<pollfd>& polled) const;
  // `polled` begins with what poll_for has put there.
  void handle(const pollfd* polled, const Handler& handler);

 private:
  UniqueFd listener_;
  std::vector<UniqueFd> peers_;
};

}  // namespace mps::sim
