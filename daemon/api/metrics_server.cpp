#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "api/metrics.h"
#include "api/policy_json.h"
#include "base/text.h"

namespace mps::api {

namespace {

constexpr int k_backlog = 128;

class Health {
 public:
  Health(const Agent& agent, const EventLog& log) : agent_(agent), log_(log) {}

  static const std::array<Route<Health>, 3>& table() {
    static const std::array<Route<Health>, 3> routes{{{{"GET", "/metrics", {}}, &Health::metrics},
                                                      {{"GET", "/healthz", {}}, &Health::healthz},
                                                      {{"GET", "/readyz", {}}, &Health::readyz}}};
    return routes;
  }

 private:
  static Reply text(unsigned status, std::string body) {
    return {status, std::move(body), "text/plain; charset=utf-8", ""};
  }
  Answer metrics(const Request&, const std::string&) {
    return Reply{
        200,
        render_metrics(agent_.status(), agent_.instances(), {log_.last_id(), log_.write_errors()},
                       agent_.policies(), agent_.admissions(), agent_.audit(), agent_.faults()),
        "text/plain; version=0.0.4; charset=utf-8", ""};
  }
  Answer healthz(const Request&, const std::string&) { return text(200, "ok\n"); }
  Answer readyz(const Request&, const std::string&) {
    const auto status = agent_.status();
    const auto rest = devices_out() + "\npolicies: " + summary(agent_.policies()) + "\n";
    return status.ready ? text(200, "ok" + rest) : text(503, status.not_ready_because + rest);
  }
  [[nodiscard]] std::string devices_out() const {
    std::string lines;
    const auto* faults = agent_.faults();
    if (faults == nullptr) return lines;
    for (const auto& [device, entry] : faults->devices_out().entries) {
      lines += "\n" + fault::describe(entry);
    }
    return lines;
  }

  const Agent& agent_;
  const EventLog& log_;
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  int family = AF_UNSPEC;
};

SocketAddress socket_address(const ListenAddress& address) {
  SocketAddress result;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (inet_pton(AF_INET, address.host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(address.port);
    std::memcpy(&result.storage, &v4, sizeof v4);
    result.size = sizeof v4;
    result.family = AF_INET;
  } else if (inet_pton(AF_INET6, address.host.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(address.port);
    std::memcpy(&result.storage, &v6, sizeof v6);
    result.size = sizeof v6;
    result.family = AF_INET6;
  }
  return result;
}

Result<UniqueFd> listen_on(const SocketAddress& address, const std::string& text) {
  UniqueFd fd(::socket(address.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Error::from_errno("listen on " + text, errno);
  const int on = 1;
  // So that a restart does not wait for the connections of the last life.
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
      ::listen(fd.get(), k_backlog) != 0) {
    return Error::from_errno("listen on " + text, errno);
  }
  return fd;
}

std::uint16_t bound_port(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return 0;
  // The port stands at the same place in both families' addresses.
  sockaddr_in address{};
  std::memcpy(&address, &storage, sizeof address);
  return ntohs(address.sin_port);
}

}  // namespace

Result<ListenAddress> parse_listen_address(const std::string& text) {
  const auto wrong = [&text](const char* why) {
    return Error{std::string("metricsListen: ") + why + ": \"" + printable(text, 64) + "\""};
  };
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return wrong("must be ADDRESS:PORT");
  const auto port = parse_number<std::uint16_t>(std::string_view(text).substr(colon + 1));
  if (!port) return wrong("the port must be a number up to 65535");
  ListenAddress address{text.substr(0, colon), *port};
  auto& host = address.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host.empty()) host = "0.0.0.0";
  if (host == "localhost") host = "127.0.0.1";
  if (socket_address(address).size == 0) {
    return wrong("the address must be numeric, such as 127.0.0.1:9464 or [::1]:9464");
  }
  return address;
}

Result<std::unique_ptr<MetricsServer>> MetricsServer::open(
    const boost::asio::any_io_executor& executor, const std::string& listen, const Agent& agent,
    const EventLog& log, HttpLimits limits) {
  const auto parsed = parse_listen_address(listen);
  if (!parsed) return parsed.error();
  const auto address = socket_address(*parsed);
  auto fd = listen_on(address, listen);
  if (!fd) return fd.error();
  const auto port = bound_port(fd->get());
  const auto health = std::make_shared<Health>(agent, log);
  HttpListener listener(
      executor, std::move(*fd), address.family, limits,
      [health](const Request& request) { return dispatch(Health::table(), *health, request); });
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(listener), port));
}

std::vector<RouteInfo> MetricsServer::routes() {
  std::vector<RouteInfo> list;
  for (const auto& route : Health::table()) list.push_back(route.info);
  return list;
}

}  // namespace mps::api
