// What is noticed of one instance, joined into incidents: one fault is one incident with one id,
// whichever sign of it came first. Pure: times come with the signals.
//
//   * One incident is open at a time. All that happens before the instance serves again, or is
//     given up, belongs to it: a fault while another one is recovered from is a round more, and
//     what is graver is listed as a consequence.
//   * A server or a daemon that dies within 2 s of a fault died of it, also where the death was
//     seen first. An Xid within 5 s of a fault belongs to it, before as well as after.
//   * A device in trouble within 5 s is what the rest comes from.
//   * 43, 45 and other Xids that only follow open nothing. An Xid that a program can bring about
//     does, but unless MPS shows some sign of it within 5 s it was somebody else's.
//   * An end that was asked for, by us or by somebody else, is listed, and nothing more.
//   * A line of the log that was told before (by an earlier supervisor, which was killed before it
//     had noted how far it had read) is passed over: so an incident is never lost and never two.
//
// Times are held against each other as distances; where the clock was set, one fault may be two.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fault/case.h"
#include "fault/clients.h"
#include "fault/incident.h"
#include "fault/signal.h"

namespace mps::fault {

struct Place {
  std::string instance{};
  std::string device{};  // UUID
  std::string domain{};
};

// The incident as it is now. What one signal brings about comes in this order; `changed` is only
// told where nothing else is. It is attributed again where that turns out to be otherwise.
struct Change {
  enum class What { opened, attributed, changed, closed } what{};
  Incident incident{};
};

// When something came about, when we hear of it, and which line of the log says so. The first two
// are the same, but for what is read of a log that nobody has read for a while.
struct Heard {
  Time at{};
  Time now{};
  std::optional<LogPlace> line{};
};

class Tracker {
 public:
  // `next`: gives numbers that nobody has used (see Book).
  Tracker(Place place, std::function<std::uint64_t()> next);

  // Before the first signal: one that an earlier supervisor has left open. Its clients come again.
  void restore(const Incident& open);
  // Or one that it has closed, to which late words may belong.
  void restore_closed(const Incident& last);
  // Lines up to this one have been told to an earlier supervisor's.
  void recall_line(const LogPlace& line);
  // While what is heard is of the time before this supervisor: nobody who was there then is
  // forgotten, however long ago it went. Behind it no line is an old one: a log that is emptied
  // begins again.
  void catching_up(bool on);

  std::vector<Change> on(const Signal& signal, Time at) { return on(signal, Heard{at, at, {}}); }
  std::vector<Change> on(const Signal& signal, const Heard& heard);
  // Call it by then, if there is a deadline; earlier does nothing, unless the clock was set back by
  // so much that it would be waited for far too long.
  std::vector<Change> tick(Time now);
  [[nodiscard]] std::optional<Time> deadline() const;

  [[nodiscard]] const Incident* open() const;  // the one that is
  [[nodiscard]] const Clients& clients() const { return clients_; }

 private:
  struct LooseXid {
    unsigned number = 0;
    Time at{};
  };
  [[nodiscard]] bool was_told(const std::optional<LogPlace>& line) const;
  Case* take(const Signal& signal, Time at);
  void handle(const FatalFaultLogged&, Time at);
  void handle(const CulpritNamed& culprit, Time at);
  void handle(const StickyClients& sticky, Time at);
  void handle(const ClientStatusSeen& status, Time at);
  void handle(const ContextRecreated&, Time at);
  void handle(const XidReported& xid, Time at);
  void handle(const ActionReported& reported, Time at);
  void handle(const ServerStatusSeen&, Time at);
  void handle(const ServerEnded& ended, Time at);
  void handle(const DaemonEnded& ended, Time at);
  void handle(const Wedged& wedged, Time at);
  void handle(const AnswersAgain&, Time at);
  void handle(const StartFailed& failed, Time at);
  void handle(const ClientCame& came, Time at);
  void handle(const ClientWent& went, Time at);
  void handle(const ClientServed& served, Time at);
  void handle(const ClientsKnown& known, Time at);
  void handle(const StepTaken& step, Time at);
  void handle(const Serving&, Time at);
  void handle(const GivenUp& given_up, Time at);

  Case& begin(Kind kind, Time at);
  // The open one, or the last one where it was about this a moment ago: late words.
  Case* about(Time at, std::chrono::milliseconds window);
  Case& fault(const Case::Sign& sign);
  void death(Kind kind, const std::string& how, Time at);
  void device_trouble(Time at);
  void judge_device(Case& of);
  [[nodiscard]] std::optional<RecoveryAction> action_for(Time xid) const;
  std::vector<Change> changes();

  Place place_;
  std::function<std::uint64_t()> next_;
  Clients clients_;
  std::optional<Case> open_;
  std::optional<Case> last_;         // closed
  std::deque<LooseXid> loose_xids_;  // that belong to nothing yet
  std::optional<RecoveryAction> action_;
  Time action_at_{};
  std::optional<LogPlace> told_to_;
  bool catching_up_ = false;
  Time now_{};  // as the last that was heard says
};

}  // namespace mps::fault
