#include "device/nvml_worker.h"

#include <pthread.h>

#include <boost/asio/post.hpp>
#include <csignal>
#include <system_error>

namespace mps::device {

namespace {

constexpr std::size_t k_max_waiting = 16;
// For a call that is about to return when we end; a stuck one is not waited for.
constexpr std::chrono::milliseconds k_end_patience{250};

}  // namespace

std::optional<NvmlWorker::Id> NvmlWorker::submit(Work work) {
  const std::lock_guard lock(mutex_);
  if (!executor_ || stuck_ || queue_.size() >= k_max_waiting || !start_thread()) {
    return std::nullopt;
  }
  queue_.push_back({++last_id_, std::move(work)});
  wake_.notify_one();
  return last_id_;
}

void NvmlWorker::give_up(Id id) {
  const std::lock_guard lock(mutex_);
  std::erase_if(queue_, [id](const Job& job) { return job.id == id; });
  // Whether it was this call or the one before it in the queue: NVML is not answering.
  stuck_ = running_;
}

void NvmlWorker::close() {
  std::unique_lock lock(mutex_);
  executor_.reset();
  queue_.clear();
  wake_.notify_one();
  if (!thread_.joinable()) return;
  if (!stuck_) {
    ended_changed_.wait_for(lock, k_end_patience, [this] { return ended_; });
  }
  const bool ended = ended_;
  lock.unlock();
  ended ? thread_.join() : thread_.detach();
}

bool NvmlWorker::start_thread() {
  if (thread_.joinable()) return true;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  // Signals are the reactor's; a new thread inherits the mask.
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([self = shared_from_this()] { self->run(); });
  } catch (const std::system_error&) {  // no thread to be had now: the next call tries again
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread_.joinable();
}

void NvmlWorker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return !executor_ || !queue_.empty(); });
    if (!executor_) break;
    auto job = std::move(queue_.front());
    queue_.pop_front();
    running_ = true;
    lock.unlock();
    auto completion = job.work(library_);
    lock.lock();
    running_ = false;
    stuck_ = false;
    // Under the lock, so that close() knows that nothing is posted after it.
    if (executor_) boost::asio::post(*executor_, std::move(completion));
  }
  ended_ = true;
  ended_changed_.notify_all();
}

}  // namespace mps::device
