#include "control/channel.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <exception>
#include <utility>

#include "control/front_end.h"
#include "control/verdict.h"
#include "process/proc.h"
#include "process/socket_peers.h"

namespace mps::control {

namespace asio = boost::asio;
using std::chrono::milliseconds;

namespace {

// One batch on its way through the queue, shared by its caller and the worker.
struct Ticket {
  Ticket(const asio::any_io_executor& executor, Channel::Make how, milliseconds limit,
         Channel::Turn when)
      : make(std::move(how)), timeout(limit), turn(when), done(executor) {
    done.expires_at(asio::steady_timer::time_point::max());
  }

  void finish(Outcome result) {
    if (!outcome) outcome = std::move(result);
    done.cancel();
  }

  Channel::Make make;
  std::vector<Command> batch{};  // once its turn has come
  milliseconds timeout;
  Channel::Turn turn;
  asio::steady_timer done;
  std::optional<Outcome> outcome;
};

DaemonState daemon_state(pid_t daemon) {
  if (daemon == 0) return DaemonState::unknown;
  const auto stat = process::Proc().stat(daemon);
  if (!stat || stat->state == 'Z' || stat->state == 'X') return DaemonState::gone;
  const bool stopped = stat->state == 'T' || stat->state == 't';
  return stopped ? DaemonState::stopped : DaemonState::running;
}

bool is_child_of(pid_t pid, pid_t parent) {
  const auto stat = process::Proc().stat(pid);
  return stat && stat->parent == parent;
}

}  // namespace

struct Channel::Impl : std::enable_shared_from_this<Impl> {
  Impl(const asio::any_io_executor& on, ChannelSettings with)
      : executor(on), settings(std::move(with)) {}

  static asio::awaitable<Outcome> run(std::shared_ptr<Impl> self, Make make, milliseconds timeout,
                                      Turn turn);
  static asio::awaitable<Outcome> wait(std::shared_ptr<Impl> self, std::shared_ptr<Ticket> ticket);
  static asio::awaitable<void> work(std::shared_ptr<Impl> self);
  static asio::awaitable<Outcome> attempt(std::shared_ptr<Impl> self,
                                          std::shared_ptr<Ticket> ticket);

  void enqueue(const std::shared_ptr<Ticket>& ticket);
  void abandon(const std::shared_ptr<Ticket>& ticket);
  void close();
  void look_around(Evidence& evidence, pid_t front_end) const;
  // Ourselves (a greeting that is being asked for) and process 1 have a connection, but no name: a
  // holder that is named may be sent a signal.
  [[nodiscard]] std::vector<Peer> strangers(const std::vector<process::SocketPeer>& peers,
                                            pid_t front_end) const;

  asio::any_io_executor executor;
  ChannelSettings settings;
  ChannelCounters counters;
  pid_t daemon = 0;
  std::shared_ptr<const process::MountSpace> space;
  std::vector<pid_t> friends;
  // Owned by the coroutines alone: what has a timer or a socket in it must go with the reactor,
  // and a Channel may stay behind it.
  std::deque<std::weak_ptr<Ticket>> queue;
  std::weak_ptr<Ticket> current;
  std::weak_ptr<FrontEnd> front_end;
  bool working = false;
  bool closed = false;
};

void Channel::Impl::enqueue(const std::shared_ptr<Ticket>& ticket) {
  if (closed) return ticket->finish(Unanswered{"the channel is closed"});
  if (queue.size() >= k_queue_limit) {
    return ticket->finish(
        Unanswered{std::to_string(k_queue_limit) + " batches wait for their turn already"});
  }
  const auto comes_after = [&ticket](const std::weak_ptr<Ticket>& other) {
    const auto waiting = other.lock();
    return waiting && ticket->turn == Turn::in_order && waiting->turn == Turn::gives_way;
  };
  queue.insert(std::find_if(queue.begin(), queue.end(), comes_after), ticket);
  if (working) return;
  working = true;
  asio::co_spawn(executor, work(shared_from_this()), asio::detached);
}

void Channel::Impl::abandon(const std::shared_ptr<Ticket>& ticket) {
  std::erase_if(queue, [&](const auto& other) { return other.lock() == ticket; });
  ticket->finish(Unanswered{"nobody waits for the answer any more"});
  const auto running = front_end.lock();
  if (running && current.lock() == ticket) running->drop();
}

void Channel::Impl::close() {
  closed = true;
  queue.push_front(current);
  for (const auto& waiting : std::exchange(queue, {})) {
    if (const auto ticket = waiting.lock()) ticket->finish(Unanswered{"the channel is closed"});
  }
  if (const auto running = front_end.lock()) running->drop();
}

asio::awaitable<Outcome> Channel::Impl::run(std::shared_ptr<Impl> self, Make make,
                                            milliseconds timeout, Turn turn) {
  const auto ticket = std::make_shared<Ticket>(self->executor, std::move(make), timeout, turn);
  self->enqueue(ticket);
  auto outcome = co_await wait(self, ticket);
  ++self->counters.batches;
  if (!std::holds_alternative<Answered>(outcome)) ++self->counters.not_answered;
  co_return outcome;
}

asio::awaitable<Outcome> Channel::Impl::wait(std::shared_ptr<Impl> self,
                                             std::shared_ptr<Ticket> ticket) {
  while (!ticket->outcome) {
    co_await ticket->done.async_wait(asio::as_tuple(asio::use_awaitable));
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none) self->abandon(ticket);
  }
  co_return std::move(*ticket->outcome);
}

asio::awaitable<void> Channel::Impl::work(std::shared_ptr<Impl> self) {
  // To start a program takes milliseconds: who is told why comes first.
  co_await asio::post(self->executor, asio::use_awaitable);
  while (!self->queue.empty()) {
    const auto ticket = self->queue.front().lock();
    self->queue.pop_front();
    if (!ticket) continue;
    self->current = ticket;
    Outcome outcome;
    try {
      outcome = co_await attempt(self, ticket);
    } catch (const std::exception& error) {  // out of memory or descriptors
      outcome = Absent{std::string("the front-end could not be watched: ") + error.what(), true};
    }
    // Where attempt() could not do so itself.
    if (const auto left = self->front_end.lock()) co_await FrontEnd::end(left);
    self->front_end.reset();
    self->current.reset();
    ticket->finish(std::move(outcome));
  }
  self->working = false;
}

asio::awaitable<Outcome> Channel::Impl::attempt(std::shared_ptr<Impl> self,
                                                std::shared_ptr<Ticket> ticket) {
  ticket->batch = ticket->make();
  if (ticket->batch.empty()) co_return Answered{};
  Evidence evidence;
  evidence.timeout = ticket->timeout;
  const auto started = FrontEnd::start(
      self->executor, {self->settings.front_end, self->settings.environment, self->space},
      FrontEnd::Clock::now() + ticket->timeout);
  if (!started) {
    evidence.start_error = started.error().message;
    co_return verdict(evidence);
  }
  const auto& front_end = *started;
  self->front_end = front_end;
  co_await FrontEnd::converse(front_end, script(ticket->batch));
  evidence.output = front_end->output();
  evidence.flooded = front_end->flooded();
  evidence.timed_out = front_end->timed_out();
  if (!evidence.flooded) evidence.answers = parse_answers(ticket->batch, evidence.output);
  // Before it is killed, so that its own connection can be told from a stranger's.
  const bool somebody_waits = !ticket->outcome;
  if (!evidence.answers && somebody_waits) self->look_around(evidence, front_end->pid());
  co_await FrontEnd::end(front_end);
  if (const auto& status = front_end->status()) {
    evidence.exit_code = status->code;
    evidence.ending = status->describe();
  }
  // What reap() could not end stays its business.
  self->front_end.reset();
  co_return verdict(evidence);
}

void Channel::Impl::look_around(Evidence& evidence, pid_t front_end_pid) const {
  evidence.daemon = daemon_state(daemon);
  if (evidence.daemon != DaemonState::running) return;
  auto control = settings.control_socket;
  auto privileged = control;
  privileged += "_privileged";
  const std::array paths{std::move(control), std::move(privileged)};
  try {
    const auto deadline = std::chrono::steady_clock::now() + settings.look_limit;
    const auto found = process::peers_of(daemon, paths, deadline);
    evidence.peers_known = found && found->complete;
    if (found) evidence.peers = strangers(found->peers, front_end_pid);
  } catch (const std::exception&) {  // out of memory or descriptors
    evidence.peers_known = false;
  }
}

std::vector<Peer> Channel::Impl::strangers(const std::vector<process::SocketPeer>& peers,
                                           pid_t front_end_pid) const {
  std::vector<Peer> result;
  for (const auto& peer : peers) {
    const bool known = peer.pid == front_end_pid ||
                       std::find(friends.begin(), friends.end(), peer.pid) != friends.end();
    if (known || (peer.pid != 0 && is_child_of(peer.pid, daemon))) continue;
    const bool privileged = peer.path == 1;
    const bool nameable = peer.pid != ::getpid() && peer.pid != 1;
    result.push_back(nameable ? Peer{peer.pid, peer.name, privileged} : Peer{0, "", privileged});
  }
  return result;
}

Channel::Channel(const asio::any_io_executor& executor, ChannelSettings settings)
    : impl_(std::make_shared<Impl>(executor, std::move(settings))) {}

Channel::~Channel() {
  impl_->close();
}

void Channel::set_daemon(pid_t daemon, std::shared_ptr<const process::MountSpace> space) {
  impl_->daemon = daemon;
  impl_->space = std::move(space);
}

void Channel::set_friends(std::vector<pid_t> friends) {
  impl_->friends = std::move(friends);
}

asio::awaitable<Outcome> Channel::run(std::vector<Command> batch,
                                      std::optional<milliseconds> timeout) {
  return run_made([batch = std::move(batch)] { return batch; },
                  timeout.value_or(impl_->settings.timeout));
}

asio::awaitable<Outcome> Channel::run_made(Make make, milliseconds timeout, Turn turn) {
  return Impl::run(impl_, std::move(make), timeout, turn);
}

const ChannelCounters& Channel::counters() const {
  return impl_->counters;
}

}  // namespace mps::control
