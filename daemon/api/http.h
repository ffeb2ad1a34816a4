// What stands between the HTTP connection and what answers: plain values, so that answers are made
// and tested without a socket.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mps::api {

// Who is at the other end of a unix socket.
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

struct Request {
  std::string method;
  std::string path;                                        // as sent, without the query
  std::vector<std::pair<std::string, std::string>> query;  // decoded, in order
  std::string body;
  std::optional<Peer> peer;  // none on TCP

  [[nodiscard]] std::optional<std::string> parameter(std::string_view name) const;
};

struct Reply {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::string allow;  // the methods there are, with 405
};

// {"error":{"code":"not_found","message":"…"}}
Reply error_reply(unsigned status, std::string_view code, std::string_view message);

// An answer without an end: lines that come when they come. Used and destroyed on one executor.
class LineSource {
 public:
  virtual ~LineSource() = default;
  // Complete lines that are ready, about `limit` bytes of them; empty: none yet.
  virtual std::string take(std::size_t limit) = 0;
  // Nothing comes after what take() has given.
  [[nodiscard]] virtual bool ended() const = 0;
  // `wake` is called, from anywhere on the executor, when take() may have something.
  virtual void on_more(std::function<void()> wake) = 0;
};

// A reply that takes a while: called once, with where it is to be given, at once or later, on the
// same executor. It may come when nobody waits for it any more.
using Later = std::function<void(std::function<void(Reply)> reply)>;

using Answer = std::variant<Reply, std::unique_ptr<LineSource>, Later>;

// The path and the decoded query of a request's target. None: not a path, or bad escapes.
struct Target {
  std::string path;
  std::vector<std::pair<std::string, std::string>> query;
};
std::optional<Target> parse_target(std::string_view target);

// "%41" -> "A". None: an escape that is none, or a NUL.
std::optional<std::string> percent_decode(std::string_view text);
std::string percent_encode(std::string_view text);

}  // namespace mps::api
