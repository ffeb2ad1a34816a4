#include "instance/door.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>

#include "base/unique_fd.h"
#include "base/unix_socket.h"

namespace mps::instance {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using Descriptor = asio::posix::stream_descriptor;
using namespace asio::experimental::awaitable_operators;

namespace {

constexpr auto k_use = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t k_greeting_limit = 256;  // 9 bytes on all versions seen
constexpr int k_messages = 4;  // that a refused peer's opening is read for; it has two
constexpr std::chrono::milliseconds k_descriptors_short{100};
constexpr std::chrono::milliseconds k_greeting_again{50};

Result<UniqueFd> listen_at(const fs::path& path) {
  auto made = seqpacket_socket();
  if (!made) return made;
  const auto address = UnixAddress::of(path);
  if (!address) return address.error();
  ::unlink(path.c_str());
  if (::bind(made->get(), address->get(), address->size()) != 0 ||
      ::chmod(path.c_str(), 0666) != 0 || ::listen(made->get(), 512) != 0) {
    return Error::from_errno("cannot listen at " + path.string(), errno);
  }
  return made;
}

}  // namespace

// Lives until its listener is retired and its last peer has gone.
struct Door::Refuser {
  Refuser(const asio::any_io_executor& executor, UniqueFd socket)
      : listener(executor, socket.release()), woken(executor) {
    woken.expires_at(asio::steady_timer::time_point::max());
  }

  Descriptor listener;
  asio::steady_timer woken;  // cancelled to look again: a greeting, a free place, the end
  std::string greeting;
  std::size_t peers = 0;
  bool retired = false;  // nobody new can come; those in the backlog are still answered
  bool ended = false;

  void wake() { woken.cancel(); }

  // Nothing is sent before it can be the daemon's own greeting. `self` is a parameter: a coroutine
  // begins later than it is made, and would find a member's owner gone.
  static asio::awaitable<void> serve(std::shared_ptr<Refuser> self) {
    while (!self->ended) co_await self->serve_one(self);
  }

  asio::awaitable<void> serve_one(std::shared_ptr<Refuser> self) {
    if (greeting.empty() || peers >= k_peers) {
      co_await woken.async_wait(k_use);
      co_return;
    }
    const int accepted =
        ::accept4(listener.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted >= 0) {
      ++peers;
      co_spawn(listener.get_executor(), refuse(self, UniqueFd(accepted)), asio::detached);
    } else if (errno == EAGAIN && retired) {
      ended = true;
    } else if (errno == EAGAIN) {
      co_await listener.async_wait(Descriptor::wait_read, k_use);
    } else if (errno != EINTR && errno != ECONNABORTED) {
      // No descriptors or memory: whoever waits goes on waiting, which is safe.
      asio::steady_timer pause(listener.get_executor(), k_descriptors_short);
      co_await pause.async_wait(k_use);
    }
  }

  static asio::awaitable<void> refuse(std::shared_ptr<Refuser> self, UniqueFd socket) {
    Descriptor peer(co_await asio::this_coro::executor, socket.release());
    ::send(peer.native_handle(), self->greeting.data(), self->greeting.size(), MSG_NOSIGNAL);
    // Readable: it spoke, or it left. What it said is taken, so that it reads an end, not a reset.
    co_await peer.async_wait(Descriptor::wait_read, k_use);
    std::array<char, k_greeting_limit> said{};
    for (int i = 0; i < k_messages; ++i) {
      if (::recv(peer.native_handle(), said.data(), said.size(), MSG_DONTWAIT) <= 0) break;
    }
    --self->peers;
    self->wake();
  }
};

Door::Door(const asio::any_io_executor& executor, fs::path directory, fs::path staging)
    : executor_(executor), directory_(std::move(directory)), staging_(std::move(staging)) {}

Door::~Door() {
  if (!refuser_) return;
  refuser_->ended = true;
  refuser_->wake();
  boost::system::error_code ignored;
  refuser_->listener.close(ignored);
}

void Door::greeting(std::string bytes) {
  greeting_ = std::move(bytes);
  if (!refuser_) return;
  refuser_->greeting = greeting_;
  refuser_->wake();
}

bool Door::wants_greeting() const {
  return greeting_.empty();
}

// A container that has the share mounted for writing may have put a link in the directory's place.
Result<UniqueFd> Door::directory() const {
  UniqueFd opened(::open(directory_.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return Error::from_errno("cannot open " + directory_.string(), errno);
  return opened;
}

Result<void> Door::move_into_place(const fs::path& fresh) const {
  const auto into = directory();
  if (!into) return into.error();
  int moved = ::renameat(AT_FDCWD, fresh.c_str(), into->get(), "control");
  if (moved != 0 && errno == EISDIR && ::unlinkat(into->get(), "control", AT_REMOVEDIR) == 0) {
    moved = ::renameat(AT_FDCWD, fresh.c_str(), into->get(), "control");
  }
  if (moved != 0) {
    return Error::from_errno("cannot put a socket at " + (directory_ / "control").string(), errno);
  }
  return {};
}

bool Door::leads_to(const fs::path& control) const {
  const auto in = directory();
  struct stat theirs {};
  struct stat ours {};
  return in && ::lstat(control.c_str(), &theirs) == 0 &&
         ::fstatat(in->get(), "control", &ours, AT_SYMLINK_NOFOLLOW) == 0 &&
         theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev;
}

Result<bool> Door::open(const fs::path& control) {
  const bool news = !leads_to(control);
  if (news) {
    const auto fresh = staging_ / "control.new";
    ::unlink(fresh.c_str());
    if (::link(control.c_str(), fresh.c_str()) != 0) {
      return Error::from_errno("cannot link " + control.string() + " to " + fresh.string(), errno);
    }
    if (auto moved = move_into_place(fresh); !moved) return moved.error();
  }
  if (refuser_) {
    refuser_->retired = true;
    refuser_->wake();
    boost::system::error_code ignored;
    refuser_->listener.cancel(ignored);
    refuser_.reset();
  }
  return news;
}

Result<void> Door::close() {
  if (refuser_) return {};
  const auto fresh = staging_ / "control.new";
  auto socket = listen_at(fresh);
  if (!socket) return socket.error();
  if (auto moved = move_into_place(fresh); !moved) return moved;
  refuser_ = std::make_shared<Refuser>(executor_, std::move(*socket));
  refuser_->greeting = greeting_;
  co_spawn(executor_, Refuser::serve(refuser_), asio::detached);
  return {};
}

asio::awaitable<Result<std::string>> ask_greeting(fs::path control,
                                                  std::chrono::milliseconds limit) {
  auto made = seqpacket_socket();
  if (!made) co_return made.error();
  const auto address = UnixAddress::of(control);
  if (!address) co_return address.error();
  if (::connect(made->get(), address->get(), address->size()) != 0) {
    co_return Error::from_errno("connect " + control.string(), errno);
  }
  const auto executor = co_await asio::this_coro::executor;
  Descriptor daemon(executor, made->release());
  asio::steady_timer deadline(executor, limit);
  const auto first =
      co_await (daemon.async_wait(Descriptor::wait_read, k_use) || deadline.async_wait(k_use));
  if (first.index() == 1) co_return Error{"no greeting from " + control.string()};
  std::array<char, k_greeting_limit> bytes{};
  const auto got = ::recv(daemon.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got <= 0) co_return Error{"no greeting from " + control.string()};
  co_return std::string(bytes.data(), static_cast<std::size_t>(got));
}

asio::awaitable<void> await_greeting(AwaitedGreeting greeting) {
  while (greeting.wanted()) {
    auto heard = co_await ask_greeting(greeting.control, greeting.deadline);
    if (heard) {
      greeting.said(std::move(*heard));
      co_return;
    }
    if (!greeting.wanted()) break;
    greeting.failed(heard.error());
    asio::steady_timer pause(co_await asio::this_coro::executor, k_greeting_again);
    co_await pause.async_wait(k_use);
  }
}

}  // namespace mps::instance
