#include "fault/signal.h"

#include <utility>

#include "base/text.h"

namespace mps::fault {

namespace {

constexpr std::size_t k_text_limit = 256;

using Words = std::pair<const char*, std::string>;

struct InWords {
  Words operator()(const FatalFaultLogged& fault) const {
    return {"fatal_fault", "server " + std::to_string(fault.server) + " handles a fatal GPU error"};
  }
  Words operator()(const CulpritNamed& culprit) const {
    return {"culprit", "MPS names pid " + std::to_string(culprit.pid)};
  }
  Words operator()(const StickyClients& sticky) const {
    std::string list;
    for (const auto pid : sticky.pids) {
      list += (list.empty() ? "" : ", ") + std::to_string(pid);
      if (list.size() > k_text_limit) break;
    }
    if (list.empty()) return {"sticky_clients", "MPS lists the clients that hold the error"};
    return {"sticky_clients", "they hold the error: " + list};
  }
  Words operator()(const ClientStatusSeen& status) const {
    return {"client_status", "client " + std::to_string(status.pid) + " is " +
                                 (status.active ? "ACTIVE" : "INACTIVE")};
  }
  Words operator()(const ContextRecreated&) const {
    return {"context_recreated", "the server has made its context again"};
  }
  Words operator()(const XidReported& xid) const { return {"xid", describe_xid(xid.number)}; }
  Words operator()(const ActionReported& reported) const {
    return {"recovery_action",
            std::string("the driver's recovery action is ") + to_string(reported.action)};
  }
  Words operator()(const ServerStatusSeen&) const {
    return {"server_status", "the server is FAULT"};
  }
  Words operator()(const ServerEnded& ended) const {
    return {"server_ended", "server " + std::to_string(ended.pid) + " " + ended.how +
                                (ended.asked ? ", as it was to" : "")};
  }
  Words operator()(const DaemonEnded& ended) const {
    return {"daemon_ended",
            "the control daemon " + ended.how + (ended.asked ? ", as it was to" : "")};
  }
  Words operator()(const Wedged& wedged) const { return {"wedged", wedged.why}; }
  Words operator()(const AnswersAgain&) const {
    return {"answers_again", "the control daemon answers again"};
  }
  Words operator()(const StartFailed& failed) const { return {"start_failed", failed.cause}; }
  Words operator()(const Serving&) const { return {"serving", "newcomers are let in again"}; }
  Words operator()(const GivenUp& given_up) const { return {"given_up", given_up.why}; }
  // Clients and steps have lists of their own.
  Words operator()(const ClientCame&) const { return {"", ""}; }
  Words operator()(const ClientWent&) const { return {"", ""}; }
  Words operator()(const ClientServed&) const { return {"", ""}; }
  Words operator()(const ClientsKnown&) const { return {"", ""}; }
  Words operator()(const StepTaken&) const { return {"", ""}; }
};

}  // namespace

Note note_of(const Signal& signal, Time at) {
  auto [kind, text] = std::visit(InWords{}, signal);
  return {at, kind, printable(text, k_text_limit)};
}

}  // namespace mps::fault
