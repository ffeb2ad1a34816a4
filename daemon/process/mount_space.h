// A mount namespace beside our own. What is mounted in it nobody outside sees; what is mounted or
// unmounted outside happens in it too, so that it keeps no file system busy and lacks no device.
//
// The process never leaves its own namespace: what is done in another one is done on a thread that
// is made for it and ends with it. A space lives as long as a process is in it or one of these
// holds it; its mounts go with it.
//
// Needs CAP_SYS_ADMIN and CAP_SYS_CHROOT, and a seccomp filter that lets it; else an Error.
// Threading: any thread. A call takes as long as its work does, and about 0.1 ms besides.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::process {

class MountSpace {
 public:
  using Work = std::function<Result<void>()>;

  // A copy of ours; `furnish` runs in it first, and mounts what there is to be. An Error also where
  // it could not be entered again.
  static Result<std::shared_ptr<const MountSpace>> make(const Work& furnish);
  // The one that a process is in, which may be ours.
  static Result<std::shared_ptr<const MountSpace>> of(pid_t pid);

  // Whether the calling thread is in it. Needs no rights.
  [[nodiscard]] bool is_ours() const;
  // With paths as they are in it, and its root for a working directory.
  [[nodiscard]] Result<void> run(const Work& work) const;

  explicit MountSpace(UniqueFd space) : space_(std::move(space)) {}

 private:
  UniqueFd space_;
};

}  // namespace mps::process
