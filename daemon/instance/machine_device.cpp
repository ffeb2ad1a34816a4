// A device that must not be used before it was reset, or its node rebooted: the instance drains and
// stops, and nothing of it is started again, whatever asks for it, until its device is back.
#include <utility>

#include "instance/machine.h"

namespace mps::instance {

void Machine::handle(const DeviceOut& out) {
  const bool news = !device_out_;
  device_out_ = out.why;
  if (!news || !begun_) return;
  stop_for_device();
}

void Machine::stop_for_device() {
  resumes_ = state_ != State::draining && state_ != State::stopped;
  switch (state_) {
    case State::ready:
    case State::faulted:
      return begin_drain();
    case State::starting:
      // Taken over, or undrained a moment ago: it may have clients.
      if (daemon_ != 0 && was_ready_ && ending_ == Ending::none) {
        begin_drain();
        if (in_fault()) begin_fault_recovery();
        return;
      }
      if (daemon_ != 0 && ending_ == Ending::none) return end_daemon(Ending::stop, true);
      [[fallthrough]];
    case State::recovering:
    case State::backoff:
      // Its end is under way, and what was to follow does not.
      if (daemon_ != 0) {
        ending_ = Ending::stop;
        return enter(State::draining);
      }
      return not_started();
    case State::failed:
      // One that does not even end: it hangs in the kernel.
      if (daemon_ == 0) not_started();
      return;
    case State::stopped:
      emit("stopped", "stopped: " + *device_out_);
      return;
    case State::draining:
      return;
  }
}

void Machine::not_started() {
  resumes_ = true;
  act(CancelTimer{Timer::backoff_over});
  act(CloseDoor{});
  next_start_.reset();
  enter(State::stopped);
  emit("stopped", "not started: " + *device_out_);
}

void Machine::handle(const DeviceBack&) {
  if (!std::exchange(device_out_, std::nullopt) || !std::exchange(resumes_, false)) return;
  budget_.reset();
  if (daemon_ == 0) return start();
  if (state_ != State::draining) return;
  if (ending_ == Ending::none) return serve_again();
  // Its end was asked for and cannot be taken back.
  ending_ = Ending::restart;
  enter(State::recovering);
}

// It was only drained.
void Machine::serve_again() {
  if (!limits_confirmed_) return serve_once_configured();
  // Drained in a fault, or the fault came then: newcomers wait for its end, as ever.
  const bool recovering = fault_rung_ != FaultRung::none;
  enter(in_fault() || recovering ? State::faulted : State::ready);
  act(OpenDoor{});
  emit("undrained",
       state_ == State::ready
           ? "newcomers are let in again"
           : "newcomers are let in again once its server has recovered from a fault",
       {{"serving", state_ == State::ready ? "true" : "false"}});
  if (in_fault()) begin_fault_recovery();
  if (!in_fault() && recovering) probe_in(Milliseconds{0});
}

std::optional<VerbRefused> Machine::refuses_for_device(const Input& verb) const {
  if (std::holds_alternative<UndrainWanted>(verb)) {
    return VerbRefused{id_ + " cannot be undrained: " + *device_out_ + " (`mps-ctl restart " + id_ +
                       " --force` puts the device back in service)"};
  }
  const auto* restart = std::get_if<RestartWanted>(&verb);
  if (restart == nullptr || restart->force) return std::nullopt;
  return VerbRefused{id_ + " is not restarted: " + *device_out_ +
                     "; --force puts the device back in service and ends who runs on it"};
}

}  // namespace mps::instance
