// The control daemon's directory: lock, fifo, sockets, pid file, with the real names, modes and
// order, also over what a dead daemon left behind.
#pragma once

#include <optional>
#include <string>

#include "base/unique_fd.h"

namespace mps::sim {

enum class FolderProblem { k_none, k_no_access, k_already_running, k_path_too_long };

class PipeFolder {
 public:
  explicit PipeFolder(std::string path) : path_(std::move(path)) {}

  FolderProblem lock();  // makes the directory where only its last part is missing
  bool make_fifo();
  FolderProblem listen();
  void write_pid_file() const;
  void remove_pid_file() const;
  void remove_fifo() const;
  void stop_listening();  // the sockets' names stay, as with the real daemon

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fifo() const { return fifo_.get(); }
  [[nodiscard]] int control() const { return control_.get(); }
  [[nodiscard]] int privileged() const { return privileged_.get(); }

 private:
  std::string path_;
  UniqueFd lock_;
  UniqueFd fifo_;
  UniqueFd privileged_;
  UniqueFd control_;
};

}  // namespace mps::sim
