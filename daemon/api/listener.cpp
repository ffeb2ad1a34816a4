#include "api/listener.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdint>
#include <exception>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace mps::api {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Protocol = asio::generic::stream_protocol;
using Stream = beast::basic_stream<Protocol, asio::any_io_executor>;

namespace {

constexpr auto k_awaitable = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t k_piece = 1024 * 1024;             // of a stream, in one write
constexpr std::size_t k_read_buffer = 128 * 1024;        // a request, and what comes behind it
constexpr std::size_t k_refusals = 16;                   // 503s being said at once
constexpr std::chrono::milliseconds k_linger{1000};      // for a peer to read its error
constexpr std::size_t k_linger_bytes = 2 * 1024 * 1024;  // and to finish what it was saying

std::optional<Peer> peer_of(int fd) {
  int domain = AF_UNSPEC;
  socklen_t size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return std::nullopt;
  ucred credentials{};
  size = sizeof credentials;
  if (domain != AF_UNIX) return std::nullopt;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return std::nullopt;
  Peer peer{credentials.pid, credentials.uid, credentials.gid, {}};
  std::array<gid_t, 1024> groups{};
  size = sizeof groups;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0) {
    peer.groups.assign(groups.begin(), groups.begin() + size / sizeof(gid_t));
  }
  return peer;
}

http::response<http::string_body> message_from(Reply reply, unsigned version, bool keep_alive) {
  http::response<http::string_body> message{http::int_to_status(reply.status), version};
  message.set(http::field::content_type, reply.content_type);
  if (!reply.allow.empty()) message.set(http::field::allow, reply.allow);
  message.keep_alive(keep_alive);
  message.body() = std::move(reply.body);
  message.prepare_payload();
  return message;
}

Reply malformed(const error_code& error) {
  if (error == http::error::header_limit) {
    return error_reply(431, "header_too_large", "the request's header is too large");
  }
  if (error == http::error::body_limit) {
    return error_reply(413, "body_too_large", "the request's body is too large");
  }
  return error_reply(400, "bad_request", "not an HTTP request: " + error.message());
}

class Counted {
 public:
  explicit Counted(std::size_t& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::size_t& count_;
};

bool is_http_error(const error_code& error) {
  return error.category() == make_error_code(http::error::end_of_stream).category();
}

}  // namespace

struct HttpListener::Core : std::enable_shared_from_this<Core> {
  Core(const asio::any_io_executor& executor_in, HttpLimits limits_in, Handler handler_in)
      : executor(executor_in),
        acceptor(executor_in),
        retry(executor_in),
        grace(executor_in),
        limits(limits_in),
        handler(std::move(handler_in)) {}

  static asio::awaitable<void> accept_loop(std::shared_ptr<Core> self);
  void admit(Protocol::socket socket);
  bool make_room();
  void stop();
  void gone(Session* session);

  asio::any_io_executor executor;
  asio::basic_socket_acceptor<Protocol, asio::any_io_executor> acceptor;
  asio::steady_timer retry;
  asio::steady_timer grace;
  HttpLimits limits;
  Handler handler;
  std::set<Session*> sessions;
  std::uint64_t turns = 0;  // counts the waits for a request, so that they have an order
  std::size_t streams = 0;
  std::size_t refusals = 0;
  bool stopping = false;
};

// One connection. It lives as long as its coroutine.
class HttpListener::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Core> core, Protocol::socket socket)
      : core_(std::move(core)),
        stream_(std::move(socket)),
        wake_(core_->executor),
        waiting_(++core_->turns) {
    peer_ = peer_of(stream_.socket().native_handle());
  }
  // Also where its coroutine could not even begin.
  ~Session() { core_->sessions.erase(this); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  static asio::awaitable<void> run(std::shared_ptr<Session> self);
  static asio::awaitable<void> refuse(std::shared_ptr<Session> self);
  void stop();
  void close() { stream_.close(); }

  // The smallest is the first to make room: those never served before others, then those that
  // wait longest. None: it is being served.
  [[nodiscard]] std::optional<std::pair<bool, std::uint64_t>> dispensable() const {
    if (waiting_ == 0) return std::nullopt;
    return std::pair(served_, waiting_);
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  asio::awaitable<bool> serve_one();
  asio::awaitable<bool> answer(const http::request<http::string_body>& message);
  asio::awaitable<bool> send(Reply reply, unsigned version, bool keep_alive,
                             bool header_only = false);
  asio::awaitable<Reply> wait_for(const Later& later);
  asio::awaitable<void> stream_lines();
  asio::awaitable<bool> write_piece(const std::string& piece);
  asio::awaitable<void> linger();
  Answer ask(const http::request<http::string_body>& message);
  void watch_peer();

  std::shared_ptr<Core> core_;
  Stream stream_;
  asio::steady_timer wake_;
  beast::flat_buffer buffer_{k_read_buffer};
  std::optional<Peer> peer_;
  std::unique_ptr<LineSource> source_;
  std::uint64_t waiting_;  // for a request, in this turn; 0: not waiting
  bool served_ = false;
  bool reading_ = false;
  bool peer_gone_ = false;
  bool stopping_ = false;
};

// Accepting

asio::awaitable<void> HttpListener::Core::accept_loop(std::shared_ptr<Core> self) {
  while (!self->stopping) {
    bool failed = true;
    try {
      auto [error, socket] = co_await self->acceptor.async_accept(k_awaitable);
      if (self->stopping) co_return;
      failed = error && error != asio::error::connection_aborted;
      if (failed) spdlog::warn("accept: {}", error.message());
      if (!error) self->admit(std::move(socket));
    } catch (const std::exception& failure) {
      // One connection is lost, and not those that come after it.
      failed = true;
      spdlog::error("accept: {}", failure.what());
    }
    if (!failed) continue;
    self->retry.expires_after(self->limits.accept_retry);
    (void)co_await self->retry.async_wait(k_awaitable);
  }
}

// Ends the most dispensable connection; its place is free at once. False: all are being served.
bool HttpListener::Core::make_room() {
  Session* first = nullptr;
  for (auto* session : sessions) {
    if (!session->dispensable()) continue;
    if (first == nullptr || *session->dispensable() < *first->dispensable()) first = session;
  }
  if (first == nullptr) return false;
  sessions.erase(first);
  first->stop();
  return true;
}

void HttpListener::Core::admit(Protocol::socket socket) {
  const bool full = sessions.size() >= limits.connections && !make_room();
  if (full && refusals >= k_refusals) return;
  auto session = std::make_shared<Session>(shared_from_this(), std::move(socket));
  const auto ended = [](std::exception_ptr failure) {
    // Only what Asio itself throws (no memory) can come here: the connection is lost, no more.
    if (failure) spdlog::error("a connection ended with an exception");
  };
  if (full) {
    asio::co_spawn(executor, Session::refuse(session), ended);
    return;
  }
  sessions.insert(session.get());
  asio::co_spawn(executor, Session::run(session), ended);
}

void HttpListener::Core::gone(Session* session) {
  sessions.erase(session);
  if (stopping && sessions.empty()) grace.cancel();
}

void HttpListener::Core::stop() {
  if (stopping) return;
  stopping = true;
  error_code ignored;
  acceptor.close(ignored);
  retry.cancel();
  handler = nullptr;
  for (auto* session : sessions) session->stop();
  if (sessions.empty()) return;
  grace.expires_after(limits.stop_grace);
  grace.async_wait([self = shared_from_this()](const error_code& error) {
    if (error) return;
    for (auto* session : self->sessions) session->close();
  });
}

// One connection

asio::awaitable<void> HttpListener::Session::run(std::shared_ptr<Session> self) {
  struct Leave {
    Session* session;
    ~Leave() { session->core_->gone(session); }
  } const leave{self.get()};
  while (!self->stopping_ && co_await self->serve_one()) {
  }
  self->source_.reset();
  self->close();
}

asio::awaitable<void> HttpListener::Session::refuse(std::shared_ptr<Session> self) {
  const Counted counted(self->core_->refusals);
  (void)co_await self->send(
      error_reply(503, "too_many_connections", "too many connections, try again"), 11, false);
  co_await self->linger();
  self->close();
}

void HttpListener::Session::stop() {
  stopping_ = true;
  source_.reset();
  wake_.cancel();
  if (reading_) close();
}

asio::awaitable<bool> HttpListener::Session::serve_one() {
  Parser parser;
  parser.header_limit(static_cast<std::uint32_t>(core_->limits.header_bytes));
  parser.body_limit(core_->limits.body_bytes);
  stream_.expires_after(core_->limits.read_deadline);
  reading_ = true;
  waiting_ = ++core_->turns;
  const auto [error, size] = co_await http::async_read(stream_, buffer_, parser, k_awaitable);
  waiting_ = 0;
  reading_ = false;
  if (stopping_) co_return false;
  if (!error) co_return co_await answer(parser.get());
  if (is_http_error(error) && error != http::error::end_of_stream) {
    (void)co_await send(malformed(error), 11, false);
    co_await linger();
  }
  co_return false;
}

asio::awaitable<bool> HttpListener::Session::answer(
    const http::request<http::string_body>& message) {
  served_ = true;
  auto answer = ask(message);
  if (const auto* later = std::get_if<Later>(&answer)) answer = co_await wait_for(*later);
  if (auto* reply = std::get_if<Reply>(&answer)) {
    const bool header_only = message.method() == http::verb::head;
    co_return co_await send(std::move(*reply), message.version(), message.keep_alive(),
                            header_only);
  }
  source_ = std::get<std::unique_ptr<LineSource>>(std::move(answer));
  const Counted counted(core_->streams);
  co_await stream_lines();
  co_return false;
}

Answer HttpListener::Session::ask(const http::request<http::string_body>& message) {
  auto target = parse_target({message.target().data(), message.target().size()});
  if (!target) return error_reply(400, "bad_request", "not a path that can be read");
  const Request request{std::string(message.method_string()), std::move(target->path),
                        std::move(target->query), message.body(), peer_};
  try {
    auto answer = core_->handler(request);
    if (!std::holds_alternative<std::unique_ptr<LineSource>>(answer)) return answer;
    if (message.version() < 11) {
      return error_reply(400, "bad_request", "a stream needs HTTP/1.1");
    }
    if (core_->streams >= core_->limits.streams) {
      return error_reply(503, "too_many_streams", "too many streams, try again");
    }
    return answer;
  } catch (const std::exception& failure) {
    spdlog::error("{} {}: {}", request.method, request.path, failure.what());
    return error_reply(500, "internal", failure.what());
  }
}

asio::awaitable<Reply> HttpListener::Session::wait_for(const Later& later) {
  const auto reply = std::make_shared<std::optional<Reply>>();
  later([reply, weak = weak_from_this()](Reply come) {
    *reply = std::move(come);
    if (const auto self = weak.lock()) self->wake_.cancel();
  });
  wake_.expires_after(core_->limits.later_deadline);
  if (!*reply && !stopping_) (void)co_await wake_.async_wait(k_awaitable);
  if (*reply) co_return **reply;
  co_return error_reply(504, "not_answered",
                        stopping_ ? "the supervisor is ending" : "no answer in time");
}

asio::awaitable<bool> HttpListener::Session::send(Reply reply, unsigned version, bool keep_alive,
                                                  bool header_only) {
  const bool stay = keep_alive && !stopping_;
  const auto message = message_from(std::move(reply), version, stay);
  stream_.expires_after(core_->limits.write_deadline);
  if (header_only) {
    http::response_serializer<http::string_body> serializer(message);
    const auto [error, size] = co_await http::async_write_header(stream_, serializer, k_awaitable);
    co_return !error && stay;
  }
  const auto [error, size] = co_await http::async_write(stream_, message, k_awaitable);
  co_return !error && stay;
}

// A peer that is still sending would lose the answer to the reset that close() makes: what it sends
// is read and thrown away for a while.
asio::awaitable<void> HttpListener::Session::linger() {
  error_code ignored;
  stream_.socket().shutdown(Protocol::socket::shutdown_send, ignored);
  stream_.expires_after(k_linger);
  std::array<char, 16 * 1024> waste{};
  reading_ = true;
  for (std::size_t total = 0; total < k_linger_bytes && !stopping_;) {
    const auto [error, size] = co_await stream_.async_read_some(asio::buffer(waste), k_awaitable);
    if (error) break;
    total += size;
  }
  reading_ = false;
}

// Answers without an end

void HttpListener::Session::watch_peer() {
  // Not wait_read: a peer may close its own half after its request and still listen.
  stream_.socket().async_wait(Protocol::socket::wait_error,
                              [self = shared_from_this()](const error_code& error) {
                                if (error) return;
                                self->peer_gone_ = true;
                                self->wake_.cancel();
                              });
}

asio::awaitable<void> HttpListener::Session::stream_lines() {
  http::response<http::empty_body> head{http::status::ok, 11};
  head.set(http::field::content_type, "application/x-ndjson");
  head.keep_alive(false);
  head.chunked(true);
  http::response_serializer<http::empty_body> serializer(head);
  stream_.expires_after(core_->limits.write_deadline);
  const auto [error, size] = co_await http::async_write_header(stream_, serializer, k_awaitable);
  if (error) co_return;
  watch_peer();
  if (source_) source_->on_more([this] { wake_.cancel(); });
  while (source_ && !peer_gone_) {
    auto piece = source_->take(k_piece);
    if (piece.empty() && source_->ended()) break;
    if (piece.empty()) {
      wake_.expires_after(core_->limits.heartbeat);
      const auto [woken] = co_await wake_.async_wait(k_awaitable);
      if (woken) continue;
      piece = "\n";
    }
    if (!co_await write_piece(piece)) co_return;
  }
  stream_.expires_after(core_->limits.write_deadline);
  (void)co_await asio::async_write(stream_, http::make_chunk_last(), k_awaitable);
}

asio::awaitable<bool> HttpListener::Session::write_piece(const std::string& piece) {
  stream_.expires_after(core_->limits.write_deadline);
  const auto [error, size] =
      co_await asio::async_write(stream_, http::make_chunk(asio::buffer(piece)), k_awaitable);
  co_return !error;
}

// The listener

HttpListener::HttpListener(const asio::any_io_executor& executor, UniqueFd socket, int family,
                           HttpLimits limits, Handler handler)
    : core_(std::make_shared<Core>(executor, limits, std::move(handler))) {
  core_->acceptor.assign(Protocol(family, 0), socket.get());
  (void)socket.release();  // it is the acceptor's only now: assign may throw
  asio::co_spawn(executor, Core::accept_loop(core_), asio::detached);
}

HttpListener::~HttpListener() {
  stop();
}
HttpListener::HttpListener(HttpListener&&) noexcept = default;
HttpListener& HttpListener::operator=(HttpListener&& other) noexcept {
  if (this != &other) {
    stop();
    core_ = std::move(other.core_);
  }
  return *this;
}

void HttpListener::stop() {
  if (core_) core_->stop();
}

std::size_t HttpListener::connections() const {
  return core_->sessions.size();
}

}  // namespace mps::api
