// Where an instance's events go, and what is remembered of them: the journal, seen from here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "instance/machine.h"

namespace mps::instance {

// A place in a daemon's log, behind a line of it; `log` tells one file from its successors.
struct ReadPosition {
  std::string log;
  std::uint64_t end_offset = 0;
};

struct RememberedDaemon {
  pid_t pid = 0;  // 0: not known
  SystemTime seen{};
};

// What the journal says of the time before this supervisor.
struct Remembered {
  std::optional<RememberedDaemon> daemon;    // ran, and its end was not told of
  std::vector<Client> clients;               // asked or connected, and had not gone
  std::optional<std::string> start_failure;  // the server's start was failing, with this cause
  std::optional<pid_t> faulted_server;       // refused newcomers because of a fault
};

class Recorder {
 public:
  virtual ~Recorder() = default;
  // An event and the position of the line it came from are recorded in one write.
  virtual void record(const std::string& instance, const Emit& event,
                      const std::optional<ReadPosition>& position) = 0;
  [[nodiscard]] virtual std::optional<std::uint64_t> position(const std::string& instance,
                                                              const std::string& log) const = 0;
  [[nodiscard]] virtual Remembered remember(const std::string& instance) const = 0;
};

}  // namespace mps::instance
