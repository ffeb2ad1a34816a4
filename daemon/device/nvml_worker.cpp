#include "device/nvml_worker.h"

#include <boost/asio/post.hpp>

#include "device/quiet_thread.h"

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

// Where there is no thread to be had now, the next call tries again.
bool NvmlWorker::start_thread() {
  if (!thread_.joinable()) {
    thread_ = start_quiet_thread([self = shared_from_this()] { self->run(); });
  }
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
