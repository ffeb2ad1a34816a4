// Whom a fault reaches, and what the server's log says about it. As documented for Volta and later:
// all clients of the device, and of every device that one of those uses too. Pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "work.h"

namespace mps::sim {

struct Party {  // a client
  pid_t pid = 0;
  std::vector<std::uint32_t> contexts;  // the device of each
};

struct Blast {
  std::set<std::uint32_t> devices;
  std::vector<std::size_t> parties;  // which of them, in order
};

Blast blast_of(const std::vector<Party>& parties, std::uint32_t device);

// The names and texts that changed between the branches of the driver.
struct Wording {
  bool names_the_parts = false;  // 580: {PID: 1, Context ID: 0}, before it {1, 0}
  [[nodiscard]] std::string client(pid_t pid, std::size_t context) const;
  [[nodiscard]] std::string status(pid_t pid, std::size_t context, bool is_active) const;
};

// `culprit_is_named`: the log names who did it, which it does for memory faults only.
std::vector<std::string> fault_lines(const Wording& wording, const std::vector<Party>& parties,
                                     const Blast& blast, const Party& culprit,
                                     bool culprit_is_named);

// What a damaged line looks like: cut off, with bytes that are no text behind it.
std::string garbled(std::string_view line);

}  // namespace mps::sim
