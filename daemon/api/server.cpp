#include "api/server.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "api/api.h"

namespace mps::api {

namespace {

constexpr std::size_t k_address_limit = sizeof(sockaddr_un::sun_path) - 1;
constexpr int k_backlog = 128;

struct Bound {
  UniqueFd fd;
  struct ::stat identity {};
};

Result<UniqueFd> bind_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Error::from_errno("socket", errno);
  // Linux takes the file's mode from here: there is no moment in which it is open to others.
  if (::fchmod(fd.get(), 0600) != 0) return Error::from_errno("fchmod of a socket", errno);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error::from_errno("unlink " + path, errno);
  }
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error::from_errno("bind " + path, errno);
  }
  return fd;
}

Result<Bound> finish(UniqueFd fd, const std::string& name, const ServerSettings& settings) {
  Bound bound{std::move(fd), {}};
  if (settings.operators && ::chown(name.c_str(), geteuid(), *settings.operators) != 0) {
    return Error::from_errno("chown " + name, errno);
  }
  if (::chmod(name.c_str(), 0660) != 0) return Error::from_errno("chmod " + name, errno);
  if (::listen(bound.fd.get(), k_backlog) != 0) return Error::from_errno("listen", errno);
  if (::lstat(name.c_str(), &bound.identity) != 0) return Error::from_errno("lstat " + name, errno);
  if (::rename(name.c_str(), settings.socket.c_str()) != 0) {
    return Error::from_errno("rename " + name + " to " + settings.socket.string(), errno);
  }
  return bound;
}

Result<Bound> make_socket(const ServerSettings& settings) {
  const auto name = settings.socket.string() + ".new";
  if (name.size() > k_address_limit) {
    return Error{"socket path " + settings.socket.string() + " is too long: " +
                 std::to_string(settings.socket.string().size()) + " bytes, at most " +
                 std::to_string(k_address_limit - 4) + "; choose a shorter run directory"};
  }
  auto fd = bind_at(name);
  if (!fd) return fd.error();
  auto bound = finish(std::move(*fd), name, settings);
  if (!bound) ::unlink(name.c_str());
  return bound;
}

}  // namespace

Server::Server(ServerSettings settings, struct ::stat identity, HttpListener listener)
    : settings_(std::move(settings)), identity_(identity), listener_(std::move(listener)) {}

Server::~Server() {
  stop();
}

Result<std::unique_ptr<Server>> Server::open(const boost::asio::any_io_executor& executor,
                                             ServerSettings settings, Agent& agent, EventLog& log) {
  auto bound = make_socket(settings);
  if (!bound) return bound.error();
  auto api = std::make_shared<Api>(agent, log, settings.operators);
  HttpListener listener(executor, std::move(bound->fd), AF_UNIX, settings.limits,
                        [api](const Request& request) { return api->handle(request); });
  return std::unique_ptr<Server>(
      new Server(std::move(settings), bound->identity, std::move(listener)));
}

void Server::stop() {
  if (std::exchange(stopped_, true)) return;
  struct ::stat now {};
  if (::lstat(settings_.socket.c_str(), &now) == 0 && now.st_dev == identity_.st_dev &&
      now.st_ino == identity_.st_ino) {
    ::unlink(settings_.socket.c_str());
  }
  listener_.stop();
}

}  // namespace mps::api
