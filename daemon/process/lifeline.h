// Makes a child end when we end, however that is: SIGKILL included.
//
// The child inherits one end of a pipe whose other end only we have, and the kernel is asked to
// send it SIGKILL when that one is closed (F_SETSIG on a descriptor with O_ASYNC), which is what
// the end of our process does. Unlike prctl(PR_SET_PDEATHSIG) it does not go by the thread that
// started the child, which may be one that lives for a moment (mount_space.h), and nothing has to
// run in the child. It holds for as long as the child keeps the descriptor: NVIDIA's front-ends of
// 535 and 550 do, and nobody has a reason to close what it does not know.
//
// There is a moment, between the child's exec and hold(), in which our end is not its own: until
// then nothing must be asked of it that should not go on alone.
//
// Threading: any, one at a time.
#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::process {

class Lifeline {
 public:
  static Result<Lifeline> make();

  // What the child is to inherit, as whichever number.
  [[nodiscard]] int childs_end() const { return childs_.get(); }
  // From here on it is killed when this goes, with us or alone. The pid must be that of a child
  // that was not reaped.
  Result<void> hold(pid_t child);

 private:
  UniqueFd ours_;
  UniqueFd childs_;  // until hold()
};

}  // namespace mps::process
