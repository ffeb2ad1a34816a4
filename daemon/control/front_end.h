// One run of the command front-end: the script goes in, all it prints comes out, under one absolute
// deadline. Nothing of it is left behind: at the deadline, when it is dropped, or when it prints
// too much, the process is killed and reaped. Should even that take long (a process in
// uninterruptible sleep), a detached coroutine stays to reap it and nobody waits.
//
// Its three descriptors are one end of a socket pair rather than pipes, so that writing to a
// front-end that has gone is an error and no SIGPIPE. The real front-ends accept that.
//
// Threading: everything on the executor it was made with. Internal to this room.
#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "process/child.h"
#include "process/mount_space.h"

namespace mps::control {

class FrontEnd : public std::enable_shared_from_this<FrontEnd> {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t k_output_limit = 1 << 20;
  // How long a killed front-end may take to be gone before nobody waits for it any more.
  static constexpr std::chrono::milliseconds k_reap_limit{1000};

  struct Place {
    std::filesystem::path program;
    std::vector<std::string> environment;
    std::shared_ptr<const process::MountSpace> space;  // none: ours
  };
  static Result<std::shared_ptr<FrontEnd>> start(const boost::asio::any_io_executor& executor,
                                                 Place place, Clock::time_point deadline);
  ~FrontEnd();
  FrontEnd(const FrontEnd&) = delete;
  FrontEnd& operator=(const FrontEnd&) = delete;

  // Completes when the front-end has ended, at the deadline, when it was dropped, or when it has
  // printed more than k_output_limit bytes.
  static boost::asio::awaitable<void> converse(std::shared_ptr<FrontEnd> self, std::string script);
  // Kills what still runs, and completes when it is reaped or k_reap_limit has passed.
  static boost::asio::awaitable<void> end(std::shared_ptr<FrontEnd> self);
  // Makes converse() complete at once.
  void drop();

  [[nodiscard]] pid_t pid() const { return child_.pid(); }
  [[nodiscard]] const std::string& output() const { return output_; }
  [[nodiscard]] const std::optional<process::ExitStatus>& status() const { return status_; }
  [[nodiscard]] bool timed_out() const { return timed_out_; }
  [[nodiscard]] bool flooded() const { return flooded_; }

 private:
  using Socket = boost::asio::local::stream_protocol::socket;

  FrontEnd(const boost::asio::any_io_executor& executor, process::Child child, Socket socket);
  void arm(Clock::time_point deadline);
  static boost::asio::awaitable<void> reap(std::shared_ptr<FrontEnd> self);
  static boost::asio::awaitable<void> read_all(std::shared_ptr<FrontEnd> self);
  void read_rest();
  void keep(std::size_t length);
  void wake();
  [[nodiscard]] bool is_over() const { return status_ || timed_out_ || flooded_ || dropped_; }

  process::Child child_;
  Socket socket_;
  boost::asio::steady_timer deadline_;
  boost::asio::steady_timer changed_;  // cancelled whenever is_over() may have become true
  std::array<char, 16384> buffer_{};
  std::string output_;
  std::optional<process::ExitStatus> status_;
  bool timed_out_ = false;
  bool flooded_ = false;
  bool dropped_ = false;
};

}  // namespace mps::control
