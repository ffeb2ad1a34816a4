// A client's fault: MPS gives every client of the server an error that does not go away, refuses
// newcomers until all of them have gone, and then makes its contexts again (docs/mps-behaviour.md).
// The ladder back, each rung with a deadline: the clients are ended or waited for, as their
// policies say; the server recovers; `shutdown_server -f`; the daemon is ended and started again.
// It serves again when its limits were read back.
//
// One that was taken over in a fault begins when its limits were read back; or, where its daemon
// does not answer, when it has been starting for too long: the fault's clients are not what it is
// spared for.
#include <algorithm>

#include "base/text.h"
#include "instance/machine.h"

namespace mps::instance {

namespace {
constexpr Milliseconds k_look_again{1000};  // 550 can be asked; the log mostly says it sooner
}  // namespace

// Of a server that is not ours any more (one that its successor has replaced, one whose daemon is
// gone and that writes into the same log) it says nothing about ours.
void Machine::on_log(const control::FatalFault& fault) {
  if (!is_others(fault.server)) fault_noticed(fault.server, "log");
}

bool Machine::is_others(pid_t server) const {
  return server != 0 && server_ && server_->pid != 0 && server_->pid != server;
}

// One that is under way goes on: what it ends was told of this fault, too. One that had passed
// begins again.
void Machine::begin_fault_recovery() {
  const bool under_way = fault_rung_ != FaultRung::none && fault_rung_ != FaultRung::passed;
  if (under_way || ending_ != Ending::none) return;
  fault_rung_ = FaultRung::clients;
  fault_waits_ = false;
  EndFaultedClients end;
  for (const auto& [pid, client] : clients_) {
    if (client.connected) end.clients.push_back(client);
  }
  act(std::move(end));
  act(SetTimer{Timer::fault_rung, settings_.fault_clients_deadline});
}

void Machine::handle(const FaultedClientsEnded& done) {
  if (fault_rung_ != FaultRung::clients) return;
  fault_rung_ = FaultRung::server;
  // They may have gone while the others were ended.
  fault_waits_ = done.waited_for != 0 && anybody_connected();
  if (serving()) probe_in(std::min(settings_.probe_interval, k_look_again));
  act(SetTimer{Timer::fault_rung,
               fault_waits_ ? settings_.fault_wait : settings_.fault_server_deadline});
  emit("fault_clients", std::to_string(done.ended) + " clients that hold the fault were ended, " +
                            std::to_string(done.waited_for) + " are waited for" +
                            (done.trouble.empty() ? "" : "; " + done.trouble));
}

// Its contexts are there again, or it is gone and the next one will have new ones.
void Machine::on_context(pid_t server) {
  if (in_fault() && !is_others(server)) server_recovered();
}

// Said at once, since a next supervisor is to know that it is over: it would end those who came
// since.
void Machine::server_recovered() {
  server_->status = ServerStatus::active;
  answers_are_old_ = batch_running_;
  emit("fault_recovered", std::string("the server has recovered from a fault; ") +
                              (state_ == State::draining ? "no newcomers are let in"
                                                         : "its limits are read back next"));
  fault_passed();
}

void Machine::fault_passed() {
  if (state_ == State::starting) return;  // what it waits for is an answer
  if (state_ != State::faulted && fault_rung_ == FaultRung::none) return;
  fault_rung_ = FaultRung::passed;
  answers_are_old_ = batch_running_;
  act(CancelTimer{Timer::fault_rung});
  if (state_ == State::faulted && ending_ == Ending::none) probe_in(Milliseconds{0});
}

// The limits were read back. What was asked before the server had recovered does not count.
void Machine::finish_fault() {
  if (state_ != State::faulted || in_fault() || !limits_confirmed_) return;
  if (answers_are_old_) return probe_in(Milliseconds{0});
  fault_rung_ = FaultRung::none;
  enter(State::ready);
  last_error_.clear();
  emit("fault_over", "the server takes newcomers again");
}

void Machine::fault_rung_due() {
  const bool silent = state_ == State::starting;
  if ((!serving() && !silent) || ending_ != Ending::none) return;
  switch (fault_rung_) {
    case FaultRung::clients:
    case FaultRung::server:
      if (!silent) return end_faulted_server();
      emit("fault_restart",
           "after a client's fault the control daemon does not answer: it is ended and started "
           "again");
      return end_daemon(Ending::restart, true);
    case FaultRung::shutdown:
      emit("fault_restart",
           "the server does not end either: its control daemon is ended and started again");
      return end_daemon(state_ == State::draining ? Ending::stop : Ending::restart, true);
    case FaultRung::none:
    case FaultRung::passed:
      return;
  }
}

void Machine::end_faulted_server() {
  fault_rung_ = FaultRung::shutdown;
  act(SetTimer{Timer::fault_rung, settings_.fault_shutdown_deadline});
  const pid_t server = server_ ? server_->pid : 0;
  if (server == 0) return;
  act(RunBatch{RunBatch::Purpose::shutdown_server,
               {control::shutdown_server(server, true)},
               settings_.probe_timeout});
  emit("fault_shutdown",
       "server " + std::to_string(server) +
           " refuses newcomers still: it is ended, with what clients it has",
       {{"server", std::to_string(server)}});
}

void Machine::handle(const ServerShutDown&) {
  if (fault_rung_ == FaultRung::shutdown) probe_in(Milliseconds{0});
}

}  // namespace mps::instance
