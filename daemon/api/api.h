// The HTTP API without HTTP: a request in, an answer out. See docs/openapi.yaml.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "api/agent.h"
#include "api/event_log.h"
#include "api/http.h"
#include "api/route.h"

namespace mps::api {

class Api {
 public:
  // Who may use verbs: root, the agent's own user, and members of `operators`.
  Api(Agent& agent, EventLog& log, std::optional<gid_t> operators);

  Answer handle(const Request& request);
  static std::vector<RouteInfo> routes();

 private:
  using Verb = Agent::VerbResult (*)(Agent& agent, const std::string& instance, bool force);

  struct Table;
  Answer status(const Request& request, const std::string& id);
  Answer devices(const Request& request, const std::string& id);
  Answer instances(const Request& request, const std::string& id);
  Answer instance(const Request& request, const std::string& id);
  Answer clients(const Request& request, const std::string& id);
  Answer admissions(const Request& request, const std::string& id);
  Answer waiting(const Request& request, const std::string& id);
  Answer use(const Request& request, const std::string& id);
  Answer shares(const Request& request, const std::string& id);
  Answer share(const Request& request, const std::string& id);
  Answer create_share(const Request& request, const std::string& id);
  Answer delete_share(const Request& request, const std::string& id);
  Answer events(const Request& request, const std::string& id);
  Answer faults(const Request& request, const std::string& id);
  Answer fault(const Request& request, const std::string& id);
  Answer quarantine(const Request& request, const std::string& id);
  Answer add_quarantine(const Request& request, const std::string& id);
  Answer remove_quarantine(const Request& request, const std::string& id);
  Answer policies(const Request& request, const std::string& id);
  Answer policy(const Request& request, const std::string& id);
  Answer explain(const Request& request, const std::string& id);
  Answer drain(const Request& request, const std::string& id);
  Answer undrain(const Request& request, const std::string& id);
  Answer restart(const Request& request, const std::string& id);

  Answer terminate(const Request& request, const std::string& id);

  Answer carry_out(const Request& request, const std::string& id, const char* name, Verb verb,
                   bool takes_force);
  [[nodiscard]] Reply no_share(const std::string& id) const;
  [[nodiscard]] Reply no_instance(const std::string& id,
                                  const std::vector<instance::Snapshot>& all) const;
  [[nodiscard]] bool may(const std::optional<Peer>& peer) const;

  Agent& agent_;
  EventLog& log_;
  std::optional<gid_t> operators_;
};

}  // namespace mps::api
