// Ending clients through MPS (terminate_client): which commands to give, and what came of it for
// each client. Pure: whoever carries it out gives the batches to the channel, one after another,
// and the outcomes back.
//
// terminate_client takes a pid, and MPS says "0" when it has destroyed the client's contexts; the
// process lives on, holds an error that does not go away (810), and stays in MPS's list of clients
// until it ends (docs/mps-behaviour.md). So a client counts as terminated only when its process has
// ended, or MPS lists it no more, or lists no context of it. The process is looked at again right
// before each command: a pid may be another's by then.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/commands.h"
#include "control/outcome.h"

namespace mps::instance {

// A process, by what it was when it became a client.
struct ClientProcess {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  // field 22 of /proc/<pid>/stat
  bool operator==(const ClientProcess&) const = default;
};

struct Termination {
  enum class Kind {
    terminated,  // and seen to be so
    gone,        // its process has ended by itself
    no_client,   // no server has it, or none has it yet
    refused,     // by MPS, whose words these are
    unanswered,  // what came of it is not known
  };
  ClientProcess process{};
  Kind kind = Kind::unanswered;
  std::string why{};  // of the last two, for people
  bool operator==(const Termination&) const = default;
};
const char* to_string(Termination::Kind kind);

class Terminator {
 public:
  using Lives = std::function<bool(const ClientProcess& process)>;

  static constexpr unsigned k_looks = 5;  // for contexts that do not go at once

  Terminator(const std::vector<ClientProcess>& clients, Lives lives);

  [[nodiscard]] bool done() const { return stage_ == Stage::done; }
  // Whether what comes next is a terminate_client, which takes as long as it takes.
  [[nodiscard]] bool ends_a_client() const { return stage_ == Stage::ending; }
  // Whether it has looked before, in vain: time should pass first.
  [[nodiscard]] bool looks_again() const { return looks_ > 0 && stage_ == Stage::listing; }
  // The next batch, to be asked for when its turn has come. Empty: nothing is to be asked; give the
  // empty answer back.
  [[nodiscard]] std::vector<control::Command> batch();
  void take(const control::Outcome& outcome);
  // No more is to be asked: what is not known by now stays so, because of `why`.
  void give_up(const std::string& why);

  // One for each client, in the order they were given.
  [[nodiscard]] const std::vector<Termination>& results() const { return results_; }

 private:
  enum class Stage { servers, clients, ending, listing, contexts, done };
  enum class Progress { open, told, doubtful, settled };
  struct Client {
    Progress progress = Progress::open;
    pid_t server = 0;
  };

  void see_servers(const control::Answer& answer);
  void see_clients(const std::vector<control::Answer>& answers);
  void see_ending(const control::Answer& answer);
  void see_listing(const std::vector<control::Answer>& answers);
  void see_contexts(const control::Answer& answer);
  void not_answered(const std::string& why);
  void settle(std::size_t index, Termination::Kind kind, std::string why = {});
  void settle_ended();
  void go_on_from(std::size_t index);  // with ending
  void look_once_more();
  void finish_if_settled();
  [[nodiscard]] bool lives(std::size_t index) const { return lives_(results_[index].process); }
  [[nodiscard]] std::optional<std::vector<pid_t>> listed(
      const std::vector<control::Answer>& answers, pid_t server) const;

  Lives lives_;
  Stage stage_ = Stage::servers;
  std::vector<Termination> results_;
  std::vector<Client> clients_;  // likewise in order
  std::vector<pid_t> servers_;
  std::size_t at_ = 0;  // who is being ended
  unsigned looks_ = 0;
  std::size_t asked_ = 0;  // commands of the last batch
};

}  // namespace mps::instance
