// The `control` socket in the open share's directory while an instance runs `direct`: either a hard
// link of the daemon's, or a listener that refuses.
//
// CUDA fails open: a program whose first connection (a probe) fails runs without MPS and without
// limits. So a closed door is not a missing socket: it gives each connection the daemon's greeting,
// as it was last seen, and closes once the peer has said something. cuInit then returns 805
// (measured; docs/mps-behaviour.md). While no greeting is known, connections wait in the backlog.
//
// Bounds: k_peers at once; the rest wait in the backlog. A silent peer is never closed, since that
// would be the failed probe.
//
// Threading: the executor given. Destroying it stops listening.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "instance/entrance.h"

namespace mps::instance {

class Door final : public Entrance {
 public:
  static constexpr std::size_t k_peers = 64;

  // `directory` is the share's, which containers have mounted and where uid 0 of one may do
  // anything; `staging` is ours alone (0700, same file system). Sockets and links are made there
  // and moved.
  Door(const boost::asio::any_io_executor& executor, std::filesystem::path directory,
       std::filesystem::path staging);
  ~Door() override;
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  void daemon_is_at(std::shared_ptr<const PipePlace> /*place*/) override {}
  // Newcomers reach the daemon that listens on `control`: a hard link, renamed into place. Those
  // that still wait at the refusing listener are refused, not dropped.
  // True if it was not so already.
  Result<bool> open(const std::filesystem::path& control) override;
  // Newcomers are refused from here on.
  Result<void> close() override;

  [[nodiscard]] bool leads_to(const std::filesystem::path& control) const override;

  void greeting(std::string bytes) override;
  [[nodiscard]] bool wants_greeting() const override;
  [[nodiscard]] GateState gate() const override { return GateState::direct; }

 private:
  struct Refuser;
  boost::asio::any_io_executor executor_;
  [[nodiscard]] Result<UniqueFd> directory() const;
  [[nodiscard]] Result<void> move_into_place(const std::filesystem::path& fresh) const;

  std::filesystem::path directory_;
  std::filesystem::path staging_;
  std::shared_ptr<Refuser> refuser_;
  std::string greeting_;
};

// What the daemon at `control` says to a newcomer first; an Error when it says nothing in time.
// Costs two lines in its log and nothing else: a probe of CUDA does the same.
inline constexpr std::chrono::milliseconds k_greeting_deadline{250};
boost::asio::awaitable<Result<std::string>> ask_greeting(
    std::filesystem::path control, std::chrono::milliseconds deadline = k_greeting_deadline);

// The same, again and again, until it says something or nobody waits for that any more.
struct AwaitedGreeting {
  std::filesystem::path control;
  std::function<bool()> wanted;
  std::function<void(std::string)> said;
  std::function<void(const Error&)> failed;  // each time
  std::chrono::milliseconds deadline = k_greeting_deadline;
};
boost::asio::awaitable<void> await_greeting(AwaitedGreeting greeting);

}  // namespace mps::instance
