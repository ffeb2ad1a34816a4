// The command channel of one control daemon: one front-end process a batch, one batch at a time,
// a deadline for each. The daemon has one command session, and whoever asks for a second one gets
// nothing at all and is told so at random.
//
// Not answered is looked into before it is reported: is the daemon stopped, does somebody hold the
// session, does it wait for a silent peer, and who is that (see verdict.h). It is not tried again
// here; that is up to the owner. A quit that is carried out comes back as Absent, or as Busy where
// the daemon takes a moment longer than its front-end: its end is the fact to wait for.
//
// Threading: on one executor. Callers queue, first come, first served, but for those that give way;
// a queue is bounded (k_queue_limit), past it a batch is Unanswered at once. A caller that is
// cancelled, and the end of the Channel, kill the front-end that runs for it; callers still waiting
// get Unanswered. The Channel may be destroyed at any time, its reactor too.
#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/commands.h"
#include "control/outcome.h"
#include "process/mount_space.h"

namespace mps::control {

struct ChannelSettings {
  std::filesystem::path front_end;       // nvidia-cuda-mps-control
  std::vector<std::string> environment;  // of the front-end; CUDA_MPS_PIPE_DIRECTORY is in it
  // <pipe>/control as the daemon bound it, whose peers are named when it is busy or blocked; with
  // it goes <pipe>/control_privileged.
  std::filesystem::path control_socket;
  std::chrono::milliseconds timeout{3000};
  // For seeing who else is connected when there is no answer; the reactor stands still meanwhile.
  std::chrono::milliseconds look_limit{150};
};

struct ChannelCounters {
  std::uint64_t batches = 0;       // that have an outcome
  std::uint64_t not_answered = 0;  // all outcomes but Answered
};

class Channel {
 public:
  static constexpr std::size_t k_queue_limit = 64;

  Channel(const boost::asio::any_io_executor& executor, ChannelSettings settings);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // The daemon's pid, for looking into a missing answer; 0: unknown. Pids in `friends` (clients, a
  // gate) are not suspected of holding the channel, nor are the daemon's own children.
  // `space`: where its directory is to be seen, and so where front-ends run; none: where we are.
  void set_daemon(pid_t daemon, std::shared_ptr<const process::MountSpace> space = {});
  void set_friends(std::vector<pid_t> friends);

  // Runs a batch when its turn comes; the front-end is killed at the deadline. The deadline may be
  // longer for a command that waits by nature (terminate_client, quit).
  boost::asio::awaitable<Outcome> run(std::vector<Command> batch,
                                      std::optional<std::chrono::milliseconds> timeout = {});
  // The same with a batch that is made when its turn has come, for what may not wait in the queue
  // (a pid may be another process's by then). Empty: it is Answered with nothing, and nothing runs.
  using Make = std::function<std::vector<Command>()>;
  // What gives way has its turn when nothing else waits. That it comes at all is for those in order
  // to see to: each has one batch at a time here, and its end lets another one in.
  enum class Turn { in_order, gives_way };
  boost::asio::awaitable<Outcome> run_made(Make make, std::chrono::milliseconds timeout,
                                           Turn turn = Turn::in_order);

  [[nodiscard]] const ChannelCounters& counters() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mps::control
