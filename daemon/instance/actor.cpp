#include "instance/actor.h"

#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace mps::instance {

namespace asio = boost::asio;
using std::chrono::steady_clock;
using std::chrono::system_clock;

namespace {

constexpr std::size_t k_inbox_limit = 65536;  // verbs and lines; both senders are bounded already

control::ChannelSettings channel_settings(const ActorSettings& settings, const Layout& layout) {
  return {.front_end = settings.control_program,
          .environment = settings.environment,
          .control_socket = layout.control,
          .timeout = settings.machine.probe_timeout};
}

}  // namespace

Actor::Actor(const asio::any_io_executor& executor, ActorSettings settings,
             process::Follower& follower, Recorder& recorder)
    : executor_(executor),
      settings_(std::move(settings)),
      layout_(settings_.run_dir, settings_.id),
      follower_(follower),
      recorder_(recorder),
      machine_(settings_.id, settings_.machine),
      channel_(executor, channel_settings(settings_, layout_)),
      door_(settings_.entrance
                ? settings_.entrance
                : std::make_shared<Door>(executor, layout_.open_pipe, layout_.private_)),
      place_(PipePlace::visible(layout_)),
      random_(std::random_device{}()),
      state_since_(system_clock::now()) {
  machine_.seed(static_cast<std::uint32_t>(random_()));
}

Actor::~Actor() {
  close();
}

void Actor::close() {
  if (std::exchange(closed_, true)) return;
  for (auto& timer : timers_) {
    if (timer) timer->cancel();
  }
  if (log_) follower_.unfollow(*log_);
  log_.reset();
  changed_ = nullptr;
}

// ---- starting ----

void Actor::start(const std::optional<FoundDaemon>& found) {
  reading_on(true);
  const auto left = restore();
  auto ready = layout_.make();
  // A daemon that runs is taken up whatever else is wrong: one is never started beside it.
  if (found && take_up(*found, false)) return;
  if (ready) {
    // Nobody listens behind what an earlier supervisor left there.
    carry_out(CloseDoor{});
    if (auto file = layout_.open_log(); file) ready = follow_log(std::move(*file));
  }
  if (log_) follower_.drain(*log_);
  // One of before the node was started again is nobody's loss now.
  if (left && left->seen > started_at(0) && layout_.is_left_by_daemon() && !is_coming(left->pid)) {
    give(DaemonGone{left->pid});
  }
  reading_on(false);
  give(StartWanted{});
}

void Actor::drain(const FoundDaemon& found) {
  reading_on(true);
  (void)restore();
  (void)layout_.make();
  (void)take_up(found, true);
  reading_on(false);
}

void Actor::reading_on(bool on) {
  if (std::exchange(reading_on_, on) != on && settings_.reading_on) settings_.reading_on(on);
}

std::optional<RememberedDaemon> Actor::restore() {
  auto remembered = recorder_.remember(settings_.id);
  if (remembered.faulted_server) machine_.restore_fault(*remembered.faulted_server);
  if (remembered.start_failure) machine_.restore_start_failure(*remembered.start_failure);
  for (auto& client : remembered.clients) {
    const Watched watched{client.pid, client.start_ticks, false};
    machine_.restore_client(std::move(client));
    watch_process(watched);
  }
  return remembered.daemon;
}

// Its output is followed through its own descriptor, whatever became of the file's name. False if
// it is gone, or cannot be watched (no descriptors): then none is started beside it, and the next
// start looks again.
bool Actor::take_up(FoundDaemon found, bool only_drain) {
  auto child = process::Child::adopt(executor_, found.pid, found.start_ticks);
  if (!child) return false;
  if (auto followed = follow_output_of(found.pid); !followed) log_failed(followed.error());
  find_place(found.pid);
  channel_.set_daemon(found.pid, place_->space());
  control_ = ControlProcess{found.pid, found.start_ticks, started_at(found.start_ticks), true};
  if (!door_->leads_to(place_->control())) carry_out(CloseDoor{});
  // What it said while no supervisor was there comes first; servers may have come and gone.
  if (log_) follower_.drain(*log_);
  reading_on(false);
  found.servers = servers_of(proc_, found.pid);
  daemon_ = std::make_shared<process::Child>(std::move(*child));
  ++generation_;
  give(DaemonFound{found.pid, found.servers, only_drain});
  watch_daemon();
  return true;
}

// ---- the inbox ----

std::optional<VerbRefused> Actor::ask(const Input& verb) {
  if (auto refused = machine_.refuses(verb)) return refused;
  give(verb);
  return std::nullopt;
}

// What an action causes is handled after the action list it is part of.
void Actor::give(Input input, std::optional<ReadPosition> position) {
  if (closed_ || inbox_.size() >= k_inbox_limit) return;
  inbox_.push_back({std::move(input), std::move(position)});
  if (std::exchange(busy_, true)) return;
  while (!inbox_.empty() && !closed_) {
    const auto entry = std::move(inbox_.front());
    inbox_.pop_front();
    if (entry.position) read_to_ = entry.position;
    for (const auto& action : machine_.on(entry.input, steady_clock::now())) apply(action);
  }
  busy_ = false;
  if (machine_.state() != shown_state_) {
    shown_state_ = machine_.state();
    state_since_ = system_clock::now();
  }
  if (changed_) changed_();
}

void Actor::apply(const Action& action) {
  std::visit([this](const auto& what) { carry_out(what); }, action);
}

void Actor::carry_out(const Emit& event) {
  recorder_.record(settings_.id, event, read_to_);
}

// ---- the daemon ----

Result<process::Child> Actor::spawn() {
  if (auto made = layout_.make(); !made) return made.error();
  if (auto swept = layout_.sweep(); !swept) return swept.error();
  if (auto prepared = prepare_place(); !prepared) return prepared.error();
  auto output = layout_.open_log();
  if (!output) return output.error();
  auto reader = layout_.open_log();
  if (!reader) return reader.error();
  if (auto followed = follow_log(std::move(*reader)); !followed) return followed.error();
  // A session of its own and an append-mode file: it lives on, undisturbed, when we die.
  return process::Child::spawn(executor_, {.program = settings_.control_program,
                                           .arguments = {"-f"},
                                           .environment = settings_.environment,
                                           .stdout_fd = output->get(),
                                           .stderr_fd = output->get(),
                                           .new_session = true,
                                           .mount_space = place_->space()});
}

// One that an earlier supervisor had just started when it was killed: it has no lock yet.
bool Actor::is_coming(pid_t pid) const {
  return identify_daemon(proc_, pid, ::geteuid()) &&
         proc_.environment(pid, "CUDA_MPS_PIPE_DIRECTORY") == layout_.pipe.string();
}

// None can start beside one that has got its lock since we looked for it first, nor beside one that
// could not be watched then.
bool Actor::take_up_late() {
  auto late = find_daemon(proc_, layout_, settings_.entrance != nullptr);
  const bool ours = late && late->unfit.empty() && late->device == settings_.device;
  return ours && take_up(std::move(*late), false);
}

void Actor::carry_out(const SpawnDaemon&) {
  if (take_up_late()) return;
  auto child = spawn();
  if (!child) {
    give(DaemonNotSpawned{child.error().message});
    return;
  }
  const auto pid = child->pid();
  control_ = ControlProcess{pid, child->start_time(), system_clock::now(), false};
  channel_.set_daemon(pid, place_->space());
  daemon_ = std::make_shared<process::Child>(std::move(*child));
  ++generation_;
  give(DaemonSpawned{pid});  // before its end, which may have come already
  watch_daemon();
}

void Actor::watch_daemon() {
  co_spawn(executor_, daemon_ends(shared_from_this(), daemon_), asio::detached);
}

asio::awaitable<void> Actor::daemon_ends(Self self, std::shared_ptr<process::Child> child) {
  const auto status = co_await child->wait();
  if (self->closed_ || self->daemon_ != child) co_return;
  if (self->log_) self->follower_.drain(*self->log_);  // its last words come before its end
  ++self->generation_;
  self->daemon_.reset();
  self->control_.reset();
  self->channel_.set_daemon(0);
  // Let go when the next daemon has been started: to unmount takes a moment.
  const auto before = self->place_;
  self->take_place(PipePlace::visible(self->layout_));
  self->give(DaemonEnded{status.describe()});
}

void Actor::carry_out(const SignalDaemon& signal) {
  if (daemon_) (void)daemon_->signal(signal.number);  // it has ended: its end is on its way to us
}

// The process that was our daemon's child when it was first seen, or nobody.
void Actor::carry_out(const SignalServer& signal) {
  const auto server = servers_.find(signal.pid);
  if (server == servers_.end()) return;
  auto process = process::Child::adopt(executor_, signal.pid, server->second);
  if (process) (void)process->signal(signal.number);
}

void Actor::carry_out(const SignalHolder& signal) {
  const auto stat = proc_.stat(signal.pid);
  if (!stat || signal.pid <= 1 || signal.pid == ::getpid()) return;
  auto process = process::Child::adopt(executor_, signal.pid, stat->start_time);
  if (process) (void)process->signal(signal.number);
}

// ---- servers and clients ----

Input Actor::Watched::ended() const {
  return server ? Input(ServerEnded{pid}) : Input(ClientEnded{pid});
}

// Its pid comes from log lines, which others may have a hand in: only a child of the daemon counts.
void Actor::carry_out(const WatchServer& watch) {
  const auto stat = proc_.stat(watch.pid);
  const bool ours = stat && control_ && stat->parent == control_->pid;
  if (ours) servers_[watch.pid] = stat->start_time;
  watch_process({watch.pid, ours ? stat->start_time : 0, true});
}

void Actor::carry_out(const WatchClient& watch) {
  const auto known = machine_.clients().find(watch.pid);
  if (known == machine_.clients().end()) return;
  auto ticks = known->second.start_ticks;
  // One of MPS's own list, so alive just now; one of an old line that was gone stays gone.
  if (ticks == 0 && known->second.adopted) {
    if (const auto stat = proc_.stat(watch.pid)) ticks = stat->start_time;
  }
  watch_process({watch.pid, ticks, false});
}

void Actor::watch_process(const Watched& watched) {
  auto process = process::Child::adopt(executor_, watched.pid, watched.start_ticks);
  if (!process) {
    // Later, not from inside: restore() runs before the first input.
    asio::post(executor_, [self = shared_from_this(), watched] { self->give(watched.ended()); });
    return;
  }
  if (!watched_.insert(watched).second) return;
  co_spawn(executor_, process_ends(shared_from_this(), std::move(*process), watched),
           asio::detached);
}

asio::awaitable<void> Actor::process_ends(Self self, process::Child child, Watched watched) {
  co_await child.wait();
  self->watched_.erase(watched);
  if (watched.server) self->servers_.erase(watched.pid);
  self->give(watched.ended());
}

// ---- commands ----

void Actor::name_friends() {
  std::vector<pid_t> friends;
  for (const auto& [pid, client] : machine_.clients()) friends.push_back(pid);
  if (const auto& server = machine_.server(); server && server->pid != 0) {
    friends.push_back(server->pid);
  }
  channel_.set_friends(std::move(friends));
}

void Actor::carry_out(const RunBatch& run) {
  name_friends();
  co_spawn(executor_, run_batch(shared_from_this(), run, generation_), asio::detached);
}

asio::awaitable<void> Actor::run_batch(Self self, RunBatch run, std::uint64_t generation) {
  auto outcome = co_await self->channel_.run(std::move(run.commands), run.timeout);
  if (generation != self->generation_) co_return;
  const bool answered = std::holds_alternative<control::Answered>(outcome);
  switch (run.purpose) {
    case RunBatch::Purpose::configure:
      self->give(ConfigureDone{std::move(outcome)});
      break;
    case RunBatch::Purpose::probe:
      self->give(ProbeDone{std::move(outcome)});
      // Not before open_door() has: see there.
      if (answered && self->door_is_open() && !self->door_->wants_greeting()) self->mend_door();
      break;
    case RunBatch::Purpose::quit:
      self->give(QuitDone{std::move(outcome)});
      break;
    case RunBatch::Purpose::shutdown_server:
      self->give(ServerShutDown{});
      break;
  }
}

// ---- timers ----

void Actor::carry_out(const SetTimer& set) {
  const auto place = static_cast<std::size_t>(set.timer);
  auto delay = set.delay;
  if (set.timer == Timer::next_probe && delay == settings_.machine.probe_interval) {
    // A tenth either way, so that a node's instances are not all probed at once.
    const auto tenth = delay.count() / 10;
    if (tenth > 0) {
      delay += Milliseconds(std::uniform_int_distribution<std::int64_t>(-tenth, tenth)(random_));
    }
  }
  if (timers_[place]) timers_[place]->cancel();
  timers_[place] = std::make_unique<asio::steady_timer>(executor_);
  co_spawn(executor_, wait_for(shared_from_this(), set.timer, delay, ++turns_[place]),
           asio::detached);
}

void Actor::carry_out(const CancelTimer& cancel) {
  const auto place = static_cast<std::size_t>(cancel.timer);
  ++turns_[place];
  if (timers_[place]) timers_[place]->cancel();
}

asio::awaitable<void> Actor::wait_for(Self self, Timer timer, Milliseconds delay,
                                      std::uint64_t turn) {
  const auto place = static_cast<std::size_t>(timer);
  if (turn != self->turns_[place] || self->closed_) co_return;
  self->timers_[place]->expires_after(delay);
  co_await self->timers_[place]->async_wait(asio::as_tuple(asio::use_awaitable));
  if (turn != self->turns_[place] || self->closed_) co_return;
  // Where we were held up, what the daemon has said since comes first: it may be what was waited
  // for, and a server that has recovered is not to be ended.
  if (self->log_) self->follower_.drain(*self->log_);
  if (turn == self->turns_[place]) self->give(TimerDue{timer});
}

// ---- what is shown ----

Snapshot Actor::snapshot() const {
  Snapshot shown;
  shown.id = settings_.id;
  shown.device = settings_.device;
  shown.domain = settings_.domain;
  shown.state = machine_.state();
  shown.state_since = state_since_;
  shown.control = control_;
  shown.server = machine_.server();
  shown.channel = machine_.channel();
  shown.restarts = machine_.restarts();
  shown.gate = door_->gate();
  shown.limits = machine_.limits();
  shown.limits_confirmed = machine_.limits_confirmed();
  for (const auto& [pid, client] : machine_.clients()) shown.clients.push_back(client);
  shown.last_error = machine_.last_error();
  shown.out_of_service = device_out();
  shown.pipe_directory = layout_.open_pipe.string();
  shown.unknown_log_lines = machine_.unknown_lines();
  shown.limits_drifted = machine_.drifted();
  if (const auto next = machine_.next_start()) {
    shown.next_start = system_clock::now() + std::chrono::duration_cast<system_clock::duration>(
                                                 *next - steady_clock::now());
  }
  shown.server_status_known = machine_.capabilities() && machine_.capabilities()->server_status;
  return shown;
}

}  // namespace mps::instance
