// What the tests of admission.sock share: a desk that does as it is told, a machine whose clock
// stands still and whose calls fail when asked to, and programs that connect.
#pragma once

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "admission/desk.h"
#include "admission/hall.h"
#include "base/unique_fd.h"
#include "gate/system.h"

namespace mps::admission::testing {

struct FakeDesk : Desk {
  struct Asked {
    RequestId id = 0;
    Peer peer;
    Wish wish;
    Told told;
  };
  std::vector<Asked> asked;
  std::vector<RequestId> withdrawn;
  std::vector<share::SlotId> closed;
  std::vector<std::pair<Peer, std::function<void(std::variant<Standing, share::Refusal>)>>>
      standings;
  std::vector<std::pair<Peer, std::function<void(std::variant<Terminated, share::Refusal>)>>>
      terminations;
  std::vector<Scope> scopes;  // of these

  RequestId ask(Peer peer, const Wish& wish, Told told) override;
  void withdraw(RequestId request) override { withdrawn.push_back(request); }
  void connection_closed(share::SlotId slot) override { closed.push_back(slot); }
  void standing(Peer peer,
                std::function<void(std::variant<Standing, share::Refusal>)> told) override;
  void terminate_own(Peer peer, Scope scope,
                     std::function<void(std::variant<Terminated, share::Refusal>)> told) override;
};

struct Machine : gate::System {
  TimePoint clock{std::chrono::hours(1)};
  std::string cgroup = "0::/a\n";
  bool exact = true;
  int accept_error = 0;
  int pidfd_error = 0;
  int watch_error = 0;  // of additions
  std::size_t accepts = 0;

  TimePoint now() override { return clock; }
  int accept(int listener) override;
  int pidfd_of(int socket, const ucred& peer, bool& is_exact) override;
  std::string cgroup_of(pid_t) override { return cgroup; }
  int watch(int epoll, int operation, int descriptor, unsigned events,
            unsigned long long data) override;
};

UniqueFd listening();  // at an address that the kernel gives
UniqueFd connected(int listener);
bool say(const UniqueFd& socket, std::string_view text);
std::string heard(const UniqueFd& socket);  // "": nothing yet; "(end)", "(reset)"
void send_descriptors(const UniqueFd& socket, std::string_view text, std::size_t count);
std::size_t open_descriptors();

struct Kit {
  explicit Kit(Limits limits = {});

  UniqueFd connect();                       // and is accepted, but has read nothing
  UniqueFd greeted();                       // and has read its hello
  UniqueFd asking(std::string_view words);  // and has said this
  void turn(int times = 3);
  void pass(std::chrono::milliseconds time);
  [[nodiscard]] bool at_rest() const;  // the descriptor says that there is nothing to do

  Machine machine;
  FakeDesk desk;
  std::optional<Hall> hall;
  UniqueFd listener;  // held twice, as the supervisor's are
};

share::LetIn granted(share::SlotId slot);
std::string error(std::string_view code, std::string_view sentence);

}  // namespace mps::admission::testing
