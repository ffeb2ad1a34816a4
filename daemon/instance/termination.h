// Ending clients through MPS (terminate_client): which commands to give, and what came of it for
// each client. Pure: whoever carries it out gives the batches to the channel, one after another,
// and the outcomes back.
//
// terminate_client takes a pid and answers when it is done: "0" when the client's contexts are
// destroyed. The process lives on, holds an error that does not go away (810), and stays in MPS's
// list of clients until it ends (docs/mps-behaviour.md), so that list cannot speak against a "0":
// it is taken for what it says. `ps`, which lists contexts, could; but its answer holds names that
// clients give themselves, line ends included, and is written into the log that we believe, so it
// is never asked for. Where "0" was not said the list is looked at: who is not in it is ended.
//
// Up to k_at_a_time clients go into a batch, since each batch costs a front-end. What a front-end
// has heard when it is killed is lost with it, so of a batch that is not answered nothing is known,
// and each of its clients is asked for again, alone: whoever was ended by then is answered "0"
// again at once, and whose turn it was is told from the others. The processes are looked at right
// before each batch: a pid may be another's by then.
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
    terminated,  // MPS says so, lists it no more, or its process has ended since it was asked
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

// On whose behalf: a fault's clients are in everybody's way, so nobody else's requests are in
// theirs.
enum class Behalf { others, fault };

// How many requests of an instance are under way at once, for its one command session.
class TerminationPlaces {
 public:
  static constexpr std::size_t k_of_others = 8;
  // Each is of another turn of the machine, and bounded in time.
  static constexpr std::size_t k_of_faults = 4;

  // None: it has a place, which is to be given back. Else why not.
  std::optional<std::string> take(Behalf behalf);
  void give_back(Behalf behalf) { --taken(behalf); }

 private:
  std::size_t& taken(Behalf behalf) { return behalf == Behalf::fault ? faults_ : others_; }

  std::size_t others_ = 0;
  std::size_t faults_ = 0;
};

class Terminator {
 public:
  using Lives = std::function<bool(const ClientProcess& process)>;

  static constexpr std::size_t k_at_a_time = 16;
  static constexpr unsigned k_looks = 5;  // for those whose end was not answered

  Terminator(const std::vector<ClientProcess>& clients, Lives lives);

  [[nodiscard]] bool done() const { return stage_ == Stage::done; }
  // How many clients the next batch ends at most: each takes as long as it takes. 0: it only asks.
  [[nodiscard]] std::size_t ends() const;
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
  enum class Stage { servers, clients, ending, listing, done };
  // Open, and then alone: part of a batch that was not answered. Doubtful: nor was that.
  enum class Progress { open, alone, doubtful, settled };
  struct Client {
    Progress progress = Progress::open;
    pid_t server = 0;
  };

  void see_servers(const control::Answer& answer);
  void see_clients(const std::vector<control::Answer>& answers);
  void see_ending(const std::vector<control::Answer>& answers);
  void see_listing(const std::vector<control::Answer>& answers);
  void not_answered(const std::string& why);
  void settle(std::size_t index, Termination::Kind kind, std::string why = {});
  void settle_ended();
  [[nodiscard]] std::vector<std::size_t> next_to_end() const;  // of all that are left
  void go_on();                                                // with ending
  void look_once_more(const std::string& why);
  void finish_if_settled();
  [[nodiscard]] bool lives(std::size_t index) const { return lives_(results_[index].process); }
  [[nodiscard]] std::optional<std::vector<pid_t>> listed(
      const std::vector<control::Answer>& answers, pid_t server) const;

  Lives lives_;
  Stage stage_ = Stage::servers;
  std::vector<Termination> results_;
  std::vector<Client> clients_;  // likewise in order
  std::vector<pid_t> servers_;
  std::vector<std::size_t> asked_for_;  // whom the last batch ends, in its order
  unsigned looks_ = 0;
  std::size_t asked_ = 0;  // commands of the last batch
};

}  // namespace mps::instance
