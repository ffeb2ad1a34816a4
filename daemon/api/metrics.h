// Prometheus metrics and health on TCP: /metrics, /healthz, /readyz. Nothing here changes anything.
// Threading and lifetimes as for Server.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/agent.h"
#include "api/event_log.h"
#include "api/listener.h"
#include "api/route.h"
#include "base/result.h"

namespace mps::api {

struct JournalCounts {
  std::uint64_t events = 0;
  std::uint64_t write_errors = 0;
};
// The text format 0.0.4. Labels are bounded: device (UUID), domain, namespace (those that have been
// let in or wait, or are kept out), kind (of findings and incidents), code, state, hash.
std::string render_metrics(const AgentStatus& status,
                           const std::vector<instance::Snapshot>& instances,
                           const JournalCounts& journal, const PolicyStatus& policies,
                           const AdmissionStatus& admissions, const AuditStatus& audit,
                           const FaultDesk* faults = nullptr);

// "127.0.0.1:9464", "[::1]:9464", ":9464" (all addresses), "localhost:9464". Addresses are numbers:
// nothing is asked of a name server.
struct ListenAddress {
  std::string host;  // numeric
  std::uint16_t port = 0;
};
Result<ListenAddress> parse_listen_address(const std::string& text);

// A probe says all it has to say at once.
inline HttpLimits metrics_limits() {
  HttpLimits limits;
  limits.read_deadline = std::chrono::milliseconds(5000);
  return limits;
}

class MetricsServer {
 public:
  static Result<std::unique_ptr<MetricsServer>> open(const boost::asio::any_io_executor& executor,
                                                     const std::string& listen, const Agent& agent,
                                                     const EventLog& log,
                                                     HttpLimits limits = metrics_limits());
  void stop() { listener_.stop(); }
  [[nodiscard]] std::uint16_t port() const { return port_; }  // as bound
  static std::vector<RouteInfo> routes();

 private:
  MetricsServer(HttpListener listener, std::uint16_t port)
      : listener_(std::move(listener)), port_(port) {}
  HttpListener listener_;
  std::uint16_t port_;
};

}  // namespace mps::api
