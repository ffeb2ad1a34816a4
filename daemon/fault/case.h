// One incident while it is looked into: what an Incident says, and what is needed to go on with it.
// It keeps the bounds and the rule of attribution; which signal belongs to it is the tracker's to
// say. Pure.
//
// Attribution: a process that MPS names, if it was a client; else the only client that there was,
// where all who were there are known and it was looked at once; else one of them, whichever, or of
// others, where there may have been such.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "fault/clients.h"
#include "fault/incident.h"
#include "fault/signal.h"

namespace mps::fault {

class Case {
 public:
  Case(Incident incident, const Clients& clients);  // a new one
  explicit Case(Incident recorded);                 // of an earlier supervisor

  [[nodiscard]] const Incident& incident() const { return incident_; }
  [[nodiscard]] Time last_sign() const { return last_sign_; }
  [[nodiscard]] bool confirmed() const { return confirmed_; }
  // What there is to tell since the last call; one signal more alone is nothing.
  struct News {
    bool opened = false;
    bool attributed = false;
    bool changed = false;
    bool closed = false;
  };
  News take_news();

  // What follows is heard now: the times given are those at which it came about.
  void hear(Time now) { now_ = now; }
  // What was heard last is this line, which counts here from now on.
  void read_to(const LogPlace& line) { incident_.read_to = line; }
  void note(const Note& note);
  // A sign that a client has faulted. `line`: the log's own, of which there is one a fault.
  // `prompt`: it came at once, so who is there now is who was there then.
  struct Sign {
    Time at{};
    bool line = false;
    bool prompt = true;
    bool of_driver = false;  // an Xid
  };
  void fault(const Sign& sign, const Clients& clients);
  void name(pid_t pid, const Clients& clients);  // of the round's culprit
  void hit(pid_t pid, const Clients& clients);   // a victim, as MPS says
  void all_hit(const Clients& clients, Time at);
  void came(const ClientFacts& facts);  // perhaps it was there before the fault

  void becomes(Kind kind);
  void followed_by(Kind kind, Time at, const std::string& text);
  void cause(const std::string& text);
  void xid(unsigned number, Time at);
  void device_needs(Consequence consequence, std::optional<RecoveryAction> action);
  void confirm(Time at);
  // After all it is no trouble of the device: whether it is anything of ours is to be seen yet.
  void acquit_device();
  void step(const StepTaken& step, Time at);
  void recovery_began() { recovering_ = true; }
  void served(pid_t pid, Time at);
  void close(End end, Time at);
  void reopen(Time at);

 private:
  struct Round {
    Time at{};
    bool fault = false;  // of a client; else a death or the like
    bool line = false;
    bool prompt = true;
    std::vector<ClientFacts> there{};  // when it began
    std::size_t there_left_out = 0;
    bool others_possible = false;
    std::vector<ClientFacts> named{};
    std::vector<pid_t> strangers{};
  };
  void recall_round();
  [[nodiscard]] bool is_late_word(const Sign& sign) const;
  [[nodiscard]] bool begins_round(const Sign& sign) const;
  void begin_round(const Sign& sign, const Clients& clients);
  void look_who_is_there(const Sign& sign, const Clients& clients);
  void attribute();
  void put_culprits(const std::vector<ClientFacts>& who, Attribution by);
  void put_suspects();
  void put_victims();
  void add_hit(const ClientFacts& facts);

  Incident incident_;
  Round round_;
  std::vector<Culprit> earlier_culprits_;
  std::vector<ClientFacts> earlier_suspects_;  // of rounds before this one
  std::size_t earlier_suspects_left_out_ = 0;
  bool earlier_others_possible_ = false;
  unsigned earlier_unattributed_ = 0;
  std::vector<ClientFacts> hit_;
  std::size_t hit_left_out_ = 0;
  Time last_sign_{};
  Time now_{};
  bool recovering_ = false;  // since the round began
  bool recorded_ = false;    // the round is an earlier supervisor's
  bool confirmed_ = false;
  bool changed_ = false;
  bool told_ = false;  // that it is open
  std::vector<Culprit> told_culprits_;
  End told_end_ = End::none;
};

}  // namespace mps::fault
