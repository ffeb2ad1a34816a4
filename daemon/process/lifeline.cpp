#include "process/lifeline.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

namespace mps::process {

Result<Lifeline> Lifeline::make() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Error::from_errno("pipe for a child", errno);
  Lifeline line;
  line.childs_.reset(ends[0]);
  line.ours_.reset(ends[1]);
  return line;
}

Result<void> Lifeline::hold(pid_t child) {
  const int end = childs_.get();
  const int flags = ::fcntl(end, F_GETFL);
  // The owner is the process, not its number: whoever has the pid after it is none.
  if (flags < 0 || ::fcntl(end, F_SETSIG, SIGKILL) != 0 || ::fcntl(end, F_SETOWN, child) != 0 ||
      ::fcntl(end, F_SETFL, flags | O_ASYNC) != 0) {
    return Error::from_errno("tie process " + std::to_string(child) + " to this one", errno);
  }
  childs_.reset();
  return {};
}

}  // namespace mps::process
