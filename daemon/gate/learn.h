// What a client of this node's libcuda says first, and whether the control daemon takes it from a
// relay: learnt without touching a daemon that anybody uses.
//
// A scratch daemon that sees no device tells the greeting. A program of ours loads the node's
// libcuda.so.1 and calls cuInit before a listener of our own, which gives that greeting and writes
// down what follows; twice, since it counts only if it is the same. Then it is passed on to the
// scratch daemon with the program's own credentials, and the daemon's log must name the program and
// not us.
//
// Threading: the executor of the caller. Each step has a deadline; about 0.3 s in all.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "gate/opening.h"

namespace mps::gate {

struct LearnSettings {
  std::filesystem::path control_program;   // nvidia-cuda-mps-control
  std::filesystem::path client_program;    // mps-cuinit
  std::vector<std::string> environment;    // as the instances' daemons get it
  std::filesystem::path scratch;           // a folder of ours; short, for the sockets in it
  std::chrono::milliseconds answer{2000};  // how long anybody may take to say something
  std::chrono::milliseconds quiet{100};    // then a client that waits has said what it says first
};

// An Error says which step failed; that is never taken for 'not allowed'.
boost::asio::awaitable<Result<Opening>> learn_opening(LearnSettings settings);

// Which files it depends on: path, size and time of change of the control program and of the
// libcuda.so.1 that a program with this environment loads. None: there is no such library. An
// Error: that could not be found out.
boost::asio::awaitable<Result<std::optional<std::string>>> driver_identity(LearnSettings settings);

}  // namespace mps::gate
