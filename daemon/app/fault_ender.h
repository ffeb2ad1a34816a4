// Ends the clients that hold a fault's error, so that their server can take newcomers again:
// through MPS, and their processes too, where the server still waits for them. Such a client has
// nothing to save in CUDA, so it is asked to go (SIGTERM) soon after the fault, whatever MPS is at.
// Killed it is later, and not before MPS has answered, or has not in time: what is killed while its
// kernels run can hang everybody. Whose policy lets clients take their time (onFault.clients: wait)
// is left to go by itself, and gets no signal.
//
// Threading: the supervisor's executor.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "instance/actor.h"

namespace mps::app {

class FaultEnder : public std::enable_shared_from_this<FaultEnder> {
 public:
  using Clients = std::vector<instance::ClientProcess>;
  struct Sources {
    // Whether the policy of that process' namespace says to wait for it.
    std::function<bool(const instance::ClientProcess& client)> is_waited_for;
    // As Supervisor::terminate_clients(); false: there is no such instance.
    std::function<bool(const std::string& instance, Clients clients,
                       instance::Actor::Terminated told)>
        terminate;
    // Whether the instance's server refuses newcomers because of a fault, and has that client.
    std::function<bool(const std::string& instance, pid_t client)> waits_for;
    // To that process, if it is still the same; an Error says why not.
    std::function<Result<void>(const instance::ClientProcess& client, int number)> signal;
    // An event about an instance.
    std::function<void(const std::string& kind, const std::string& instance,
                       const std::string& message)>
        say;
  };
  struct Patience {
    std::chrono::milliseconds before_sigterm{200};   // since the fault
    std::chrono::milliseconds before_sigkill{2000};  // since SIGTERM
  };

  FaultEnder(boost::asio::any_io_executor executor, Sources sources)
      : FaultEnder(std::move(executor), std::move(sources), Patience()) {}
  FaultEnder(boost::asio::any_io_executor executor, Sources sources, Patience patience)
      : executor_(std::move(executor)), sources_(std::move(sources)), patience_(patience) {}

  // Tells always, and not from within this call.
  void end(const std::string& instance, const std::vector<instance::Client>& clients,
           instance::ActorSettings::Told told);
  void close() { closed_ = true; }

 private:
  using Self = std::shared_ptr<FaultEnder>;
  // What MPS has come to with them.
  struct Answer {
    explicit Answer(const boost::asio::any_io_executor& executor)
        : come(executor, boost::asio::steady_timer::time_point::max()) {}
    boost::asio::steady_timer come;  // cancelled when it has
    bool is_there = false;
  };
  static boost::asio::awaitable<void> see_out(Self self, std::string instance, Clients clients,
                                              std::shared_ptr<Answer> answer);
  void signal_all(const std::string& instance, const Clients& clients, int number,
                  const std::string& name) const;

  boost::asio::any_io_executor executor_;
  Sources sources_;
  Patience patience_;
  bool closed_ = false;
};

// What the machine is told of these results, besides those that are waited for. Pure.
instance::FaultedClientsEnded sum_up(const std::vector<instance::Termination>& results,
                                     std::size_t waited_for);

}  // namespace mps::app
