#include "gate/link.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/unix_socket.h"
#include "gate/system.h"

namespace mps::gate {

namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

namespace {

constexpr auto k_use = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t k_words = 16384;  // to a gate that does not read
constexpr int k_messages = 64;          // heard before others get their turn
constexpr std::chrono::milliseconds k_first_pause{5};
constexpr std::chrono::milliseconds k_longest_pause{1000};
constexpr std::chrono::milliseconds k_last_word{2000};
constexpr std::chrono::milliseconds k_short_of_memory{50};

}  // namespace

Link::Link(const asio::any_io_executor& executor, Settings settings, Handler& handler)
    : executor_(executor), settings_(std::move(settings)), handler_(&handler), pause_(executor) {}

Link::~Link() {
  clear_words();
}

void Link::start() {
  co_spawn(executor_, run(shared_from_this()), asio::detached);
}

void Link::close() {
  closed_ = true;
  listed_ = false;
  pause_.cancel();
  if (gate_) gate_->close();
}

// What the gate has said and we have not read must not be left behind: the kernel would then end
// the connection with an error, and the gate not read our last word.
void Link::end() {
  if (!gate_ || closed_) return close();
  say({.kind = Kind::end}, -1);
  ending_ = true;
  listed_ = false;
  co_spawn(executor_, give_up(shared_from_this()), asio::detached);
}

asio::awaitable<void> Link::give_up(Self self) {
  self->pause_.expires_after(k_last_word);
  co_await self->pause_.async_wait(k_use);
  self->close();
}

// ---- finding or starting it ----

asio::awaitable<void> Link::run(Self self) {
  auto pause = k_first_pause;
  while (!self->closed_) {
    const auto began = std::chrono::steady_clock::now();
    auto socket = self->connect_or_start();
    std::string how;
    if (socket) {
      self->gate_.emplace(self->executor_, socket->release());
      how = co_await self->converse();
      self->gate_.reset();
      self->clear_words();
      self->writing_ = false;
      ++self->turn_;
    } else {
      how = socket.error().message;
    }
    self->listed_ = self->greeted_ = false;
    self->pid_ = 0;
    if (self->ending_) self->close();
    if (self->closed_) co_return;
    self->handler_->gate_lost(how);
    // One that stood is followed at once; one that does not even start, ever more rarely.
    const bool stood = std::chrono::steady_clock::now() - began > k_longest_pause;
    pause = stood ? k_first_pause : std::min(pause * 2, k_longest_pause);
    if (stood) continue;
    self->pause_.expires_after(pause);
    co_await self->pause_.async_wait(k_use);
  }
}

Result<UniqueFd> Link::connect_or_start() {
  auto socket = seqpacket_socket();
  if (!socket) return socket;
  const auto address = UnixAddress::of(settings_.socket);
  if (!address) return address.error();
  started_here_ = false;
  if (::connect(socket->get(), address->get(), address->size()) == 0) return socket;
  // Anything else may be a gate that lives, with programs inside: never a second one beside it.
  if (errno != ENOENT && errno != ECONNREFUSED) {
    return Error::from_errno("cannot reach the gate at " + settings_.socket.string(), errno);
  }
  auto started = start_gate();
  if (!started) return started;
  if (::connect(socket->get(), address->get(), address->size()) != 0) {
    return Error::from_errno("cannot reach the gate at " + settings_.socket.string(), errno);
  }
  started_here_ = true;
  return socket;
}

// The socket is made here, so that it is there before the gate is.
Result<UniqueFd> Link::start_gate() {
  auto socket = seqpacket_socket();
  if (!socket) return socket;
  const auto address = UnixAddress::of(settings_.socket);
  ::unlink(settings_.socket.c_str());
  if (::bind(socket->get(), address->get(), address->size()) != 0 ||
      ::chmod(settings_.socket.c_str(), 0600) != 0 || ::listen(socket->get(), 8) != 0) {
    return Error::from_errno("cannot listen at " + settings_.socket.string(), errno);
  }
  process::SpawnSpec spec;
  spec.program = settings_.program;
  spec.arguments = {settings_.name};
  spec.environment = settings_.environment;
  spec.more_fds = {socket->get()};
  auto child = process::Child::spawn(executor_, spec);
  if (!child) return child.error();
  co_spawn(executor_, reap(std::make_shared<process::Child>(std::move(*child))), asio::detached);
  return socket;
}

// Its end is noticed at its connection.
asio::awaitable<void> Link::reap(std::shared_ptr<process::Child> child) {
  co_await child->wait();
}

// ---- hearing ----

asio::awaitable<std::string> Link::converse() {
  trouble_.clear();
  System system;
  Buffer buffer;
  auto received = std::make_unique<Received>();
  for (;;) {
    const auto [error] = co_await gate_->async_wait(Descriptor::wait_read, k_use);
    if (error || closed_) co_return "let go";
    for (int i = 0; i < k_messages; ++i) {
      const auto got = system.receive(gate_->native_handle(), buffer, *received);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (got <= 0) co_return started_here_ ? "it ended" : "it has ended, or let us go";
      UniqueFd beside;
      if (received->descriptor_count == 1) {
        beside.reset(received->descriptors[0]);
        received->descriptor_count = 0;
      }
      const auto message = decode({buffer.data(), static_cast<std::size_t>(got)});
      if (!message) co_return "it says " + message.error().message;
      if (!ending_ && !hear(*message, std::move(beside))) co_return trouble_;
      if (closed_) co_return "let go";
    }
  }
}

bool Link::welcome(const Message& message) {
  if (message.code != k_protocol) {
    trouble_ = "it speaks version " + std::to_string(message.code) +
               " of the protocol, and this supervisor " + std::to_string(k_protocol);
    return false;
  }
  greeted_ = true;
  pid_ = message.pid;
  handler_->gate_stands(pid_, !started_here_);
  return true;
}

bool Link::hear(const Message& message, UniqueFd beside) {
  if (message.kind == Kind::welcome) return welcome(message);
  if (!greeted_) {
    trouble_ = "it does not introduce itself";
    return false;
  }
  const auto peer = [&] {
    return Peer{message.peer, std::string(message.share), message.pid, message.uid,
                message.gid,  std::move(beside)};
  };
  switch (message.kind) {
    case Kind::listening:
      if (beside) listeners_.try_emplace(std::string(message.share), std::move(beside));
      return true;
    case Kind::is_inside:
      handler_->is_inside(peer());
      return true;
    case Kind::listed:
      listed_ = true;
      introduce();
      handler_->all_listed();
      return true;
    case Kind::ask:
      handler_->asks(peer());
      return true;
    case Kind::inside:
      handler_->entered(message.peer);
      return true;
    case Kind::not_entered:
      handler_->not_entered(message.peer, static_cast<int>(message.code));
      return true;
    case Kind::gone:
      handler_->gone(message.peer);
      return true;
    case Kind::left:
      handler_->left(message.peer);
      return true;
    case Kind::refused:
      handler_->refused(message.pid, message.uid, static_cast<Refusal>(message.code),
                        static_cast<unsigned>(message.peer));
      return true;
    default:
      trouble_ = "it says what only supervisors say";
      return false;
  }
}

// ---- saying ----

void Link::introduce() {
  if (!setup_.empty()) say({.kind = Kind::setup, .bytes = setup_}, -1);
  if (daemon_directory_) say({.kind = Kind::daemon}, daemon_directory_.get());
  for (const auto& [share, socket] : listeners_)
    say({.kind = Kind::listen, .share = share}, socket.get());
}

void Link::say(const Message& message, int descriptor) {
  if (!gate_ || closed_) return;
  if (words_.size() >= k_words) {
    trouble_ = "it does not listen";
    gate_->close();
    return;
  }
  Buffer buffer;
  const auto bytes = encode(message, buffer);
  System system;
  if (words_.empty() && system.send(gate_->native_handle(), bytes, nullptr,
                                    {&descriptor, descriptor < 0 ? 0U : 1U}) >= 0) {
    return;
  }
  const int kept = descriptor < 0 ? -1 : ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  words_.push_back({std::string(bytes.begin(), bytes.end()), kept});
  if (!std::exchange(writing_, true))
    co_spawn(executor_, write(shared_from_this(), turn_), asio::detached);
}

asio::awaitable<void> Link::write(Self self, std::uint64_t turn) {
  System system;
  while (turn == self->turn_ && self->gate_ && !self->words_.empty()) {
    const auto [error] = co_await self->gate_->async_wait(Descriptor::wait_write, k_use);
    if (error || turn != self->turn_) co_return;
    const auto& word = self->words_.front();
    const std::span<const int> beside(&word.descriptor, word.descriptor < 0 ? 0U : 1U);
    if (system.send(self->gate_->native_handle(), word.bytes, nullptr, beside) < 0) {
      const int why = errno;
      if (why == EAGAIN || why == EINTR) continue;
      if (why != ENOBUFS && why != ENOMEM && why != ETOOMANYREFS) {
        co_return;  // it has gone: whoever reads finds out
      }
      asio::steady_timer pause(self->executor_, k_short_of_memory);
      co_await pause.async_wait(k_use);
      continue;
    }
    if (word.descriptor >= 0) ::close(word.descriptor);
    self->words_.pop_front();
  }
  if (turn == self->turn_) self->writing_ = false;
}

void Link::clear_words() {
  for (const auto& word : words_) {
    if (word.descriptor >= 0) ::close(word.descriptor);
  }
  words_.clear();
}

void Link::set_up(std::string greeting, const std::vector<std::string>& opening) {
  std::vector<std::string> texts{std::move(greeting)};
  texts.insert(texts.end(), opening.begin(), opening.end());
  setup_ = pack(texts);
  if (listed_) say({.kind = Kind::setup, .bytes = setup_}, -1);
}

void Link::serve(UniqueFd daemon_directory) {
  daemon_directory_ = std::move(daemon_directory);
  if (listed_) say({.kind = Kind::daemon}, daemon_directory_.get());
}

void Link::hold() {
  daemon_directory_.reset();
  if (listed_) say({.kind = Kind::no_daemon}, -1);
}

void Link::listen(const std::string& share, UniqueFd socket) {
  const auto [place, fresh] = listeners_.try_emplace(share, std::move(socket));
  if (fresh && listed_) say({.kind = Kind::listen, .share = share}, place->second.get());
}

void Link::unlisten(const std::string& share) {
  listeners_.erase(share);
  if (listed_) say({.kind = Kind::unlisten, .share = share}, -1);
}

int Link::listener(const std::string& share) const {
  const auto found = listeners_.find(share);
  return found == listeners_.end() ? -1 : found->second.get();
}

void Link::let_in(std::uint64_t peer) {
  say({.kind = Kind::let_in, .peer = peer}, -1);
}
void Link::refuse(std::uint64_t peer) {
  say({.kind = Kind::refuse, .peer = peer}, -1);
}

}  // namespace mps::gate
