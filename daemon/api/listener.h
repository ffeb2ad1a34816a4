// HTTP/1.1 over any stream socket: accepts, reads requests within limits, writes what a handler
// answers. One slow, silent or hostile peer costs one connection and no more; where there are too
// many, those that say nothing make room for newcomers.
//
// Threading: everything on one executor. After stop() (or the destructor) the handler is not called
// again and no line source is touched; connections end by themselves, within `stop_grace`.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "api/http.h"
#include "base/unique_fd.h"

namespace mps::api {

struct HttpLimits {
  std::size_t header_bytes = 8 * 1024;
  std::size_t body_bytes = 64 * 1024;
  std::size_t connections = 64;                     // at once; with all busy, others get 503
  std::size_t streams = 32;                         // of these, answers without an end
  std::chrono::milliseconds read_deadline{30000};   // for a whole request, from the first moment on
  std::chrono::milliseconds write_deadline{10000};  // for an answer; of a stream, for each piece
  std::chrono::milliseconds later_deadline{30000};  // for a reply that takes a while
  std::chrono::milliseconds heartbeat{15000};       // an empty line in a stream with nothing to say
  std::chrono::milliseconds accept_retry{100};      // after an accept that failed (no descriptors)
  std::chrono::milliseconds stop_grace{1000};       // for answers under way when stopped
};

class HttpListener {
 public:
  using Handler = std::function<Answer(const Request&)>;

  // `socket` listens and is non-blocking.
  HttpListener(const boost::asio::any_io_executor& executor, UniqueFd socket, int family,
               HttpLimits limits, Handler handler);
  ~HttpListener();
  HttpListener(HttpListener&&) noexcept;
  HttpListener& operator=(HttpListener&&) noexcept;

  void stop();
  [[nodiscard]] std::size_t connections() const;

 private:
  struct Core;
  class Session;
  std::shared_ptr<Core> core_;
};

}  // namespace mps::api
