#include "app/fault_watch.h"

#include <spdlog/spdlog.h>

#include "app/fault_signals.h"
#include "process/proc.h"

namespace mps::app {

namespace {

fault::Time now() {
  return fault::time_of(std::chrono::system_clock::now());
}

}  // namespace

FaultWatch::FaultWatch(const boost::asio::any_io_executor& executor, fault::Book book,
                       fault::KeeperSources sources)
    : keeper_(std::move(book), std::move(sources)), alarm_(executor), rewriter_(executor) {
  entries_ = keeper_.quarantine().entries.size();
  next_entry_ = keeper_.quarantine().next;
  devices_out_ = keeper_.devices_out();
}

void FaultWatch::forget(const std::string& instance) {
  keeper_.forget(instance, now());
  shut_down_.erase(instance);
  std::erase_if(known_, [&instance](const auto& one) { return one.first.first == instance; });
  changed();
}

void FaultWatch::settle() {
  settled_ = true;
  left_early_.clear();
  keeper_.settle(now());
  changed();
}

// An earlier supervisor's log is read on behind this, with the times that its lines have: so who
// was there then is known before, and who has gone since as well.
void FaultWatch::watch(const fault::Place& place, const RecalledClients& recalled) {
  keeper_.watch(place);
  keeper_.catching_up(place.instance, true);
  const auto at = now();
  for (const auto& [facts, until] : recalled.clients) {
    tell(place.instance, fault::ClientCame{facts}, {facts.since, at, {}});
    const bool left =
        !until && left_early_.erase({place.instance, facts.pid, facts.start_ticks}) != 0;
    const auto gone = left ? std::optional(at) : until;
    if (gone) {
      tell(place.instance, fault::ClientWent{facts.pid, facts.start_ticks}, {*gone, at, {}});
    } else {
      keep_in_mind(place.instance, facts);
    }
  }
  if (!recalled.all) tell(place.instance, fault::ClientsKnown{false}, {at, at, {}});
}

void FaultWatch::heard(const std::string& instance, const instance::LogLine& line,
                       const instance::ReadPosition& end) {
  const auto what = signal_of(line.event);
  if (!what) return;
  tell(instance, *what, {fault::time_of(line.at), now(), fault::LogPlace{end.log, end.end_offset}});
}

void FaultWatch::keep_in_mind(const std::string& instance, const fault::ClientFacts& facts) {
  const Process process{instance, facts.pid};
  if (known_.contains(process) || known_.size() < k_known) known_[process] = facts;
}

// Of one that the desk has let in that is more than the log says; of one that MPS lists and nobody
// saw come it is what its process says of itself, now that it is there.
fault::ClientFacts FaultWatch::all_that_is_known(const std::string& instance,
                                                 fault::ClientFacts facts) const {
  const auto known = known_.find({instance, facts.pid});
  const bool same = known != known_.end() &&
                    (facts.start_ticks == 0 || known->second.start_ticks == facts.start_ticks);
  if (same) return known->second;
  if (facts.start_ticks != 0) return facts;
  const auto stat = process::Proc().stat(facts.pid);
  if (!stat) return facts;
  facts.start_ticks = stat->start_time;
  facts.command = stat->name;
  return fault::bounded(std::move(facts));
}

void FaultWatch::happened(const std::string& instance, const instance::Emit& event) {
  const auto at = event.at ? fault::time_of(*event.at) : now();
  const fault::Heard heard{at, now(), {}};
  if (event.kind == "fault_shutdown") shut_down_.insert(instance);
  if (const auto client = client_of(event, at)) {
    auto facts = all_that_is_known(instance, *client);
    keep_in_mind(instance, facts);
    tell(instance, fault::ClientCame{std::move(facts)}, heard);
    if (event.kind != "client_connected") return;
    return tell(instance, fault::ClientServed{client->pid}, heard);
  }
  const auto what = signal_of(event, shut_down_.contains(instance));
  if (!what) return;
  if (const auto* gone = std::get_if<fault::ClientWent>(&*what))
    known_.erase({instance, gone->pid});
  if (std::holds_alternative<fault::ServerEnded>(*what) ||
      std::holds_alternative<fault::Serving>(*what)) {
    shut_down_.erase(instance);
  }
  tell(instance, *what, heard);
}

void FaultWatch::let_in(const admission::LetIn& in) {
  auto facts = fault::bounded(facts_of(in, now()));
  const auto known = known_.find({in.instance, facts.pid});
  const bool again = known != known_.end() && fault::same_process(known->second, facts);
  if (again && known->second.since != fault::Time{}) facts.since = known->second.since;
  keep_in_mind(in.instance, facts);
  signal(in.instance, fault::ClientCame{std::move(facts)});
}

void FaultWatch::left(const std::string& instance, const share::Process& process) {
  if (!keeper_.watches(instance)) {
    const bool early = !settled_ && left_early_.size() < k_known;
    if (early) left_early_.emplace(instance, process.pid, process.start_ticks);
    return;
  }
  const auto known = known_.find({instance, process.pid});
  if (known != known_.end() && known->second.start_ticks == process.start_ticks)
    known_.erase(known);
  signal(instance, fault::ClientWent{process.pid, process.start_ticks});
}

void FaultWatch::signal(const std::string& instance, const fault::Signal& signal) {
  const auto at = now();
  tell(instance, signal, {at, at, {}});
}

void FaultWatch::tell(const std::string& instance, const fault::Signal& signal,
                      const fault::Heard& heard) {
  if (closed_) return;
  keeper_.on(instance, signal, heard);
  changed();
}

void FaultWatch::xid(const fault::Keeper::OfDevice& of, unsigned number) {
  if (closed_) return;
  keeper_.on_xid(of, number, now());
  changed();
}

void FaultWatch::action(const fault::Keeper::OfDevice& of, fault::RecoveryAction action) {
  if (closed_) return;
  keeper_.on_action(of, action, now());
  changed();
}

void FaultWatch::devices_are(const std::set<std::string>& devices) {
  keeper_.devices_are(devices);
  changed();
}

bool FaultWatch::put_back(const std::string& device, const std::string& gpu,
                          const std::string& why) {
  const bool was_out = keeper_.put_back(device, gpu, why);
  changed();
  return was_out;
}

std::optional<share::Refusal> FaultWatch::kept_out(const identity::Identity& who,
                                                   const std::string& command) const {
  if (keeper_.quarantine().entries.empty()) return std::nullopt;
  fault::ClientFacts facts;
  facts.subject = who.subject;
  facts.owner = who.owner.value_or("");
  facts.command = command;
  const auto kept = keeper_.kept_out(fault::workload_of(fault::bounded(std::move(facts))), now());
  if (!kept) return std::nullopt;
  auto refusal = share::quarantined(kept->who, kept->entry.faults, kept->left);
  if (!kept->entry.reason.empty()) refusal.sentence += ": " + kept->entry.reason;
  return refusal;
}

Result<fault::Entry> FaultWatch::keep_out(const fault::Order& order, const std::string& by) {
  auto entry = keeper_.keep_out(order, by, now());
  changed();
  return entry;
}

Result<fault::Entry> FaultWatch::lift(const std::string& id, const std::string& by) {
  auto entry = keeper_.lift(id, by);
  changed();
  return entry;
}

void FaultWatch::changed() {
  set_alarm();
  rewrite_book();
  const auto& quarantine = keeper_.quarantine();
  const bool same = quarantine.entries.size() == entries_ && quarantine.next == next_entry_;
  entries_ = quarantine.entries.size();
  next_entry_ = quarantine.next;
  if (!same && quarantine_changed_ && !closed_) quarantine_changed_();
  if (keeper_.devices_out() == devices_out_) return;
  devices_out_ = keeper_.devices_out();
  if (devices_changed_ && !closed_) devices_changed_();
}

void FaultWatch::set_alarm() {
  const auto pause = keeper_.pause(now());
  if (!pause || closed_) {
    alarm_.cancel();
    return;
  }
  alarm_.expires_after(*pause);
  alarm_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->closed_) return;
    self->keeper_.tick(now());
    self->changed();
  });
}

void FaultWatch::rewrite_book() {
  if (closed_) return;
  auto rewrite = keeper_.begin_rewrite();
  if (!rewrite) return;
  rewriter_.run(
      [rewrite = std::move(rewrite), weak = weak_from_this()]() -> process::SlowWork::Then {
        rewrite->run();
        return [rewrite, weak] {
          const auto self = weak.lock();
          if (!self) return;
          if (const auto done = self->keeper_.finish_rewrite(*rewrite); !done) {
            spdlog::warn(
                "{}; nothing is lost, and it is tried again when the history of faults has doubled",
                done.error().message);
          }
        };
      });
}

void FaultWatch::close() {
  closed_ = true;
  rewriter_.close();
  alarm_.cancel();
}

}  // namespace mps::app
