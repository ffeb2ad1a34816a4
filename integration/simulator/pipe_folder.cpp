#include "pipe_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire.h"

namespace mps::sim {
namespace {

constexpr const char* k_pid_file = "/nvidia-cuda-mps-control.pid";

class WithoutUmask {
 public:
  WithoutUmask() : before_(::umask(0)) {}
  ~WithoutUmask() { (void)::umask(before_); }
  WithoutUmask(const WithoutUmask&) = delete;
  WithoutUmask& operator=(const WithoutUmask&) = delete;

 private:
  mode_t before_;
};

}  // namespace

FolderProblem PipeFolder::lock() {
  const WithoutUmask open_to_all;
  (void)::mkdir(path_.c_str(), 0777);
  lock_.reset(::open((path_ + "/control_lock").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (!lock_) return FolderProblem::k_no_access;
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  const bool is_ours = ::fcntl(lock_.get(), F_SETLK, &whole) == 0;
  return is_ours ? FolderProblem::k_none : FolderProblem::k_already_running;
}

bool PipeFolder::make_fifo() {
  const std::string path = path_ + "/log";
  (void)::mkfifo(path.c_str(), 0777);
  (void)::chmod(path.c_str(), 0777);
  fifo_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  return static_cast<bool>(fifo_);
}

FolderProblem PipeFolder::listen() {
  privileged_ = listen_at(path_ + "/control_privileged");
  control_ = privileged_ ? listen_at(path_ + "/control") : UniqueFd{};
  if (!control_) return FolderProblem::k_path_too_long;
  (void)::chmod((path_ + "/control").c_str(), 0666);
  return FolderProblem::k_none;
}

void PipeFolder::write_pid_file() const {
  const WithoutUmask open_to_all;
  const UniqueFd file(
      ::open((path_ + k_pid_file).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  const std::string pid = std::to_string(::getpid());
  if (file) (void)!::write(file.get(), pid.data(), pid.size());
}

void PipeFolder::remove_pid_file() const {
  (void)::unlink((path_ + k_pid_file).c_str());
}

void PipeFolder::remove_fifo() const {
  (void)::unlink((path_ + "/log").c_str());
}

void PipeFolder::stop_listening() {
  control_.reset();
  privileged_.reset();
}

}  // namespace mps::sim
