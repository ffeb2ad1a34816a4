#include "app/fault_ender.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <utility>

namespace mps::app {

namespace asio = boost::asio;
using Kind = instance::Termination::Kind;

instance::FaultedClientsEnded sum_up(const std::vector<instance::Termination>& results,
                                     std::size_t waited_for) {
  instance::FaultedClientsEnded sum;
  sum.waited_for = static_cast<unsigned>(waited_for);
  for (const auto& end : results) {
    if (end.kind != Kind::refused && end.kind != Kind::unanswered) {
      ++sum.ended;
    } else if (sum.trouble.empty()) {
      sum.trouble = "client " + std::to_string(end.process.pid) + ": " +
                    (end.why.empty() ? instance::to_string(end.kind) : end.why);
    }
  }
  return sum;
}

void FaultEnder::end(const std::string& instance, const std::vector<instance::Client>& clients,
                     instance::ActorSettings::Told told) {
  Clients ended;
  for (const auto& client : clients) {
    const instance::ClientProcess process{client.pid, client.start_ticks};
    if (!sources_.is_waited_for(process)) ended.push_back(process);
  }
  const auto waited_for = clients.size() - ended.size();
  const auto answer = std::make_shared<Answer>(executor_);
  const auto results = [waited_for, answer, told](const std::vector<instance::Termination>& all) {
    answer->is_there = true;
    answer->come.cancel();
    told(sum_up(all, waited_for));
  };
  if (!ended.empty() && !closed_ && sources_.terminate(instance, ended, results)) {
    co_spawn(executor_, see_out(shared_from_this(), instance, ended, answer), asio::detached);
    return;
  }
  asio::post(executor_, [told = std::move(told), waited_for] { told(sum_up({}, waited_for)); });
}

asio::awaitable<void> FaultEnder::see_out(Self self, std::string instance, Clients clients,
                                          std::shared_ptr<Answer> answer) {
  asio::steady_timer pause(self->executor_, self->patience_.before_sigterm);
  co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
  self->signal_all(instance, clients, SIGTERM, "SIGTERM");
  pause.expires_after(self->patience_.before_sigkill);
  co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
  // It comes always; an instance's terminations are bounded in time.
  if (!answer->is_there) co_await answer->come.async_wait(asio::as_tuple(asio::use_awaitable));
  self->signal_all(instance, clients, SIGKILL, "SIGKILL");
}

void FaultEnder::signal_all(const std::string& instance, const Clients& clients, int number,
                            const std::string& name) const {
  std::size_t sent = 0;
  for (const auto& client : clients) {
    if (closed_ || !sources_.waits_for(instance, client.pid)) continue;
    if (sources_.signal(client, number)) ++sent;
  }
  if (sent == 0) return;
  sources_.say("fault_clients_signalled", instance,
               std::to_string(sent) + " clients that hold a fault were sent " + name +
                   ": the server still waits for them");
}

}  // namespace mps::app
