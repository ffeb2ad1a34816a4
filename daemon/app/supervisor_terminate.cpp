// Ending clients through MPS: for operators (any client), and for a container (its own).
#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <utility>

#include "app/supervisor.h"
#include "base/text.h"
#include "policy/effective.h"
#include "process/child.h"
#include "process/proc.h"

namespace mps::app {

namespace asio = boost::asio;
using Kind = instance::Termination::Kind;

namespace {

std::string name_of(pid_t pid, const std::string& command, const std::string& subject) {
  auto name = "client " + std::to_string(pid);
  if (!command.empty()) name += " (" + printable(command, 64) + ")";
  return subject.empty() ? name : name + " of " + subject;
}

api::Agent::VerbResult result_of(const std::string& instance, const instance::Termination& end) {
  using api::VerbError;
  const auto pid = std::to_string(end.process.pid);
  switch (end.kind) {
    case Kind::terminated:
      return "client " + pid + " of " + instance +
             " was terminated: MPS has ended its work on the GPU; its process was not killed";
    case Kind::gone:
      return VerbError{VerbError::Kind::not_found, "process " + pid + " has ended"};
    case Kind::no_client:
      return VerbError{VerbError::Kind::conflict,
                       "process " + pid + " is not a client of a server of " + instance +
                           ": none has it yet, or none any more"};
    case Kind::refused:
      return VerbError{VerbError::Kind::conflict,
                       "client " + pid + " of " + instance + " was not terminated: " + end.why};
    case Kind::unanswered:
      break;
  }
  return VerbError{VerbError::Kind::unanswered,
                   "what came of client " + pid + " of " + instance + " is not known: " + end.why};
}

admission::Ended to_ended(const instance::Termination& end) {
  admission::Ended ended;
  ended.process = {end.process.pid, end.process.start_ticks};
  ended.why = end.why;
  if (end.kind == Kind::terminated) ended.kind = admission::Ended::Kind::ended;
  if (end.kind == Kind::gone || end.kind == Kind::no_client) {
    ended.kind = admission::Ended::Kind::was_none;
  }
  return ended;
}

}  // namespace

// The process that has the pid now, if it is a client: one that had it before is none of ours.
std::optional<Supervisor::FoundClient> Supervisor::find_client(pid_t pid) const {
  const auto stat = process::Proc().stat(pid);
  if (!stat) return std::nullopt;
  const instance::ClientProcess process{pid, stat->start_time};
  std::optional<FoundClient> asked;
  for (const auto& instance : fleet_.snapshots()) {
    for (const auto& client : instance.clients) {
      const bool same = client.pid == pid &&
                        (client.start_ticks == 0 || client.start_ticks == process.start_ticks);
      if (same && client.connected) return FoundClient{instance.id, process};
      if (same) asked = FoundClient{instance.id, process};
    }
  }
  if (asked || !desk_) return asked;
  const auto admission = desk_->ledger().admission_of({pid, process.start_ticks});
  if (!admission) return std::nullopt;
  return FoundClient{admission->instance, process};
}

void Supervisor::terminate(pid_t client, VerbTold told) {
  using api::VerbError;
  const auto later = [this, &told](VerbError why) {
    asio::post(io_, [told = std::move(told), why = std::move(why)] { told(why); });
  };
  if (ending_) return later({VerbError::Kind::conflict, "the supervisor is ending"});
  const auto found = find_client(client);
  if (!found) {
    return later({VerbError::Kind::not_found,
                  "process " + std::to_string(client) + " is not a client of any instance"});
  }
  const auto sent = terminate_clients(
      found->instance, {found->process}, instance::Behalf::others,
      [told, instance = found->instance](const std::vector<instance::Termination>& results) {
        told(result_of(instance, results.front()));
      });
  if (!sent) later({VerbError::Kind::not_found, "no instance \"" + found->instance + "\""});
}

bool Supervisor::terminate_clients(const std::string& instance,
                                   std::vector<instance::ClientProcess> clients,
                                   instance::Behalf behalf, instance::Actor::Terminated told) {
  // Their names, while they have them.
  std::map<pid_t, std::string> commands;
  for (const auto& client : clients) {
    const auto stat = process::Proc().stat(client.pid);
    if (stat && stat->start_time == client.start_ticks) commands[client.pid] = stat->name;
  }
  return fleet_.terminate(
      instance, std::move(clients), behalf,
      [this, instance, commands = std::move(commands),
       told = std::move(told)](const std::vector<instance::Termination>& results) {
        for (const auto& end : results) {
          if (end.kind != Kind::terminated) continue;
          const auto command = commands.find(end.process.pid);
          say_terminated(instance, end.process, command == commands.end() ? "" : command->second);
        }
        told(results);
      });
}

// Once for each process: who is terminated may stay, and be asked to end again and again.
void Supervisor::say_terminated(const std::string& instance, const instance::ClientProcess& client,
                                const std::string& command) {
  const auto key =
      instance + " " + std::to_string(client.pid) + " " + std::to_string(client.start_ticks);
  if (!terminated_.count(key, std::chrono::steady_clock::now())) return;
  const auto admission =
      desk_ ? desk_->ledger().admission_of({client.pid, client.start_ticks}) : std::nullopt;
  const auto subject = admission ? admission->subject : std::string();
  nlohmann::json data{{"pid", std::to_string(client.pid)}};
  if (!command.empty()) data["command"] = printable(command, 64);
  if (!subject.empty()) data["namespace"] = subject;
  say_of("client_terminated", instance,
         name_of(client.pid, command, subject) + " was terminated through MPS", std::move(data));
}

void Supervisor::terminate_for_desk(
    const std::string& instance, const std::vector<share::Process>& processes,
    std::function<void(const std::vector<admission::Ended>&)> told) {
  std::vector<instance::ClientProcess> clients;
  clients.reserve(processes.size());
  for (const auto& process : processes) clients.push_back({process.pid, process.start_ticks});
  const auto sent = terminate_clients(instance, std::move(clients), instance::Behalf::others,
                                      [told](const std::vector<instance::Termination>& results) {
                                        std::vector<admission::Ended> endings;
                                        endings.reserve(results.size());
                                        for (const auto& end : results)
                                          endings.push_back(to_ended(end));
                                        told(endings);
                                      });
  if (sent) return;
  std::vector<admission::Ended> none;
  none.reserve(processes.size());
  for (const auto& process : processes) {
    none.push_back({admission::Ended::Kind::failed, process, "its instance is not there any more"});
  }
  asio::post(io_, [told = std::move(told), none = std::move(none)] { told(none); });
}

// Tried again while it lasts; what came of it is an event, or in the log.
void Supervisor::terminate_violator(const std::string& instance, const share::Process& process,
                                    const std::string& why) {
  spdlog::warn("{}: client {} is to be terminated: {}", instance, process.pid, why);
  const instance::Actor::Terminated told =
      [instance](const std::vector<instance::Termination>& results) {
        for (const auto& end : results) {
          if (end.kind == Kind::terminated || end.kind == Kind::gone) continue;
          spdlog::warn("{}: client {} was not terminated: {}", instance, end.process.pid,
                       end.why.empty() ? "it is no client" : end.why);
        }
      };
  (void)terminate_clients(instance, {{process.pid, process.start_ticks}}, instance::Behalf::others,
                          told);
}

// Who has no slot is nobody's whose policy could be asked: its fault is ended as others are.
void Supervisor::make_fault_ender() {
  FaultEnder::Sources sources;
  sources.is_waited_for = [this](const instance::ClientProcess& client) {
    const auto admission =
        desk_ ? desk_->ledger().admission_of({client.pid, client.start_ticks}) : std::nullopt;
    if (!admission) return false;
    const auto generation = policies_->reading().generation;
    const auto policy = policy::find_policy(*generation, admission->subject);
    const auto* found = std::get_if<const policy::Policy*>(&policy);
    return found != nullptr && (*found)->wait_for_faulted;
  };
  sources.terminate = [this](const std::string& instance, FaultEnder::Clients clients,
                             instance::Actor::Terminated told) {
    return !ending_ && terminate_clients(instance, std::move(clients), instance::Behalf::fault,
                                         std::move(told));
  };
  sources.waits_for = [this](const std::string& id, pid_t client) {
    return fleet_.waits_for(id, client);
  };
  sources.signal = [this](const instance::ClientProcess& client, int number) -> Result<void> {
    auto process = process::Child::adopt(io_.get_executor(), client.pid, client.start_ticks);
    return process ? process->signal(number) : Result<void>(process.error());
  };
  sources.say = [this](const std::string& kind, const std::string& instance,
                       const std::string& message) { say_of(kind, instance, message); };
  fault_ender_ = std::make_shared<FaultEnder>(io_.get_executor(), std::move(sources));
}

}  // namespace mps::app
