// Ending clients through MPS: the commands that termination.h asks for, one batch after another.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/text.h"
#include "instance/actor.h"

namespace mps::instance {

namespace asio = boost::asio;
using std::chrono::steady_clock;

namespace {

// For everything; whoever asks through a socket waits for 30 s, in the queue too.
constexpr std::chrono::seconds k_in_all{20};
// terminate_client answers when the client's work has been ended. The channel waits with it, for
// 8 s where it is a whole batch.
constexpr Milliseconds k_ending{5000};
constexpr Milliseconds k_each_more{200};
constexpr Milliseconds k_look_again{200};

Milliseconds limit_for(std::size_t clients, Milliseconds otherwise) {
  return clients == 0 ? otherwise : k_ending + static_cast<int>(clients - 1) * k_each_more;
}

// What is left of k_in_all, as it is when a batch is made.
struct Time {
  std::optional<steady_clock::time_point> until{};  // none: from the first batch on
  bool over = false;

  bool is_over() {
    const auto now = steady_clock::now();
    if (!until) until = now + k_in_all;
    return over = now >= *until;
  }
};

bool lives(const ClientProcess& process) {
  const auto stat = process::Proc().stat(process.pid);
  return stat && stat->start_time == process.start_ticks && stat->state != 'Z' &&
         stat->state != 'X';
}

}  // namespace

void Actor::terminate(std::vector<ClientProcess> clients, Behalf behalf, Terminated told) {
  for (auto& client : clients) {
    if (client.start_ticks != 0) continue;
    if (const auto stat = proc_.stat(client.pid)) client.start_ticks = stat->start_time;
  }
  auto work = std::make_shared<Terminator>(clients, lives);
  bool has_place = false;
  if (closed_ || machine_.daemon() == 0) {
    work->give_up("no control daemon runs that could be told");
  } else if (const auto full = terminations_.take(behalf)) {
    work->give_up(*full);
  } else {
    has_place = true;
  }
  co_spawn(executor_,
           terminate_all(shared_from_this(), std::move(work), behalf, has_place, std::move(told)),
           asio::detached);
}

asio::awaitable<void> Actor::terminate_all(Self self, std::shared_ptr<Terminator> work,
                                           Behalf behalf, bool has_place, Terminated told) {
  co_await terminate_on(self, work, behalf);
  if (has_place) self->terminations_.give_back(behalf);
  told(work->results());
}

asio::awaitable<void> Actor::terminate_on(Self self, std::shared_ptr<Terminator> work,
                                          Behalf behalf) {
  const auto generation = self->generation_;
  const auto turn = behalf == Behalf::fault ? control::Channel::Turn::in_order
                                            : control::Channel::Turn::gives_way;
  const auto time = std::make_shared<Time>();
  if (behalf == Behalf::others) time->until = steady_clock::now() + k_in_all;
  while (!work->done()) {
    if (work->looks_again()) {
      asio::steady_timer pause(self->executor_, k_look_again);
      co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    }
    self->name_friends();
    const auto limit = limit_for(work->ends(), self->settings_.machine.probe_timeout);
    // A variable of its own: gcc 12 destroys what such a temporary holds twice.
    control::Channel::Make make = [work, time] {
      return time->is_over() ? std::vector<control::Command>{} : work->batch();
    };
    const auto outcome = co_await self->channel_.run_made(std::move(make), limit, turn);
    // One of another daemon has not seen these clients.
    if (self->closed_ || self->generation_ != generation) {
      work->give_up("the control daemon has ended meanwhile");
    } else if (time->over) {
      work->give_up("not within " + format_duration(k_in_all));
    } else {
      work->take(outcome);
    }
  }
}

// What is told of an earlier daemon's clients, or of an earlier fault's, is of no use any more.
void Actor::carry_out(const EndFaultedClients& end) {
  const auto turn = ++fault_turn_;
  auto told = [weak = weak_from_this(), generation = generation_,
               turn](const FaultedClientsEnded& done) {
    const auto self = weak.lock();
    const bool now = self && self->generation_ == generation && self->fault_turn_ == turn;
    if (now && !self->closed_) self->give(done);
  };
  auto clients = end.clients;
  for (auto& client : clients) {
    if (client.start_ticks == 0) client.start_ticks = watched_since(client.pid);
  }
  if (settings_.end_faulted) return settings_.end_faulted(clients, std::move(told));
  const FaultedClientsEnded all{0, static_cast<unsigned>(clients.size()), {}};
  asio::post(executor_, [told = std::move(told), all] { told(all); });
}

// Of a client that MPS's list told of, by its pid alone: which process has been watched for it.
std::uint64_t Actor::watched_since(pid_t client) const {
  const auto known = watched_.lower_bound(Watched{client, 0, false});
  return known != watched_.end() && known->pid == client ? known->start_ticks : 0;
}

}  // namespace mps::instance
