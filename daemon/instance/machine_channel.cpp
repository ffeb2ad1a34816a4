// Commands: limits set and read back, probes, and what to make of a missing answer.
#include <algorithm>
#include <csignal>
#include <cstdio>

#include "base/text.h"
#include "instance/machine.h"

namespace mps::instance {

namespace {

constexpr Milliseconds k_configure_max{500};
constexpr Milliseconds k_soon{1000};          // the next look at a channel that did not answer
constexpr Milliseconds k_wedged_again{5000};  // at one that cannot be restarted, for its clients
constexpr unsigned k_ordinal = 0;             // each daemon sees one device

std::string percent(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find('.') + 2);
  if (text.ends_with(".0")) text.erase(text.size() - 2);
  return text + " %";
}

std::string memory(const std::optional<std::uint64_t>& mebibytes) {
  return mebibytes ? format_mebibytes(*mebibytes) : "no memory limit";
}

std::string words(const control::Answer& answer) {
  if (const auto* refusal = std::get_if<control::Refusal>(&answer)) {
    return "\"" + printable(refusal->words) + "\"";
  }
  const auto& lines = std::get<control::Reply>(answer).lines;
  return lines.empty() ? "nothing" : "\"" + printable(lines.front()) + "\"";
}

const control::Answered* answers_to(const control::Outcome& outcome, std::size_t questions) {
  const auto* answered = std::get_if<control::Answered>(&outcome);
  return answered != nullptr && answered->answers.size() == questions ? answered : nullptr;
}

std::string holder_text(const std::optional<pid_t>& holder, const std::string& name) {
  if (!holder) return "a process that cannot be seen from here";
  return "pid " + std::to_string(*holder) + (name.empty() ? "" : " (" + printable(name, 64) + ")");
}

}  // namespace

std::string describe_limits(const Limits& limits) {
  return percent(limits.active_thread_percentage) + " of the SMs, " +
         memory(limits.pinned_memory_mebibytes) +
         (limits.client_priority == 0 ? "" : ", below-normal priority");
}

// ---- setting and reading back ----

// The batch for configuring (which sets, and reads back) or for a probe, and in plan_ where its
// answers will stand. A running server has limits of its own: uid 0 in a container can change them
// through the share (550), so they are set and read like the defaults.
std::vector<control::Command> Machine::compose(bool with_sets) {
  const auto limits = wanted_limits();
  const auto memory_limit = limits.pinned_memory_mebibytes.value_or(0);
  plan_ = Plan{};
  plan_.sets = with_sets;
  plan_.wanted = limits;
  plan_.server = server_ && server_->status != ServerStatus::starting ? server_->pid : 0;
  std::vector<control::Command> batch;
  const auto ask = [&batch](control::Command command) {
    batch.push_back(std::move(command));
    return batch.size() - 1;
  };
  if (with_sets) {
    ask(control::set_default_active_thread_percentage(limits.active_thread_percentage));
    ask(control::set_default_device_pinned_mem_limit(k_ordinal, memory_limit));
    ask(control::set_default_client_priority(limits.client_priority));
  }
  plan_.limits = ask(control::get_default_active_thread_percentage());
  ask(control::get_default_device_pinned_mem_limit(k_ordinal));
  ask(control::get_default_client_priority());
  plan_.servers = ask(control::get_server_list());
  if (plan_.server != 0) {
    plan_.clients = ask(control::get_client_list(plan_.server));
    if (with_sets) {
      ask(control::set_active_thread_percentage(plan_.server, limits.active_thread_percentage));
      ask(control::set_device_pinned_mem_limit(plan_.server, k_ordinal, memory_limit));
    }
    plan_.server_limits = ask(control::get_active_thread_percentage(plan_.server));
    ask(control::get_device_pinned_mem_limit(plan_.server, k_ordinal));
    if (capabilities_ && capabilities_->server_status) {
      plan_.server_status = ask(control::get_server_status(plan_.server));
    }
  }
  if (with_sets && !capabilities_) {
    plan_.capabilities = batch.size();
    for (auto& command : control::capability_probe()) ask(std::move(command));
  }
  plan_.size = batch.size();
  return batch;
}

void Machine::configure() {
  if (batch_running_) return;
  batch_running_ = true;
  answers_are_old_ = false;
  act(CancelTimer{Timer::configure_again});
  act(RunBatch{RunBatch::Purpose::configure, compose(true), settings_.probe_timeout});
}

void Machine::configure_later(std::string trouble) {
  start_trouble_ = std::move(trouble);
  if (state_ != State::starting) return;
  configure_delay_ = std::min(std::max(configure_delay_ * 2, Milliseconds{5}), k_configure_max);
  act(SetTimer{Timer::configure_again, configure_delay_});
}

std::string Machine::wrong_percentage(const control::Answer& answer) const {
  const auto wanted = plan_.wanted.active_thread_percentage;
  const auto seen = control::read_percentage(answer);
  // One decimal is printed, so half of one is as near as an answer can come.
  if (seen && std::abs(*seen - wanted) <= 0.051) return {};
  return "active thread percentage: " + percent(wanted) + " was set, the daemon says " +
         words(answer);
}

std::string Machine::wrong_memory(const control::Answer& answer) const {
  const auto& wanted = plan_.wanted.pinned_memory_mebibytes;
  const auto seen = control::read_pinned_limit(answer);
  if (seen && control::prints_as(wanted, *seen)) return {};
  return "pinned memory limit: " + memory(wanted) + " was set, the daemon says " + words(answer);
}

// Empty: the daemon has the limits it is meant to have, for its servers to come and the one it has.
std::string Machine::mismatch(const control::Answered& answered) const {
  const auto& answers = answered.answers;
  auto wrong = wrong_percentage(answers[plan_.limits]);
  if (wrong.empty()) wrong = wrong_memory(answers[plan_.limits + 1]);
  if (!wrong.empty()) return wrong;
  const auto& priority = answers[plan_.limits + 2];
  if (control::read_priority(priority) != plan_.wanted.client_priority) {
    return "client priority: " + std::to_string(plan_.wanted.client_priority) +
           " was set, the daemon says " + words(priority);
  }
  return server_mismatch(answered);
}

std::string Machine::server_mismatch(const control::Answered& answered) const {
  if (plan_.server_limits == 0) return {};
  const auto& percentage = answered.answers[plan_.server_limits];
  const auto& memory_limit = answered.answers[plan_.server_limits + 1];
  // A refusal: it has gone since.
  if (std::holds_alternative<control::Refusal>(percentage) ||
      std::holds_alternative<control::Refusal>(memory_limit)) {
    return {};
  }
  auto wrong = wrong_percentage(percentage);
  if (wrong.empty()) wrong = wrong_memory(memory_limit);
  return wrong.empty() ? wrong : "server " + std::to_string(plan_.server) + ": " + wrong;
}

void Machine::handle(const ConfigureDone& done) {
  batch_running_ = false;
  if (daemon_ == 0 || ending_ != Ending::none) return;
  const auto* answered = answers_to(done.outcome, plan_.size);
  if (answered == nullptr) {
    if (state_ != State::starting) return not_answered(done.outcome);
    if (const auto* absent = std::get_if<control::Absent>(&done.outcome)) {
      return configure_later(absent->why);  // it does not listen yet
    }
    not_answered(done.outcome);
    return configure_later(channel_.detail);
  }
  channel_ok();
  failures_ = 0;
  if (plan_.wanted != wanted_limits()) return configure();  // changed while it was under way
  auto wrong = mismatch(*answered);
  if (!wrong.empty()) return limits_refused(std::move(wrong));
  const bool other_server = server_ && server_->pid != 0 && server_->pid != plan_.server;
  if (other_server && server_->status != ServerStatus::starting) return configure();
  limits_confirmed_ = true;
  refused_delay_ = Milliseconds{0};
  // The next server to become ready may have registered before they were set.
  server_missed_limits_ =
      plan_.server == 0 && (other_server || limits_changed_ || server_missed_limits_);
  if (state_ == State::starting) return begin_ready(*answered);
  if (!serving()) return;
  probe_in(state_ == State::draining ? Milliseconds{0}
           : probe_soon_             ? std::min(settings_.probe_interval, k_soon)
                                     : settings_.probe_interval);
  finish_fault();  // which may want to look again at once
  if (state_ != State::faulted) last_error_.clear();
  look_for_fault();
  if (!std::exchange(limits_changed_, false)) return;
  emit("limits_changed", "each new client gets at most " + describe_limits(settings_.limits) +
                             "; running clients keep what they have");
}

void Machine::limits_refused(std::string wrong) {
  limits_confirmed_ = false;
  last_error_ = wrong;
  if (state_ == State::starting) return configure_later(std::move(wrong));
  const bool first = refused_delay_ == Milliseconds{0};
  refused_delay_ = std::min(std::max(refused_delay_ * 2, k_soon), settings_.probe_interval);
  probe_in(refused_delay_);
  if (first) {
    emit("limits_not_applied", wrong +
                                   "; new clients may get what was in force before, and it is "
                                   "tried again");
  }
}

void Machine::begin_ready(const control::Answered& answered) {
  read_state(answered);
  if (plan_.capabilities != 0) {
    const auto first = answered.answers.begin() + static_cast<std::ptrdiff_t>(plan_.capabilities);
    capabilities_ = control::capabilities({first, answered.answers.end()});
  }
  act(CancelTimer{Timer::start_deadline});
  act(CancelTimer{Timer::configure_again});
  enter(in_fault() ? State::faulted : State::ready);
  if (!in_fault() && std::exchange(fault_rung_, FaultRung::none) != FaultRung::none) {
    act(CancelTimer{Timer::fault_rung});
  }
  was_ready_ = true;
  ready_at_ = now_;
  unlisted_deadlines_ = 0;
  budget_.succeeded();
  start_trouble_.clear();
  last_error_.clear();
  limits_changed_ = false;  // "ready" says them
  probe_soon_ = false;
  act(OpenDoor{});
  probe_in(clients_known_ ? settings_.probe_interval : Milliseconds{0});
  const bool faulted = state_ == State::faulted;
  emit("ready",
       faulted ? "took up where its server refuses newcomers because of a fault"
               : "serving; each client gets at most " + describe_limits(settings_.limits),
       {{"pid", std::to_string(daemon_)}, {"faulted", faulted ? "true" : "false"}});
  if (state_ == State::faulted) begin_fault_recovery();
}

// ---- probing ----

void Machine::probe_in(Milliseconds delay) {
  act(SetTimer{Timer::next_probe, delay});
}

void Machine::probe_soon() {
  if (state_ == State::faulted) return;  // looked at all the time, and at once when it is over
  if (!serving() || ending_ != Ending::none || std::exchange(probe_soon_, true)) return;
  probe_in(std::min(settings_.probe_interval, k_soon));
}

void Machine::run_probe() {
  if (batch_running_) return;
  probe_soon_ = false;
  batch_running_ = true;
  answers_are_old_ = false;
  act(CancelTimer{Timer::next_probe});
  act(RunBatch{RunBatch::Purpose::probe, compose(false), settings_.probe_timeout});
}

void Machine::handle(const ProbeDone& done) {
  batch_running_ = false;
  if (daemon_ == 0 || ending_ != Ending::none) return;
  if (state_ == State::starting) return configure();  // undrained meanwhile
  if (!serving()) return;
  const auto* answered = answers_to(done.outcome, plan_.size);
  if (answered == nullptr) return not_answered(done.outcome);
  failures_ = 0;
  wedge_reported_ = false;
  channel_ok();
  const bool faulted = server_ && server_->status == ServerStatus::fault;
  probe_in(faulted ? std::min(settings_.probe_interval, k_soon) : settings_.probe_interval);
  const bool current = plan_.wanted == wanted_limits();
  if (const auto wrong = limits_given_ ? mismatch(*answered) : std::string();
      current && !wrong.empty()) {
    // Once for each time that they were right before: what setting does not cure is no news.
    if (std::exchange(limits_confirmed_, false)) {
      ++drifted_;
      emit("limits_drifted", "somebody changed the limits: " + wrong + "; they are put right");
    }
  }
  read_state(*answered);
  end_idle_orphans();
  if (limits_given_ && !limits_confirmed_) configure();
  finish_fault();
  stop_if_drained();
  look_for_fault();
}

void Machine::read_state(const control::Answered& answered) {
  const auto plan = plan_;
  see_servers(answered.answers[plan.servers]);
  if (plan.clients != 0) see_clients(answered.answers[plan.clients]);
  if (plan.server_status != 0) see_server_status(answered.answers[plan.server_status]);
}

void Machine::see_servers(const control::Answer& answer) {
  const auto servers = control::read_pids(answer);
  if (!servers) return;
  if (servers->empty()) {
    const bool starting = server_ && server_->status == ServerStatus::starting;
    clients_known_ = clients_known_ || !starting;
    return;
  }
  // The log tells of changes, in order; what it may not have told (lost lines) is corrected here.
  const bool listed =
      server_ && std::find(servers->begin(), servers->end(), server_->pid) != servers->end();
  if (listed || (server_ && server_->pid != 0 && server_->status == ServerStatus::starting)) return;
  const auto pid = servers->front();
  server_ = Server{pid, std::nullopt, ServerStatus::active, "", 0};
  act(WatchServer{pid});
  probe_in(Milliseconds{0});  // its clients are asked for next
}

void Machine::see_clients(const control::Answer& answer) {
  const auto pids = control::read_pids(answer);
  if (!pids || !server_ || server_->pid != plan_.server) return;
  const bool first = !std::exchange(clients_known_, true);
  for (const auto pid : *pids) {
    if (gone_.contains(pid)) continue;  // MPS was asked before, or has not noticed yet
    auto [place, fresh] = clients_.try_emplace(pid);
    auto& client = place->second;
    client.pid = pid;
    const bool news = !std::exchange(client.connected, true);
    if (news) {
      emit("client_connected", "client " + std::to_string(pid) + " is served",
           {{"pid", std::to_string(pid)}});
    }
    if (!fresh) continue;
    client.adopted = true;
    act(WatchClient{pid});
  }
  gone_.clear();
  if (!first) return;
  emit("clients_listed", "MPS lists its clients, " + std::to_string(pids->size()),
       {{"clients", std::to_string(pids->size())}});
}

void Machine::see_server_status(const control::Answer& answer) {
  const auto* reply = std::get_if<control::Reply>(&answer);
  if (reply == nullptr || reply->lines.empty() || !server_ || server_->pid != plan_.server) return;
  if (answers_are_old_) return;  // the log has told of a change since it was asked
  const auto status = trim(reply->lines.front());
  if (status == "FAULT") {
    // What the log should have told.
    if (!in_fault()) return fault_noticed(server_->pid, "status");
    if (state_ == State::ready) enter(State::faulted);
    if (serving()) begin_fault_recovery();
  } else if (status == "ACTIVE" || status == "READY") {
    if (in_fault()) return server_recovered();
    server_->status = ServerStatus::active;
  }
}

// ---- no answer ----

void Machine::channel_is(ChannelState state, std::optional<pid_t> holder,
                         const std::string& holder_name, std::string detail) {
  const bool news = channel_.state != state || channel_.holder != holder;
  channel_ = {state, holder, holder_name, std::move(detail)};
  last_error_ = channel_.detail;
  if (!news) return;
  std::vector<std::pair<std::string, std::string>> data;
  if (holder) data = {{"holder", std::to_string(*holder)}, {"holderName", holder_name}};
  emit(std::string("channel_") + to_string(state), channel_.detail, std::move(data));
}

void Machine::channel_ok() {
  if (channel_.state == ChannelState::ok) return;
  channel_ = {};
  last_error_.clear();
  emit("channel_ok", "commands are answered again");
}

void Machine::not_answered(const control::Outcome& outcome) {
  probe_in(std::min(settings_.probe_interval, k_soon));
  const auto held = [this](ChannelState state, const auto& by, const std::string& detail) {
    // A client whose server is being started holds the daemon up, too, and may have come after the
    // others had been named to the channel. Those who take turns at it are no better than one.
    const bool again =
        channel_.state == ChannelState::busy || channel_.state == ChannelState::blocked;
    channel_is(state, by.holder, by.holder_name, detail);
    if (!settings_.end_channel_holder || !again || !by.holder) return;
    if (!clients_.contains(*by.holder)) act(SignalHolder{*by.holder, SIGTERM});
  };
  if (const auto* busy = std::get_if<control::Busy>(&outcome)) {
    held(ChannelState::busy, *busy,
         "the one command session is held by " + holder_text(busy->holder, busy->holder_name));
  } else if (const auto* blocked = std::get_if<control::Blocked>(&outcome)) {
    held(ChannelState::blocked, *blocked,
         "the control daemon waits for a connection that says nothing, of " +
             holder_text(blocked->holder, blocked->holder_name));
  } else if (std::holds_alternative<control::Stopped>(outcome)) {
    channel_is(ChannelState::blocked, daemon_, "nvidia-cuda-mps-control",
               "the control daemon is stopped (state T in /proc)");
    unanswered(channel_.detail);
  } else if (const auto* absent = std::get_if<control::Absent>(&outcome)) {
    channel_is(ChannelState::unanswered, {}, "", absent->why);
    if (!absent->front_end_failed) unanswered(absent->why);
  } else {
    const auto* silent = std::get_if<control::Unanswered>(&outcome);
    const std::string why = silent ? silent->why : "the answers do not match the questions";
    channel_is(ChannelState::unanswered, {}, "", why);
    unanswered(why);
  }
}

void Machine::unanswered(const std::string& detail) {
  if (!serving() || ++failures_ < settings_.probe_failures) return;
  const auto what = "no answer " + std::to_string(failures_) + " times in a row: " + detail;
  if (may_have_clients()) {
    probe_in(std::min(settings_.probe_interval, k_wedged_again));
    if (std::exchange(wedge_reported_, true)) return;
    const auto who = clients_running() ? std::to_string(running_clients()) + " clients run"
                                       : std::string("its clients are not known");
    emit("wedged", what + "; it is left alone, since " + who + " (`mps-ctl restart " + id_ +
                       " --force` ends them)");
    return;
  }
  emit("wedged", what + "; no clients run, it is replaced");
  end_daemon(state_ == State::draining ? Ending::stop : Ending::restart, false);
}

}  // namespace mps::instance
