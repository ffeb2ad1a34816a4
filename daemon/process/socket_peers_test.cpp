#include "process/socket_peers.h"

#include <doctest/doctest.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "process/proc.h"
#include "process/socket_diag.h"
#include "process/test_support.h"

using namespace mps;
using namespace mps::process;
using namespace mps::process::testing;

namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return address;
}

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

UniqueFd listen_on(const std::string& path) {
  auto socket = make_socket();
  const auto address = address_of(path);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(socket.get(), 8) != 0) {
    return {};
  }
  return socket;
}

UniqueFd connect_to(const std::string& path) {
  auto socket = make_socket();
  const auto address = address_of(path);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return {};
  }
  return socket;
}

// A forked process that does `work`, says whether that went well, and stays until this goes.
class Other {
 public:
  template <typename Work>
  explicit Other(Work work) {
    int to_us[2];
    int to_it[2];
    REQUIRE(::pipe(to_us) == 0);
    REQUIRE(::pipe(to_it) == 0);
    static_cast<void>(std::fflush(nullptr));  // or the child would print it again
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(to_it[1]);
      const auto kept = work();
      const char word = kept ? 'y' : 'n';
      char end = 0;
      const bool told = ::write(to_us[1], &word, 1) == 1;
      // Ends with our end of the pipe.
      const bool held = told && ::read(to_it[0], &end, 1) == 0;
      ::_exit(held ? 0 : 1);
    }
    ::close(to_us[1]);
    ::close(to_it[0]);
    hold_.reset(to_it[1]);
    const UniqueFd reader(to_us[0]);
    char word = 0;
    went_well_ = ::read(reader.get(), &word, 1) == 1 && word == 'y';
  }
  Other(const Other&) = delete;
  Other& operator=(const Other&) = delete;
  ~Other() {
    hold_.reset();
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool went_well() const { return went_well_; }

 private:
  pid_t pid_ = 0;
  UniqueFd hold_;
  bool went_well_ = false;
};

std::string own_name() {
  return Proc{}.stat(::getpid())->name;
}

UniqueFd accept_from(const UniqueFd& listener) {
  return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

template <typename T>
void put(std::vector<std::byte>& out, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

nlmsghdr message(std::size_t length, int type) {
  nlmsghdr header{};
  header.nlmsg_len = static_cast<std::uint32_t>(length);
  header.nlmsg_type = static_cast<std::uint16_t>(type);
  return header;
}

constexpr auto k_never = std::chrono::steady_clock::time_point::max();

// The peers on one path, with all the time in the world.
Result<std::vector<SocketPeer>> peers_at(pid_t pid, const std::filesystem::path& path) {
  auto found = peers_of(pid, std::span(&path, 1), k_never);
  if (!found) return found.error();
  if (!found->complete) return Error{"not complete"};
  return std::move(found->peers);
}

}  // namespace

TEST_CASE("a peer in another process has a name") {
  const TempFolder folder;
  const auto path = (folder / "control").string();
  const auto listener = listen_on(path);
  REQUIRE(listener);
  const Other client([&] { return connect_to(path); });
  REQUIRE(client.went_well());
  const auto accepted = accept_from(listener);
  const auto peers = peers_at(::getpid(), path);
  REQUIRE(peers);
  REQUIRE(peers->size() == 1);
  CHECK(peers->front().descriptor == accepted.get());
  CHECK(peers->front().pid == client.pid());
  CHECK(peers->front().name == own_name());
  CHECK(peers->front().peer_inode != 0);
}

TEST_CASE("the process asked about may be another, and the peers ourselves") {
  const TempFolder folder;
  const auto path = (folder / "control").string();
  const Other daemon([&] {
    // It takes one connection from itself, then those that come later stay in the backlog.
    static UniqueFd listener = listen_on(path);
    static UniqueFd own = connect_to(path);
    static UniqueFd accepted = accept_from(listener);
    return UniqueFd(::dup(accepted.get()));
  });
  REQUIRE(daemon.went_well());
  const auto waiting = connect_to(path);
  REQUIRE(waiting);
  const auto peers = peers_at(daemon.pid(), path);
  REQUIRE(peers);
  REQUIRE(peers->size() == 1);
  CHECK(peers->front().pid == daemon.pid());
}

TEST_CASE("only connections accepted on that path, oldest descriptor first") {
  const TempFolder folder;
  const auto path = (folder / "control").string();
  const auto elsewhere = (folder / "elsewhere").string();
  const auto listener = listen_on(path);
  const auto other_listener = listen_on(elsewhere);
  REQUIRE(listener);
  REQUIRE(other_listener);
  CHECK(peers_at(::getpid(), path)->empty());
  const auto first = connect_to(path);
  const auto first_accepted = accept_from(listener);
  const auto other = connect_to(elsewhere);
  const auto other_accepted = accept_from(other_listener);
  const auto second = connect_to(path);
  const auto second_accepted = accept_from(listener);
  const auto peers = peers_at(::getpid(), path);
  REQUIRE(peers);
  REQUIRE(peers->size() == 2);
  CHECK(peers->at(0).descriptor == first_accepted.get());
  CHECK(peers->at(1).descriptor == second_accepted.get());
  CHECK(peers->at(0).pid == ::getpid());
  CHECK(peers->at(0).peer_inode != peers->at(1).peer_inode);
  CHECK(peers_at(::getpid(), path + "x")->empty());
}

TEST_CASE("a peer that has closed is none") {
  const TempFolder folder;
  const auto path = (folder / "control").string();
  const auto listener = listen_on(path);
  auto client = connect_to(path);
  const auto accepted = accept_from(listener);
  REQUIRE(peers_at(::getpid(), path)->size() == 1);
  client.reset();
  CHECK(peers_at(::getpid(), path)->empty());
}

TEST_CASE("a peer in another network namespace, as pods have") {
  const TempFolder folder;
  const auto path = (folder / "control").string();
  const auto listener = listen_on(path);
  REQUIRE(listener);
  const Other client([&] { return ::unshare(CLONE_NEWNET) == 0 ? connect_to(path) : UniqueFd(); });
  if (!client.went_well()) {
    MESSAGE("skipped: a network namespace cannot be made here");
    return;
  }
  const auto accepted = accept_from(listener);
  const auto peers = peers_at(::getpid(), path);
  REQUIRE(peers);
  REQUIRE(peers->size() == 1);
  CHECK(peers->front().descriptor == accepted.get());
  CHECK(peers->front().pid == client.pid());
}

TEST_CASE("a process that is not there is an error") {
  const auto peers = peers_of(0, {}, k_never);
  REQUIRE_FALSE(peers);
  CHECK(peers.error().message == "open /proc/0/fd: No such file or directory");
}

TEST_CASE("asking leaves no descriptor") {
  const auto before = open_descriptors();
  for (int i = 0; i < 10; ++i) REQUIRE(peers_at(::getpid(), "/nowhere"));
  CHECK(open_descriptors() == before);
}

TEST_CASE("several paths in one look") {
  const TempFolder folder;
  const std::vector<std::filesystem::path> paths{folder / "control", folder / "privileged"};
  const auto listener = listen_on(paths[0]);
  const auto other_listener = listen_on(paths[1]);
  const auto first = connect_to(paths[1]);
  const auto first_accepted = accept_from(other_listener);
  const auto second = connect_to(paths[0]);
  const auto second_accepted = accept_from(listener);
  const auto found = peers_of(::getpid(), paths, k_never);
  REQUIRE(found);
  CHECK(found->complete);
  REQUIRE(found->peers.size() == 2);
  CHECK(found->peers[0].path == 1);
  CHECK(found->peers[1].path == 0);
}

TEST_CASE("a look whose time is over says so, whatever it has to look at") {
  const TempFolder folder;
  const std::vector<std::filesystem::path> paths{folder / "control"};
  const auto listener = listen_on(paths[0]);
  const auto client = connect_to(paths[0]);
  const auto accepted = accept_from(listener);
  const auto late = peers_of(::getpid(), paths, std::chrono::steady_clock::now());
  REQUIRE_FALSE(late);
  CHECK(late.error().message == "sock_diag: Connection timed out");
  // Wherever the time ends, what is not complete is not said to be.
  int complete = 0;
  for (auto time = std::chrono::microseconds(1); complete < 3; time *= 2) {
    const auto found = peers_of(::getpid(), paths, std::chrono::steady_clock::now() + time);
    if (!found || !found->complete) continue;
    ++complete;
    REQUIRE(found->peers.size() == 1);
    CHECK(found->peers[0].pid == ::getpid());
  }
}

TEST_CASE("only the sockets that are wanted are kept, and trouble in a namespace is an error") {
  const auto none = [](const UnixSocket&) { return false; };
  const auto own = unix_sockets(none, k_never);
  REQUIRE(own);
  CHECK(own->empty());
  // Entering needs CAP_SYS_ADMIN; without it this is an error of another kind.
  const auto thrown = unix_sockets_of(
      "/proc/self/ns/net", [](const UnixSocket&) -> bool { throw std::bad_alloc(); }, k_never);
  REQUIRE_FALSE(thrown);
  CHECK(thrown.error().message.starts_with("enter /proc/self/ns/net: "));
  const auto missing = unix_sockets_of("/nonexistent", none, k_never);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().message == "open /nonexistent: No such file or directory");
}

TEST_CASE("the kernel's answer: errors, ends and cut messages") {
  std::vector<UnixSocket> sockets;
  std::vector<std::byte> datagram;
  CHECK_FALSE(*parse_unix_sockets(datagram, sockets));

  put(datagram, message(sizeof(nlmsghdr) + sizeof(int), NLMSG_ERROR));
  put(datagram, int{-ENOENT});
  const auto refused = parse_unix_sockets(datagram, sockets);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message == "sock_diag: No such file or directory");

  datagram.clear();
  put(datagram, message(9999, NLMSG_DONE));
  CHECK_FALSE(*parse_unix_sockets(datagram, sockets));
  datagram.clear();
  put(datagram, message(sizeof(nlmsghdr), NLMSG_DONE));
  CHECK(*parse_unix_sockets(datagram, sockets));
  CHECK(sockets.empty());
}
