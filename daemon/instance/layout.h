// The directories of one instance (docs/architecture.md, "On disk") and what must be true of them
// before a control daemon may start. Directories that somebody may have mounted are made once and
// never replaced; only what is in them changes.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::instance {

struct Layout {
  Layout(const std::filesystem::path& run_dir, const std::string& id);

  std::filesystem::path root;          // <run>/<id>            0755
  std::filesystem::path pipe;          // the daemon's own       0711: never mounted into a pod
  std::filesystem::path private_;      // 0700: the daemon's output, its lock
  std::filesystem::path open;          // what a container may mount, 0755
  std::filesystem::path open_pipe;     // CUDA_MPS_PIPE_DIRECTORY of those inside
  std::filesystem::path shares;        // 0755: one folder for each share made on demand
  std::filesystem::path log;           // <private>/mps.log
  std::filesystem::path control;       // <pipe>/control
  std::filesystem::path private_lock;  // <private>/control_lock: see pipe_place.h

  // Makes what is missing, and puts modes right. An Error says which directory and why.
  [[nodiscard]] Result<void> make() const;

  // The same for one share made on demand: its folder in `shares`, like `open`, and what is above.
  [[nodiscard]] Result<void> make_share(const std::string& id) const;

  // Removes what a dead daemon left in its pipe directory. An Error while a control daemon holds
  // the lock.
  [[nodiscard]] Result<void> sweep() const;

  // Makes `control_lock` in the pipe directory, owned by us with mode 0600. The daemon would make
  // it 0666, where any local process could wait for it and, the moment the daemon dies, keep the
  // next one from starting; a lock file that is there it uses as it is (535, 550).
  [[nodiscard]] Result<void> make_lock() const;
  // The lock of a daemon whose directory is private. Made once: of two daemons that mean the same
  // file one gives way, whatever became of the supervisors that started them.
  [[nodiscard]] Result<void> keep_private_lock() const;

  // The living daemon of this directory: who holds the lock on one of these files, which nobody but
  // us and our daemon can open. 0: nobody.
  [[nodiscard]] pid_t lock_holder() const;
  // A daemon had its lock here and has it no longer. (Where nothing of it is left this is not
  // known: false.)
  [[nodiscard]] bool is_left_by_daemon() const;

  // The daemon's output: opened for append, so that holes can be punched behind the reader. A last
  // line that a dead daemon did not finish is ended, so that the next one's first is not its rest.
  [[nodiscard]] Result<UniqueFd> open_log() const;
};

// Tells one log file from its successors: inode and birth time.
Result<std::string> log_identity(int descriptor);

}  // namespace mps::instance
