#include "control/front_end.h"

#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>
#include <cerrno>
#include <utility>

#include "base/unique_fd.h"

namespace mps::control {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr auto k_no_throw = asio::as_tuple(asio::use_awaitable);

Result<std::pair<UniqueFd, UniqueFd>> socket_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return Error::from_errno("socketpair for the front-end", errno);
  }
  return std::pair{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace

FrontEnd::FrontEnd(const asio::any_io_executor& executor, process::Child child, Socket socket)
    : child_(std::move(child)),
      socket_(std::move(socket)),
      deadline_(executor),
      changed_(executor) {}

FrontEnd::~FrontEnd() {
  // Only where the whole reactor goes away under it; else reap() holds on to it until the end.
  if (!status_) static_cast<void>(child_.signal(SIGKILL));
}

Result<std::shared_ptr<FrontEnd>> FrontEnd::start(const asio::any_io_executor& executor,
                                                  Place place, Clock::time_point deadline) {
  auto ends = socket_pair();
  if (!ends) return ends.error();
  // All that can fail comes before the process is there.
  Socket socket(executor);
  error_code error;
  socket.assign(asio::local::stream_protocol(), ends->first.get(), error);
  if (error) return Error::from_errno("watch the front-end's output", error.value());
  static_cast<void>(ends->first.release());
  process::SpawnSpec spec;
  spec.program = std::move(place.program);
  spec.environment = std::move(place.environment);
  spec.mount_space = std::move(place.space);
  // One that hangs would have the one command session, and the next supervisor none.
  spec.ends_with_us = true;
  spec.stdin_fd = spec.stdout_fd = spec.stderr_fd = ends->second.get();
  auto child = process::Child::spawn(executor, spec);
  if (!child) return child.error();
  // Not make_shared: the constructor is private.
  std::shared_ptr<FrontEnd> self(new FrontEnd(executor, std::move(*child), std::move(socket)));
  self->arm(deadline);
  asio::co_spawn(executor, reap(self), asio::detached);
  return self;
}

void FrontEnd::arm(Clock::time_point deadline) {
  deadline_.expires_at(deadline);
  deadline_.async_wait([weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    if (error || !self || self->status_) return;
    self->timed_out_ = true;
    self->wake();
  });
}

asio::awaitable<void> FrontEnd::reap(std::shared_ptr<FrontEnd> self) {
  try {
    self->status_ = co_await self->child_.wait();
  } catch (const boost::system::system_error&) {
    // It cannot be watched (no memory in the kernel): end it, and take it for ended.
    static_cast<void>(self->child_.signal(SIGKILL));
    self->status_ = process::ExitStatus{};
  }
  self->wake();
}

void FrontEnd::wake() {
  error_code ignored;
  socket_.cancel(ignored);
  changed_.cancel();
}

void FrontEnd::drop() {
  dropped_ = true;
  wake();
}

void FrontEnd::keep(std::size_t length) {
  const auto room = k_output_limit - output_.size();
  output_.append(buffer_.data(), std::min(length, room));
  if (length > room) flooded_ = true;
}

asio::awaitable<void> FrontEnd::read_all(std::shared_ptr<FrontEnd> self) {
  while (!self->is_over()) {
    const auto [error, length] =
        co_await self->socket_.async_read_some(asio::buffer(self->buffer_), k_no_throw);
    self->keep(length);
    // The end, also "connection reset": it left without having read all of the script.
    if (error) break;
  }
  if (self->status_) self->read_rest();
}

// It has ended, so all it ever said is here already, and somebody who inherited its descriptors
// cannot keep us waiting for an end of file.
void FrontEnd::read_rest() {
  error_code error;
  socket_.non_blocking(true, error);
  while (!error && !flooded_) {
    const auto length = socket_.read_some(asio::buffer(buffer_), error);
    if (!error) keep(length);
  }
}

asio::awaitable<void> FrontEnd::converse(std::shared_ptr<FrontEnd> self, std::string script) {
  if (!self->is_over()) {
    // An error here shows in what it prints and how it ends.
    co_await asio::async_write(self->socket_, asio::buffer(script), k_no_throw);
    error_code ignored;
    self->socket_.shutdown(Socket::shutdown_send, ignored);
  }
  co_await read_all(self);
  while (!self->is_over()) {
    self->changed_.expires_at(Clock::time_point::max());
    co_await self->changed_.async_wait(k_no_throw);
  }
}

asio::awaitable<void> FrontEnd::end(std::shared_ptr<FrontEnd> self) {
  self->deadline_.cancel();
  if (!self->status_) static_cast<void>(self->child_.signal(SIGKILL));
  const auto limit = Clock::now() + k_reap_limit;
  while (!self->status_ && Clock::now() < limit) {
    self->changed_.expires_at(limit);
    co_await self->changed_.async_wait(k_no_throw);
  }
}

}  // namespace mps::control
