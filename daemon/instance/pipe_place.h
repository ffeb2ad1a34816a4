// Where a control daemon's own pipe directory is. Its `control` is open to every uid, since servers
// and front-ends need it, so with a gate the directory is a tmpfs in a mount namespace that only
// the daemon, its servers and our front-ends are in: outside, it is empty. Without a gate it is
// visible, since the share's socket is a hard link of `control`.
//
// The lock by which a daemon is known (layout.h) is not in the tmpfs: a file of ours is mounted in
// its place, so that a new supervisor finds the daemon as it finds any other. Nothing is mounted
// outside, and all goes when the daemon, its servers and the last PipePlace have gone.
//
// Threading: any; calls enter the namespace on a thread of their own.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "instance/layout.h"
#include "process/mount_space.h"

namespace mps::instance {

class PipePlace {
 public:
  static std::shared_ptr<const PipePlace> visible(const Layout& layout);
  // For a daemon to start in. An Error where mount namespaces cannot be made here.
  static Result<std::shared_ptr<const PipePlace>> make_private(const Layout& layout);
  // Of a daemon that runs: in its mount namespace, which may be another one than ours and show the
  // same directory all the same.
  static Result<std::shared_ptr<const PipePlace>> of(const Layout& layout, pid_t daemon);

  [[nodiscard]] bool is_private() const { return space_ != nullptr; }
  // Where the daemon and its front-ends run; none: where we are.
  [[nodiscard]] const std::shared_ptr<const process::MountSpace>& space() const { return space_; }
  // O_PATH: whoever has it can connect to `control` in it, from any mount namespace.
  [[nodiscard]] Result<UniqueFd> directory() const;
  // `control` as this process reaches it while this object lives.
  [[nodiscard]] std::filesystem::path control() const;

 private:
  explicit PipePlace(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path path_;  // as all see it that are there
  std::shared_ptr<const process::MountSpace> space_;
  UniqueFd directory_;  // of a private one
};

}  // namespace mps::instance
