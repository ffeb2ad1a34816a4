// Speaks to the supervisor over its unix socket. Blocks its caller, with a deadline.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/result.h"

namespace mps::ctl {

struct Response {
  unsigned status = 0;
  std::string body;
};

class Client {
 public:
  explicit Client(std::string socket, std::chrono::milliseconds timeout = std::chrono::seconds(5));

  // An Error: the supervisor was not reached, or did not answer; its message says what to do.
  Result<Response> request(const std::string& method, const std::string& target,
                           const std::string& body = "");

  // Gives each line of a stream, until the supervisor ends it in order or `on_line` says false:
  // then the response has status 200 and no body. A response that is no stream is given back. Lines
  // that say nothing but that the stream lives are left out; where even those fail to come for
  // `silence`, that is an Error too.
  using OnLine = std::function<bool(const std::string&)>;
  Result<Response> follow(const std::string& target, const OnLine& on_line,
                          std::chrono::milliseconds silence = std::chrono::seconds(45));

 private:
  std::string socket_;
  std::chrono::milliseconds timeout_;
};

}  // namespace mps::ctl
