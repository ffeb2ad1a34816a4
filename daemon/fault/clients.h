// Who is connected to an instance, and who was until ten seconds ago. Pure, bounded.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "fault/incident.h"

namespace mps::fault {

inline constexpr std::size_t k_client_limit = 128;  // of those who are there, and of those gone

class Clients {
 public:
  // Again for one who is known: what is known of it now. A pid alone says nothing new of it.
  void came(const ClientFacts& facts, Time at);
  void went(pid_t pid, std::uint64_t start_ticks, Time at);
  // Those who went more than `after` ago.
  void forget(Time now, std::chrono::milliseconds after = std::chrono::seconds(10));

  // Who has this pid, or had it last.
  [[nodiscard]] const ClientFacts* find(pid_t pid) const;
  // Who was there at that time, or had gone no longer than `slack` before.
  [[nodiscard]] std::vector<ClientFacts> at(Time time, std::chrono::milliseconds slack) const;
  // How many are there beyond the bound: nothing is known of them.
  [[nodiscard]] std::size_t left_out() const { return left_out_; }
  // Whether there may be more than these, for another reason.
  void all_known(bool all) { all_known_ = all; }
  [[nodiscard]] bool all_known() const { return all_known_; }
  [[nodiscard]] std::size_t size() const { return here_.size() + gone_.size(); }

 private:
  struct Gone {
    ClientFacts facts;
    Time at{};
  };
  using Key = std::pair<pid_t, std::uint64_t>;
  void leave(std::map<Key, ClientFacts>::iterator one, Time at);

  std::map<Key, ClientFacts> here_;
  std::deque<Gone> gone_;  // the latest at the end
  std::size_t left_out_ = 0;
  bool all_known_ = true;
};

}  // namespace mps::fault
