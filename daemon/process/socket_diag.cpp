#include "process/socket_diag.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <exception>
#include <iterator>
#include <optional>
#include <system_error>
#include <thread>

#include "base/unique_fd.h"

namespace mps::process {
namespace {

constexpr std::size_t aligned(std::size_t length) {
  return (length + 3) & ~std::size_t{3};
}

template <typename T>
std::optional<T> load(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value{};
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

std::string bound_name(std::span<const std::byte> bytes) {
  std::string name(bytes.size(), '\0');
  std::transform(bytes.begin(), bytes.end(), name.begin(),
                 [](std::byte byte) { return static_cast<char>(byte); });
  // A path comes with its terminator; an abstract name begins with a NUL and may end with one.
  if (!name.empty() && name.front() != '\0') name.resize(std::strlen(name.c_str()));
  return name;
}

void add_attribute(std::uint16_t type, std::span<const std::byte> value, UnixSocket& socket) {
  if (type == UNIX_DIAG_NAME) socket.name = bound_name(value);
  if (type == UNIX_DIAG_PEER) socket.peer_inode = load<std::uint32_t>(value).value_or(0);
}

std::optional<UnixSocket> parse_socket(std::span<const std::byte> body) {
  const auto head = load<unix_diag_msg>(body);
  if (!head) return std::nullopt;
  UnixSocket socket{.inode = head->udiag_ino};
  body = body.subspan(sizeof(unix_diag_msg));
  while (const auto attribute = load<rtattr>(body)) {
    const std::size_t length = attribute->rta_len;
    if (length < sizeof(rtattr) || length > body.size()) break;
    add_attribute(attribute->rta_type, body.subspan(sizeof(rtattr), length - sizeof(rtattr)),
                  socket);
    body = body.subspan(std::min(aligned(length), body.size()));
  }
  return socket;
}

Result<UniqueFd> open_diag() {
  UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!socket) return Error::from_errno("sock_diag", errno);
  return socket;
}

// What is left until the deadline goes for each read.
Result<void> set_timeout(int socket, LookClock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::microseconds>(deadline - LookClock::now()).count();
  if (left <= 0) return Error::from_errno("sock_diag", ETIMEDOUT);
  const timeval limit{.tv_sec = static_cast<time_t>(left / 1'000'000),
                      .tv_usec = static_cast<suseconds_t>(left % 1'000'000)};
  if (::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0) {
    return Error::from_errno("sock_diag", errno);
  }
  return {};
}

Result<void> ask_for_unix_sockets(int socket) {
  struct {
    nlmsghdr header;
    unix_diag_req body;
  } request{};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.sdiag_family = AF_UNIX;
  request.body.udiag_states = ~0U;
  request.body.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER;
  if (::send(socket, &request, sizeof(request), 0) < 0)
    return Error::from_errno("sock_diag", errno);
  return {};
}

}  // namespace

Result<bool> parse_unix_sockets(std::span<const std::byte> datagram, std::vector<UnixSocket>& out) {
  while (const auto header = load<nlmsghdr>(datagram)) {
    const std::size_t length = header->nlmsg_len;
    if (length < sizeof(nlmsghdr) || length > datagram.size()) break;
    const auto body = datagram.subspan(sizeof(nlmsghdr), length - sizeof(nlmsghdr));
    if (header->nlmsg_type == NLMSG_DONE) return true;
    if (header->nlmsg_type == NLMSG_ERROR) {
      return Error::from_errno("sock_diag", -load<int>(body).value_or(-EIO));
    }
    if (auto socket = parse_socket(body)) out.push_back(std::move(*socket));
    datagram = datagram.subspan(std::min(aligned(length), datagram.size()));
  }
  return false;
}

Result<std::vector<UnixSocket>> unix_sockets(const SocketFilter& wanted,
                                             LookClock::time_point deadline) {
  const auto socket = open_diag();
  if (!socket) return socket.error();
  if (auto asked = ask_for_unix_sockets(socket->get()); !asked) return asked.error();
  std::vector<UnixSocket> kept;
  std::vector<UnixSocket> piece;
  std::vector<std::byte> buffer(32 * std::size_t{1024});
  for (;;) {
    if (auto ready = set_timeout(socket->get(), deadline); !ready) return ready.error();
    const auto got = ::recv(socket->get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error::from_errno("sock_diag", errno == EAGAIN ? ETIMEDOUT : errno);
    const auto length = static_cast<std::size_t>(got);
    piece.clear();
    const auto complete = parse_unix_sockets(std::span(buffer).first(length), piece);
    if (!complete) return complete.error();
    std::copy_if(piece.begin(), piece.end(), std::back_inserter(kept), wanted);
    if (*complete || got == 0) return kept;
  }
}

Result<std::vector<UnixSocket>> unix_sockets_of(const std::filesystem::path& file,
                                                const SocketFilter& wanted,
                                                LookClock::time_point deadline) {
  const UniqueFd space(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!space) return Error::from_errno("open " + file.string(), errno);
  // What stays if the thread cannot even report its trouble; made before it could run out of
  // memory.
  Result<std::vector<UnixSocket>> sockets = Error::from_errno("enter " + file.string(), ENOMEM);
  const auto visit = [&]() noexcept {
    try {
      sockets = ::setns(space.get(), CLONE_NEWNET) == 0
                    ? unix_sockets(wanted, deadline)
                    : Error::from_errno("enter " + file.string(), errno);
    } catch (const std::exception&) {
      // An exception that left the thread would be the end of the process.
    }
  };
  try {
    std::thread(visit).join();
  } catch (const std::system_error& error) {
    return Error::from_errno("enter " + file.string(), error.code().value());
  }
  return sockets;
}

}  // namespace mps::process
