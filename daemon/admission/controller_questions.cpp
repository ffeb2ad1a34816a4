// What a container asks about itself, and to have its own clients ended.
#include <boost/asio/post.hpp>
#include <utility>

#include "admission/controller.h"
#include "admission/lineage.h"
#include "process/proc.h"

namespace mps::admission {

namespace asio = boost::asio;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t k_most_terminated = 128;  // more than MPS has clients
// At a time, of an instance and of a namespace there: what else has clients terminated gets its
// turn. Whoever is refused may ask again, as the guard does.
constexpr std::size_t k_endings = 4;
constexpr std::size_t k_endings_of_one = 2;
constexpr std::size_t k_most_looked_at = 4096;  // for those that descend from one process

std::string state_of(const std::optional<share::Door>& door) {
  if (!door) return "unknown";
  if (const auto* closed = std::get_if<share::Closed>(&*door)) {
    return share::to_string(closed->refusal.code);
  }
  const auto* not_ready = std::get_if<share::NotReady>(&*door);
  return not_ready == nullptr ? "ready" : not_ready->state;
}

Terminated summary(const std::vector<Ended>& endings, bool more) {
  Terminated summary;
  for (const auto& ending : endings) {
    if (ending.kind == Ended::Kind::ended) summary.asked.push_back(ending.process.pid);
    if (ending.kind != Ended::Kind::failed) continue;
    summary.failed.push_back(std::to_string(ending.process.pid) + ": " + ending.why);
  }
  if (more) {
    summary.failed.push_back("there are more than " + std::to_string(k_most_terminated) +
                             "; ask again for the rest");
  }
  return summary;
}

}  // namespace

void Controller::standing(Peer peer,
                          std::function<void(std::variant<Standing, share::Refusal>)> told) {
  const auto place = places_.find(peer.instance);
  if (place == places_.end() || being_looked_up_ >= k_being_looked_up) {
    asio::post(executor_, [told = std::move(told), instance = peer.instance] {
      told(share::not_ready(instance, "starting"));
    });
    return;
  }
  const auto kept = std::make_shared<const Peer>(std::move(peer));
  find_out(kept, [kept, told = std::move(told)](Controller& self, const FoundOut& found) {
    if (const auto* unknown = std::get_if<identity::Unidentified>(&found.who)) {
      return told(share::unidentified(unknown->reason));
    }
    const auto& who = std::get<identity::Identity>(found.who);
    const auto at = self.places_.find(kept->instance);
    if (at == self.places_.end()) return told(share::instance_gone(kept->instance));
    const auto process = share::Process{kept->pid, found.start_ticks};
    if (self.is_closed_to(at->second, kept->share, process)) {
      return told(share::share_deleted(kept->share));
    }
    const auto plan = self.plan_of(who, found.command, at->second, kept->share);
    if (const auto* refusal = std::get_if<share::Refusal>(&plan)) return told(*refusal);
    const auto request =
        self.request_of(*kept, who, process.start_ticks, std::get<share::Plan>(plan), {});
    Standing standing;
    standing.subject = who.subject;
    standing.container = request.description;
    standing.grant = request.grant;
    standing.clients = self.ledger_.clients_of(request.share, who.container);
    standing.instance_state = state_of(self.ledger_.door_of(kept->instance));
    standing.next = self.ledger_.foresee(request, steady_clock::now());
    told(standing);
  });
}

void Controller::terminate_own(Peer peer, Scope scope,
                               std::function<void(std::variant<Terminated, share::Refusal>)> told) {
  if (!sources_.terminate || being_looked_up_ >= k_being_looked_up) {
    asio::post(executor_, [told = std::move(told), instance = peer.instance] {
      told(share::not_ready(instance, "not able to terminate clients now"));
    });
    return;
  }
  const auto kept = std::make_shared<const Peer>(std::move(peer));
  find_out(kept, [kept, scope, told = std::move(told)](Controller& self, const FoundOut& found) {
    if (const auto* unknown = std::get_if<identity::Unidentified>(&found.who)) {
      return told(share::unidentified(unknown->reason));
    }
    std::optional<share::Process> root;
    if (scope == Scope::descendants) root = {kept->pid, found.start_ticks};
    self.terminate_clients(*kept, std::get<identity::Identity>(found.who), root, told);
  });
}

// One request of a container at a time: each takes the instance's one command session.
void Controller::terminate_clients(const Peer& peer, const identity::Identity& who,
                                   const std::optional<share::Process>& root,
                                   const ToldEnded& told) {
  const auto share = ledger_name(peer.instance, peer.share);
  auto processes =
      ledger_.processes_of(share, who.container, root ? k_most_looked_at : k_most_terminated + 1);
  if (processes.empty()) return told(Terminated{});
  const auto whose = share + " " + who.container;
  if (terminating_.contains(whose)) return told(share::too_many_waiting(describe(who), 1, 1));
  if (const auto refusal = too_many_endings(peer.instance, who.subject)) return told(*refusal);
  terminating_[whose] = {peer.instance, who.subject};
  if (!root) return terminate_these(peer.instance, whose, std::move(processes), told);
  looking_up_.run([root = *root, processes = std::move(processes), weak = weak_from_this(),
                   instance = peer.instance, whose, told]() -> process::SlowWork::Then {
    auto family = family_of(root, processes, process::Proc());
    return [weak, instance, whose, told, family = std::move(family)] {
      const auto self = weak.lock();
      if (self && !self->closed_) self->terminate_these(instance, whose, family, told);
    };
  });
}

std::optional<share::Refusal> Controller::too_many_endings(const std::string& instance,
                                                           const std::string& subject) const {
  std::size_t all = 0;
  std::size_t own = 0;
  for (const auto& [whose, ending] : terminating_) {
    if (ending.instance != instance) continue;
    ++all;
    if (ending.subject == subject) ++own;
  }
  if (own >= k_endings_of_one) return share::too_many_endings(instance, subject, own);
  if (all >= k_endings) return share::too_many_endings(instance, "", all);
  return std::nullopt;
}

void Controller::terminate_these(const std::string& instance, const std::string& whose,
                                 std::vector<share::Process> processes, const ToldEnded& told) {
  if (processes.empty()) {
    terminating_.erase(whose);
    return told(Terminated{});
  }
  const bool more = processes.size() > k_most_terminated;
  if (more) processes.resize(k_most_terminated);
  sources_.terminate(instance, std::move(processes),
                     [weak = weak_from_this(), whose, more, told](const auto& endings) {
                       if (const auto self = weak.lock()) self->terminating_.erase(whose);
                       told(summary(endings, more));
                     });
}

}  // namespace mps::admission
