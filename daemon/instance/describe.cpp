#include "base/text.h"
#include "instance/machine.h"

namespace mps::instance {

namespace {

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

const char* name(Timer timer) {
  switch (timer) {
    case Timer::configure_again:
      return "configure_again";
    case Timer::start_deadline:
      return "start_deadline";
    case Timer::next_probe:
      return "next_probe";
    case Timer::accept_stuck:
      return "accept_stuck";
    case Timer::backoff_over:
      return "backoff_over";
    case Timer::stop_rung:
      return "stop_rung";
    case Timer::fault_rung:
      return "fault_rung";
  }
  return "?";
}

const char* name(RunBatch::Purpose purpose) {
  switch (purpose) {
    case RunBatch::Purpose::configure:
      return "configure";
    case RunBatch::Purpose::probe:
      return "probe";
    case RunBatch::Purpose::quit:
      return "quit";
    case RunBatch::Purpose::shutdown_server:
      return "shutdown_server";
  }
  return "?";
}

}  // namespace

const char* to_string(State state) {
  switch (state) {
    case State::stopped:
      return "stopped";
    case State::starting:
      return "starting";
    case State::ready:
      return "ready";
    case State::faulted:
      return "faulted";
    case State::recovering:
      return "recovering";
    case State::backoff:
      return "backoff";
    case State::failed:
      return "failed";
    case State::draining:
      return "draining";
  }
  return "?";
}

const char* to_string(ChannelState state) {
  switch (state) {
    case ChannelState::ok:
      return "ok";
    case ChannelState::busy:
      return "busy";
    case ChannelState::blocked:
      return "blocked";
    case ChannelState::unanswered:
      return "unanswered";
  }
  return "?";
}

const char* to_string(GateState state) {
  switch (state) {
    case GateState::standing:
      return "standing";
    case GateState::direct:
      return "direct";
    case GateState::down:
      return "down";
  }
  return "?";
}

const char* to_string(Bypass bypass) {
  switch (bypass) {
    case Bypass::closed:
      return "closed";
    case Bypass::audited:
      return "audited";
    case Bypass::open:
      return "open";
  }
  return "?";
}

const char* to_string(ServerStatus status) {
  switch (status) {
    case ServerStatus::starting:
      return "starting";
    case ServerStatus::active:
      return "active";
    case ServerStatus::fault:
      return "fault";
    case ServerStatus::start_failed:
      return "startFailed";
    case ServerStatus::exited:
      return "exited";
  }
  return "?";
}

std::string describe(const Action& action) {
  return std::visit(
      Overloaded{
          [](const SpawnDaemon&) -> std::string { return "spawn-daemon"; },
          [](const RunBatch& run) { return std::string("run ") + name(run.purpose); },
          [](const EndFaultedClients& end) {
            return "end-faulted-clients " + std::to_string(end.clients.size());
          },
          [](const SetTimer& set) {
            return std::string("set ") + name(set.timer) + " " + format_duration(set.delay);
          },
          [](const CancelTimer& cancel) { return std::string("cancel ") + name(cancel.timer); },
          [](const OpenDoor&) -> std::string { return "open-door"; },
          [](const CloseDoor&) -> std::string { return "close-door"; },
          [](const SignalDaemon& signal) {
            return "signal-daemon " + std::to_string(signal.number);
          },
          [](const SignalServer& signal) {
            return "signal-server " + std::to_string(signal.pid) + " " +
                   std::to_string(signal.number);
          },
          [](const SignalHolder& signal) {
            return "signal-holder " + std::to_string(signal.pid) + " " +
                   std::to_string(signal.number);
          },
          [](const WatchServer& watch) { return "watch-server " + std::to_string(watch.pid); },
          [](const WatchClient& watch) { return "watch-client " + std::to_string(watch.pid); },
          [](const Emit& event) { return "emit " + event.kind + ": " + event.message; }},
      action);
}

}  // namespace mps::instance
