#include "ctl/client.h"

#include <sys/un.h>

#include <algorithm>
#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <exception>
#include <string_view>
#include <utility>

#include "base/text.h"

namespace mps::ctl {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Stream = beast::basic_stream<asio::local::stream_protocol, asio::any_io_executor>;

namespace {

constexpr auto k_awaitable = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t k_answer_limit = 256 * 1024 * 1024;
constexpr std::size_t k_line_limit = 1024 * 1024;

Error unreachable(const std::string& socket, const error_code& error) {
  auto message = "cannot reach the supervisor at " + socket + ": " + error.message();
  if (error == boost::system::errc::permission_denied) {
    return Error{message + "; you must be root or in the operators' group"};
  }
  return Error{
      message +
      "; is mps-supervisor running? (try: systemctl status mps-supervisor, mps-ctl doctor)"};
}

// One exchange: the state that its coroutine works on. It outlives the io_context's run().
class Exchange {
 public:
  Exchange(asio::io_context& io, std::string socket, std::chrono::milliseconds timeout)
      : stream_(io.get_executor()), socket_(std::move(socket)), timeout_(timeout) {}

  asio::awaitable<void> request(http::request<http::string_body> message) {
    if (!co_await send(message)) co_return;
    http::response_parser<http::string_body> parser;
    parser.body_limit(k_answer_limit);
    const auto [error, size] = co_await http::async_read(stream_, buffer_, parser, k_awaitable);
    if (error) {
      no_answer(error);
      co_return;
    }
    response_ = {parser.get().result_int(), std::move(parser.get().body())};
  }

  asio::awaitable<void> follow(http::request<http::string_body> message,
                               const Client::OnLine& on_line, std::chrono::milliseconds silence) {
    if (!co_await send(message)) co_return;
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    const auto [error, size] =
        co_await http::async_read_header(stream_, buffer_, parser, k_awaitable);
    if (error) {
      no_answer(error);
      co_return;
    }
    response_.status = parser.get().result_int();
    co_await read_body(parser, on_line, silence);
  }

  Result<Response> result() && {
    if (!error_.message.empty()) return std::move(error_);
    return std::move(response_);
  }

 private:
  using BufferParser = http::response_parser<http::buffer_body>;

  asio::awaitable<bool> send(const http::request<http::string_body>& message) {
    stream_.expires_after(timeout_);
    const auto [connect_error] = co_await stream_.async_connect(
        asio::local::stream_protocol::endpoint(socket_), k_awaitable);
    if (connect_error) {
      error_ = unreachable(socket_, connect_error);
      co_return false;
    }
    const auto [error, size] = co_await http::async_write(stream_, message, k_awaitable);
    // A supervisor that has no room says so without reading: its answer counts.
    if (error && error != asio::error::broken_pipe) {
      no_answer(error);
      co_return false;
    }
    co_return true;
  }

  asio::awaitable<void> read_body(BufferParser& parser, const Client::OnLine& on_line,
                                  std::chrono::milliseconds silence) {
    std::array<char, 16 * 1024> piece{};
    while (!parser.is_done()) {
      parser.get().body().data = piece.data();
      parser.get().body().size = piece.size();
      stream_.expires_after(silence);
      const auto [error, size] =
          co_await http::async_read_some(stream_, buffer_, parser, k_awaitable);
      take({piece.data(), piece.size() - parser.get().body().size}, on_line);
      if (enough_) co_return;
      if (error && error != http::error::need_buffer) {
        no_answer(error);
        co_return;
      }
    }
  }

  void take(std::string_view piece, const Client::OnLine& on_line) {
    if (response_.status != 200) {
      response_.body +=
          piece.substr(0, k_line_limit - std::min(response_.body.size(), k_line_limit));
      return;
    }
    for (auto end = piece.find('\n'); end != std::string_view::npos; end = piece.find('\n')) {
      line_ += piece.substr(0, end);
      piece.remove_prefix(end + 1);
      if (!line_.empty() && !on_line(line_)) {
        enough_ = true;
        return;
      }
      line_.clear();
    }
    line_ += piece.substr(0, k_line_limit - std::min(line_.size(), k_line_limit));
  }

  void no_answer(const error_code& error) {
    const bool late = error == beast::error::timeout;
    error_ = Error{"the supervisor at " + socket_ +
                   " does not answer: " + (late ? "no answer in time" : error.message())};
  }

  Stream stream_;
  beast::flat_buffer buffer_;
  std::string socket_;
  std::chrono::milliseconds timeout_;
  std::string line_;
  bool enough_ = false;
  Response response_;
  Error error_;
};

http::request<http::string_body> request_message(const std::string& method,
                                                 const std::string& target,
                                                 const std::string& body) {
  http::request<http::string_body> message;
  message.method_string(method);
  message.target(target);
  message.version(11);
  message.set(http::field::host, "localhost");
  message.set(http::field::user_agent, "mps-ctl/" MPS_VERSION);
  message.keep_alive(false);
  if (!body.empty()) message.set(http::field::content_type, "application/json");
  message.body() = body;
  message.prepare_payload();
  return message;
}

void rethrow(std::exception_ptr failure) {
  if (failure) std::rethrow_exception(failure);
}

// What Asio would throw for.
Result<void> check_path(const std::string& socket) {
  constexpr std::size_t k_limit = sizeof(sockaddr_un::sun_path) - 1;
  if (!socket.empty() && socket.size() <= k_limit) return {};
  return Error{"cannot reach the supervisor at " + printable(socket) +
               ": a socket's path has 1 to " + std::to_string(k_limit) + " bytes"};
}

}  // namespace

Client::Client(std::string socket, std::chrono::milliseconds timeout)
    : socket_(std::move(socket)), timeout_(timeout) {}

Result<Response> Client::request(const std::string& method, const std::string& target,
                                 const std::string& body) {
  if (auto fine = check_path(socket_); !fine) return fine.error();
  asio::io_context io(1);
  Exchange exchange(io, socket_, timeout_);
  asio::co_spawn(io, exchange.request(request_message(method, target, body)), rethrow);
  io.run();
  return std::move(exchange).result();
}

Result<Response> Client::follow(const std::string& target, const OnLine& on_line,
                                std::chrono::milliseconds silence) {
  if (auto fine = check_path(socket_); !fine) return fine.error();
  asio::io_context io(1);
  Exchange exchange(io, socket_, timeout_);
  asio::co_spawn(io, exchange.follow(request_message("GET", target, ""), on_line, silence),
                 rethrow);
  io.run();
  return std::move(exchange).result();
}

}  // namespace mps::ctl
